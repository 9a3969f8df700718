"""A collector that is not ours: it reads what `worldlined` exports by the published contract of OTLP (opentelemetry-proto).

usage: collector.py PORT

Takes traces at /v1/traces until SIGTERM, then waits until it has an attack as a whole and says what holds. A field that the
contract does not have, or of another type, is refused, and ends it with 1.
"""

import base64
import json
import signal
import sys
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

WAIT_S = 10
# In OTLP's JSON these are hexadecimal, where protobuf's has base64; with so many digits.
IDS = {"traceId": 32, "spanId": 16, "parentSpanId": 16}
# The stages of an attack, and under which each may be. Only what crosses a region has the call.
CALL = "cross_region_grpc"
UNDER = {
    "client_attack_input": [None],
    "gateway_routing": ["client_attack_input"],
    CALL: ["gateway_routing"],
    "worker_combat_simulation": ["gateway_routing", CALL],
    "db_transaction": ["worker_combat_simulation"],
    "nats_broadcast": ["worker_combat_simulation"],
    "client_reconciliation": ["nats_broadcast"],
}


class Collected:
    """What has come. Requests come by threads."""

    def __init__(self):
        self.changed = threading.Condition()
        self.requests = 0
        self.wrong = None
        self.services = set()
        self.spans = 0
        self.traces = defaultdict(list)

    def take(self, path, content_type, body):
        """Takes a request; what is wrong with it, if anything."""
        try:
            if path != "/v1/traces" or content_type != "application/json":
                raise ValueError(f"{content_type} for {path}")
            document = json.loads(body, object_hook=with_ids)
            request = json_format.ParseDict(document, ExportTraceServiceRequest(), ignore_unknown_fields=False)
        except (ValueError, json_format.ParseError) as error:
            with self.changed:
                self.wrong = self.wrong or f"{error} in {body[:2000]!r}"
                self.changed.notify()
            return str(error)
        with self.changed:
            self.requests += 1
            for resource in request.resource_spans:
                self.services |= {of.value.string_value for of in resource.resource.attributes if of.key == "service.name"}
                for span in (span for scope in resource.scope_spans for span in scope.spans):
                    self.spans += 1
                    self.traces[span.trace_id].append(span)
            self.changed.notify()
        return None

    def an_attack(self):
        """The spans of an attack of which every stage has come."""
        stages = UNDER.keys() - {CALL}
        return next((spans for spans in self.traces.values() if {span.name for span in spans} >= stages), None)


def with_ids(members):
    for name, digits in IDS.items():
        if name in members:
            if len(members[name]) != digits:
                raise ValueError(f"{name} {members[name]!r} has not {digits} digits")
            members[name] = base64.b64encode(bytes.fromhex(members[name])).decode()
    return members


def main(port: int) -> None:
    collected = Collected()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):  # the name that the library calls
            body = self.rfile.read(int(self.headers["content-length"]))
            wrong = collected.take(self.path, self.headers["content-type"], body)
            answer = json.dumps({"message": wrong} if wrong else {}).encode()
            self.send_response(400 if wrong else 200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_):
            pass

    asked = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: asked.set())
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    asked.wait()
    until = time.monotonic() + WAIT_S
    with collected.changed:
        while not collected.wrong and not collected.an_attack() and (left := until - time.monotonic()) > 0:
            collected.changed.wait(left)
        judge(collected)


def judge(collected: Collected) -> None:
    expect("requests that the contract does not know", collected.wrong, None)
    print(f"  {collected.spans} spans in {collected.requests} requests of {', '.join(sorted(collected.services))}")
    attack = collected.an_attack()
    if attack is None:
        sys.exit(f"no attack with {', '.join(UNDER)}: {[sorted({s.name for s in t}) for t in collected.traces.values()][:5]}")
    names = {span.span_id: span.name for span in attack}
    for span in attack:
        under = names.get(span.parent_span_id) if span.parent_span_id else None
        expect(f"{span.name} is under {under or 'none'}", under in UNDER[span.name], True)
        expect(f"{span.name} begins before it ends", span.start_time_unix_nano <= span.end_time_unix_nano, True)
    expect("ids of its spans", len(names), len(attack))


def expect(what: str, found, wanted) -> None:
    if found != wanted:
        sys.exit(f"{what}: found {found}, expected {wanted}")
    print(f"  {what}: {'none' if found is None else 'yes' if found is True else found}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(int(sys.argv[1]))
