"""A QUIC client that is not ours, against a gateway: its handshake completes, its garbage is refused and counted.

usage: quic_client.py HOST:PORT NODE CA HTTP_HOST:PORT

Each kind of garbage closes that one connection with the protocol error and raises its own counter in the gateway's /health;
nothing else is harmed: afterwards the gateway is ready and completes a handshake again.
"""

import asyncio
import json
import sys
import urllib.request

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted

WAIT_S = 10
CLIENT, PEER = "worldline-client/1", "worldline-peer/1"
PROTOCOL_ERROR = 1
CONTROL = b"\x00"

# What is sent on a stream of its own (or as a datagram), and which counter tells of it.
GARBAGE = [
    ("a stream of no known class", b"\x7f" + bytes(64), "streams_of_unknown_class"),
    ("a frame of 4 GiB", CONTROL + b"\xff\xff\xff\xff" + bytes(64), "frames_too_long"),
    ("a frame that is cut", CONTROL + b"\x00\x00\x00\x10" + b"cut", "streams_cut"),
]


class Connection(QuicConnectionProtocol):
    """Remembers how the handshake and the connection end."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.alpn = None
        self.end: asyncio.Future[ConnectionTerminated] = asyncio.get_running_loop().create_future()

    def quic_event_received(self, event):
        if isinstance(event, HandshakeCompleted):
            self.alpn = event.alpn_protocol
        elif isinstance(event, ConnectionTerminated) and not self.end.done():
            self.end.set_result(event)

    def say(self, data: bytes) -> None:
        stream = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(stream, data, end_stream=True)
        self.transmit()


class Gateway:
    def __init__(self, address: str, node: str, ca: str, http: str):
        self.host, port = address.rsplit(":", 1)
        self.port, self.node, self.ca, self.http = int(port), node, ca, http

    def connect(self, alpn: str):
        configuration = QuicConfiguration(
            is_client=True, alpn_protocols=[alpn], server_name=f"n{self.node}.worldline", max_datagram_frame_size=65_536
        )
        configuration.load_verify_locations(self.ca)
        return connect(self.host, self.port, configuration=configuration, create_protocol=Connection)

    def get(self, path: str) -> dict:
        with urllib.request.urlopen(f"http://{self.http}{path}", timeout=WAIT_S) as answer:
            return json.load(answer)

    def counter(self, name: str) -> int:
        return self.get("/health")["network"][name]


async def main(gateway: Gateway) -> None:
    async with gateway.connect(CLIENT) as connection:
        expect("a handshake", connection.alpn, CLIENT)

    for what, data, counter in GARBAGE:
        before = gateway.counter(counter)
        async with gateway.connect(CLIENT) as connection:
            connection.say(data)
            end = await asyncio.wait_for(connection.end, WAIT_S)
        expect(f"{what} is closed with the protocol error", (end.error_code, end.frame_type), (PROTOCOL_ERROR, None))
        expect(f"{what} is counted in {counter}", gateway.counter(counter) - before, 1)

    before = gateway.counter("peers_without_role")
    async with gateway.connect(PEER) as connection:
        await asyncio.wait_for(connection.end, WAIT_S)
    expect("a peer without a certificate is closed and counted", gateway.counter("peers_without_role") - before, 1)

    before = gateway.counter("quic_handshakes_failed")
    try:
        async with gateway.connect("h3"):
            sys.exit("another protocol was accepted")
    except ConnectionError:
        pass
    expect("another protocol is refused and counted", gateway.counter("quic_handshakes_failed") - before, 1)

    async with gateway.connect(CLIENT) as connection:
        expect("a handshake afterwards", connection.alpn, CLIENT)
    expect("the gateway is ready", gateway.get("/ready")["ready"], True)


def expect(what: str, found, wanted) -> None:
    if found != wanted:
        sys.exit(f"{what}: found {found}, expected {wanted}")
    print(f"  {what}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    asyncio.run(main(Gateway(*sys.argv[1:])))
