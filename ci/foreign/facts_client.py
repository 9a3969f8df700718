"""A NATS client that is not ours: it replays the stream of facts from its first message, and compares it with the ledger.

usage: facts_client.py DESCRIPTORS NATS [POSTGRES [whole]]

DESCRIPTORS is what protoc makes of fact.proto. Without POSTGRES every fact is printed. While a world runs, what the ledger had
flagged as published before the replay must be in the stream, and what is in the stream must stand in the ledger behind it, field
by field; of a world at rest (`whole`) the stream must tell every fact.
"""

import asyncio
import json
import sys

import asyncpg
import nats
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from nats.js.errors import NotFoundError

STREAM = "WORLDLINE_FACTS"
FACT = "worldline.server.v1.Fact"
VERSION = 1
KINDS = {1: "character", 2: "boss", 3: "npc"}
WAIT_S = 10
LOOK_AGAIN_S = 0.5


def contract(path: str):
    """The class of a fact, from what protoc has made of its contract."""
    with open(path, "rb") as file:
        files = descriptor_pb2.FileDescriptorSet.FromString(file.read())
    pool = descriptor_pool.DescriptorPool()
    for file in files.file:
        pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(FACT))


def name(entity: int) -> str:
    return f"{KINDS[entity >> 56]}-{entity & ((1 << 56) - 1)}"


async def unsaid(_) -> None:
    """What goes wrong is said where it ends the replay."""


async def replay(url: str, fact_class) -> list:
    """Every message: its place, and the fact in it as the ledger would show it."""
    once = {"allow_reconnect": False, "max_reconnect_attempts": 1, "reconnect_time_wait": 0, "error_cb": unsaid}
    client = await asyncio.wait_for(nats.connect(url, **once), WAIT_S)
    try:
        jetstream = client.jetstream(timeout=WAIT_S)
        try:
            last = (await jetstream.stream_info(STREAM)).state.last_seq
        except NotFoundError:
            sys.exit(f"{url} has no stream {STREAM}: is this the bus of a world that was started?")
        messages, place = [], 0
        if last:
            subscription = await jetstream.subscribe("worldline.facts.*", stream=STREAM, ordered_consumer=True)
            while place < last:
                message = await subscription.next_msg(timeout=WAIT_S)
                place = message.metadata.sequence.stream
                fact = fact_class.FromString(message.data)
                if fact.version != VERSION or message.subject != f"worldline.facts.{name(fact.aggregate)}":
                    sys.exit(f"message {place} on {message.subject} is none that this client knows: {fact}")
                body = {"Hit": {field: getattr(fact.hit, field) for field in ("dealt", "remaining", "experience", "bounty")}}
                row = (name(fact.aggregate), fact.sequence, name(fact.character), fact.number, body)
                messages.append((place, row))
        return messages
    finally:
        await client.close()


async def ledger(url: str) -> dict:
    """Every fact of the ledger by its name, and whether it is flagged as published."""
    connection = await asyncpg.connect(url, timeout=WAIT_S)
    try:
        rows = await connection.fetch("select * from worldline.facts order by aggregate, sequence")
    finally:
        await connection.close()
    shown = lambda row: (row["aggregate"], row["sequence"], row["character"], row["number"], json.loads(row["body"]))
    return {(row["aggregate"], row["sequence"]): (shown(row), row["published"] is not None) for row in rows}


def difference(before: dict, messages: list, after: dict, whole: bool) -> str | None:
    """In what the stream and the ledger differ."""
    told = {}
    for place, row in messages:
        known = after.get(row[:2])
        if known is None or known[0] != row:
            return f"message {place} tells {row}; the ledger has {known and known[0]}"
        told[row[:2]] = place
    for key, (row, published) in (after if whole else before).items():
        if (published or whole) and key not in told:
            return f"the stream lacks {row}"
    return None


async def main(descriptors: str, bus: str, database: str | None = None, whole: str | None = None) -> None:
    fact_class = contract(descriptors)
    if database is None:
        for place, row in await replay(bus, fact_class):
            print(place, row[0], row[1], "by", row[2], row[3], json.dumps(row[4]))
        return
    waited_s = 0.0
    while True:
        before = await ledger(database)
        messages = await replay(bus, fact_class)
        after = await ledger(database)
        differs = difference(before, messages, after, whole is not None)
        # What a world at rest has not published yet, its relay soon will.
        if differs is None or whole is None or waited_s >= WAIT_S:
            break
        await asyncio.sleep(LOOK_AGAIN_S)
        waited_s += LOOK_AGAIN_S
    if differs is not None:
        sys.exit(differs)
    facts = len({row[:2] for _, row in messages})
    under_way = len(after) - facts
    again = len(messages) - facts
    print(f"  the stream's {len(messages)} messages are the ledger's facts: {facts} ({again} told again, {under_way} still to come)")


if __name__ == "__main__":
    if not 3 <= len(sys.argv) <= 5:
        sys.exit(__doc__)
    try:
        asyncio.run(main(*sys.argv[1:]))
    except (OSError, TimeoutError, nats.errors.Error, asyncpg.PostgresError) as error:
        sys.exit(f"{' or '.join(sys.argv[2:4])}: {error or type(error).__name__}")
