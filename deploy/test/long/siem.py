#!/usr/bin/env python3
"""What siem.sh holds consumers to. Each part ends with 0, or says what is wrong."""

import json
import pathlib
import socketserver
import sys

DOCS = pathlib.Path(__file__).resolve().parents[3] / "docs/reference"


def events(path):
    return [json.loads(line) for line in open(path, encoding="utf-8")]


def records(path):
    return [event for event in events(path) if event["class_uid"] == 6003]


def messages(path):
    """Keys, headers and partitions of the console consumer's `Partition:N TAB headers TAB key TAB value`."""
    places, checkpoints, count = {}, 0, 0
    for line in open(path, encoding="utf-8"):
        head, value = line.split("{", 1)
        event = json.loads("{" + value)
        partition, headers, key = head.rstrip("\t").split("\t")[:3]
        uid = event["metadata"]["uid"]
        assert f"weir-event-id:{uid}" in headers, (headers, uid)
        if event["class_uid"] == 6003:
            assert key == event["metadata"].get("tenant_uid", "-"), (key, event["metadata"])
            places.setdefault(key, set()).add(partition)
        else:
            checkpoints += 1
            assert key == event["unmapped"]["node"], key
        count += 1
    assert {"shop", "bank"} <= set(places) and checkpoints > 1, (places, checkpoints)
    assert all(len(of) == 1 for of in places.values()), f"a key in several partitions: {places}"
    print(f"{count} messages, {checkpoints} of them checkpoints; keys {sorted(places)}")


def schemas(path):
    import jsonschema

    validators = {}
    for name in ("event", "checkpoint"):
        schema = json.loads((DOCS / f"audit-{name}.schema.json").read_text(encoding="utf-8"))
        jsonschema.Draft202012Validator.check_schema(schema)
        validators[name] = jsonschema.Draft202012Validator(schema)
    count = {"event": 0, "checkpoint": 0}
    for event in events(path):
        name = "event" if event["class_uid"] == 6003 else "checkpoint"
        validators[name].validate(event)
        count[name] += 1
    assert min(count.values()) > 1, count
    print(f"{count['event']} records and {count['checkpoint']} checkpoints fit")


def kept(path):
    calls = [r for r in records(path) if r["api"]["operation"] == "tools/call" and r["status_code"] == "success"]
    with_both = [r for r in calls if "arguments" in r["unmapped"] and "result" in r["unmapped"]]
    assert calls and len(with_both) == len(calls), f"{len(with_both)} of {len(calls)} calls have both"
    text = open(path, encoding="utf-8").read()
    assert "a-password-for-tests" not in text and "weir_at_" not in text
    print(f"{len(calls)} calls have their arguments and what the server answered")


def arrived(export, siem, archive):
    """The archive has what the export has, byte for byte; the SIEM has the records, and nothing else."""
    lines = lambda path: set(open(path, "rb").read().splitlines())
    wanted, here = lines(export), lines(archive)
    assert wanted <= here, f"{len(wanted - here)} of {len(wanted)} lines are not in the archive"
    told = {event["metadata"]["uid"] for event in events(siem)}
    assert all(event["class_uid"] == 6003 for event in events(siem))
    assert {r["metadata"]["uid"] for r in records(export)} <= told, "records are missing"


class Line(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            self.server.out.write(line)
            self.server.out.flush()


def listen(port, path):
    socketserver.ThreadingTCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("127.0.0.1", int(port)), Line) as server:
        server.daemon_threads = True
        server.out = open(path, "wb")
        server.serve_forever()


if __name__ == "__main__":
    part, *args = sys.argv[1:]
    {f.__name__: f for f in (messages, schemas, kept, arrived, listen)}[part](*args)
