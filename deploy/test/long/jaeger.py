"""What deploy/test/long/jaeger.sh checks. Standard library alone.

Usage: jaeger.py traces|away|back|hanging|serve|hang, with what each needs. `serve` is an MCP server
that sends spans of its own, `hang` a collector that never answers; the others are an agent that
sends spans of its own and reads traces back through Jaeger's query API.
"""

import argparse
import http.server
import json
import re
import secrets
import socket
import sys
import threading
import time
import urllib.error
import urllib.request

PASSED, FAILED = [], []
# Calls while a collector is away.
CALLS = 100


def check(what, good, detail=""):
    (PASSED if good else FAILED).append(what)
    print(("ok    " if good else "FAIL  ") + what + ("" if good else f": {detail}"), flush=True)


def soon(condition, seconds=30):
    """The condition's value as soon as there is one, or its last."""
    end = time.monotonic() + seconds
    while True:
        last = condition()
        if last or time.monotonic() > end:
            return last
        time.sleep(0.2)


def send_span(otlp, service, span):
    """One span as OTLP over HTTP. What we say ourselves may be lost with the collector."""
    body = {"resourceSpans": [{
        "resource": {"attributes": [
            {"key": "service.name", "value": {"stringValue": service}}]},
        "scopeSpans": [{"spans": [span]}]}]}
    request = urllib.request.Request(
        otlp + "/v1/traces", json.dumps(body).encode(), {"content-type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=5).read()
    except OSError:
        pass


def span(trace, own, parent, name, kind, begun):
    return {"traceId": trace, "spanId": own, "parentSpanId": parent, "name": name, "kind": kind,
            "startTimeUnixNano": str(begun), "endTimeUnixNano": str(time.time_ns())}


class Server(http.server.BaseHTTPRequestHandler):
    """A server of revision 2026-07-28 that continues the trace it is given."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    otlp = ""

    def log_message(self, *_):
        pass

    def do_POST(self):
        begun = time.time_ns()
        ask = json.loads(self.rfile.read(int(self.headers["content-length"])))
        params = ask.get("params", {})
        result = self.result(ask["method"], params)
        if "id" not in ask or result is None:
            return self.answer(202 if "id" not in ask else 404, {
                "jsonrpc": "2.0", "id": ask.get("id"),
                "error": {"code": -32601, "message": "Method not found"}})
        header = self.headers.get("traceparent", "")
        if ask["method"] == "tools/call" and header:
            _, trace, parent, flags = header.split("-")
            agree = params.get("_meta", {}).get("traceparent") == header
            name = "served" if agree else "header and _meta disagree"
            if int(flags, 16) & 1:
                own = secrets.token_hex(8)
                send_span(self.otlp, "orders", span(trace, own, parent, name, 2, begun))
        self.answer(200, {"jsonrpc": "2.0", "id": ask["id"],
                          "result": {"resultType": "complete", **result}})

    def result(self, method, params):
        if method == "server/discover":
            return {"ttlMs": 60000, "cacheScope": "public", "supportedVersions": ["2026-07-28"],
                    "capabilities": {"tools": {}},
                    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "o", "version": "1"}}}
        if method == "tools/list":
            schema = {"type": "object", "properties": {"n": {"type": "integer"}}}
            tools = [{"name": name, "inputSchema": schema} for name in ("look", "slow")]
            return {"ttlMs": 60000, "cacheScope": "public", "tools": tools}
        if method == "tools/call":
            if params["name"] == "slow":
                time.sleep(0.5)
            return {"content": [{"type": "text", "text": params["name"]}]}
        return None

    def answer(self, status, body):
        body = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def serve(args):
    Server.otlp = args.otlp
    http.server.ThreadingHTTPServer(("127.0.0.1", args.listen), Server).serve_forever()


def hang(args):
    """Accepts connections and never says a word."""
    listener = socket.create_server(("127.0.0.1", args.listen))
    kept = []
    while True:
        connection, _ = listener.accept()
        kept.append(connection)

        def swallow(connection=connection):
            while connection.recv(65536):
                pass

        threading.Thread(target=swallow, daemon=True).start()


class Agent:
    """Calls the gateway under a span of its own."""

    def __init__(self, args):
        self.args = args

    def ask(self, method, params, group="shop", header=None, meta=None):
        name = {"mcp-name": params["name"]} if "name" in params else {}
        meta = {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
            **({"traceparent": meta} if meta else {}),
        }
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": meta}}
        token = open(f"{self.args.tokens}/{group}.token").read().strip()
        headers = {
            "content-type": "application/json", "accept": "application/json, text/event-stream",
            "authorization": "Bearer " + token, "mcp-protocol-version": "2026-07-28",
            "mcp-method": method, **name, **({"traceparent": header} if header else {}),
        }
        url = f"{self.args.gateway}/{group}/orders/mcp"
        request = urllib.request.Request(url, json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read())
        except urllib.error.HTTPError as answer:
            return json.loads(answer.read() or b"{}")

    def call(self, tool="look", sampled=True, by="meta", group="shop"):
        """Calls a tool under a new trace; gives the trace, our span and the answer."""
        trace, own, begun = secrets.token_hex(16), secrets.token_hex(8), time.time_ns()
        parent = f"00-{trace}-{own}-{'01' if sampled else '00'}"
        answer = self.ask("tools/call", {"name": tool, "arguments": {"n": 1}}, group, **{by: parent})
        if sampled:
            send_span(self.args.otlp, "agent", span(trace, own, "", "asks", 3, begun))
        return trace, own, answer

    def ready(self):
        def there():
            tools = self.ask("tools/list", {})
            other = self.ask("tools/list", {}, "bank")
            return all(len(t.get("result", {}).get("tools", [])) == 2 for t in (tools, other))

        return soon(there, 60)

    def trace(self, trace):
        """Spans of a trace as Jaeger knows them, by service and name; empty when it does not."""
        try:
            url = f"{self.args.query}/api/traces/{trace}"
            data = json.loads(urllib.request.urlopen(url, timeout=10).read())["data"]
        except (urllib.error.URLError, OSError):
            return {}
        found = {}
        for one in data:
            services = {key: process["serviceName"] for key, process in one["processes"].items()}
            for part in one["spans"]:
                parents = [ref["spanID"] for ref in part["references"]]
                tags = {tag["key"]: tag["value"] for tag in part["tags"]}
                found[services[part["processID"]], tags.get("span.kind", ""), part["operationName"]] = {
                    "id": part["spanID"], "parent": parents[0] if parents else "", "tags": tags,
                    "start": part["startTime"], "took": part["duration"]}
        return found

    def spans(self, result):
        """The metric of spans."""
        text = urllib.request.urlopen(self.args.metrics, timeout=10).read().decode()
        found = re.findall(r'^weir_spans_total\{result="%s"\} (\d+)' % result, text, re.M)
        return sum(map(int, found))


GATEWAY = "weir-data-plane"


def whole(agent, by):
    trace, own, answer = agent.call(by=by)
    check(f"a call with its trace in {by} is answered", "result" in answer, answer)
    served, asked = ("orders", "server", "served"), ("agent", "client", "asks")

    def complete():
        spans = agent.trace(trace)
        return spans if served in spans and asked in spans and len(spans) >= 7 else None

    spans = soon(complete) or agent.trace(trace)
    check("Jaeger has the agent's span, the gateway's five and the server's, and no more",
          len(spans) == 7, sorted(spans))
    inbound = spans.get((GATEWAY, "server", "tools/call look"), {})
    outbound = spans.get((GATEWAY, "client", "tools/call look"), {})
    check("the gateway's span is the child of the agent's", inbound.get("parent") == own, spans)
    for phase in ("authenticate", "validate", "decide"):
        part = spans.get((GATEWAY, "internal", "weir." + phase), {})
        check(f"{phase} is part of it", part.get("parent") == inbound.get("id"), spans)
    check("so is the exchange with the server", outbound.get("parent") == inbound.get("id"), spans)
    check("the server's span is the child of that exchange",
          spans.get(served, {}).get("parent") == outbound.get("id"), spans)
    within = all(
        inbound["start"] <= part["start"]
        and part["start"] + part["took"] <= inbound["start"] + inbound["took"] + 1000
        for key, part in spans.items() if key[0] == GATEWAY) if inbound else False
    check("the parts lie within the whole", within, spans)
    tags = inbound.get("tags", {})
    wanted = {"mcp.method.name": "tools/call", "gen_ai.tool.name": "look", "weir.group": "shop",
              "gen_ai.operation.name": "execute_tool", "mcp.protocol.version": "2026-07-28"}
    check("it carries the attributes of the conventions",
          all(tags.get(key) == value for key, value in wanted.items()), tags)


def known(agent, trace, spans=1):
    """Whether Jaeger comes to know a trace of the gateway."""
    of_ours = lambda: len([k for k in agent.trace(trace) if k[0] == GATEWAY]) >= spans
    return soon(of_ours)


def sampling(agent):
    silent, _, _ = agent.call(sampled=False)
    unseen = secrets.token_hex(16)
    agent.ask("tools/list", {}, meta=f"00-{unseen}-{secrets.token_hex(8)}-01")
    slow, _, _ = agent.call("slow", sampled=False)
    refused, _, answer = agent.call("no_such_tool", sampled=False)
    check("a tool that is not there is refused", "error" in answer, answer)
    bank, _, _ = agent.call(sampled=False, group="bank")
    last, _, _ = agent.call()
    check("a call that its caller records is recorded", known(agent, last, 5))
    check("a slow call is recorded by rule, though nobody asked for it", known(agent, slow, 5))
    check("so is one that was refused", known(agent, refused))
    tags = [part["tags"] for key, part in agent.trace(refused).items() if key[1] == "server"]
    check("and says why", tags and tags[0].get("error.type") == "unknown_target", tags)
    check("and every call of a group", known(agent, bank, 5))
    # What was handed in before the last one has been sent before it.
    check("a call that nobody records is not", agent.trace(silent) == {}, silent)
    check("nor is a method that a rule leaves out, though its caller records it",
          agent.trace(unseen) == {}, unseen)


def many(agent):
    """Calls that are recorded, and how long they took, for people: every one is answered."""
    times = []
    for _ in range(CALLS):
        begun = time.monotonic()
        _, _, answer = agent.call(group="bank")
        times.append(time.monotonic() - begun)
        if "result" not in answer:
            return check("every call is answered", False, answer)
    times.sort()
    print(f"      {CALLS} calls, median {times[CALLS // 2] * 1e3:.1f} ms, longest {times[-1] * 1e3:.1f} ms")
    check("every call is answered", True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=["traces", "away", "back", "hanging", "serve", "hang"])
    parser.add_argument("--listen", type=int)
    for name in ("otlp", "gateway", "query", "metrics", "tokens"):
        parser.add_argument("--" + name)
    args = parser.parse_args()
    if args.what in ("serve", "hang"):
        return {"serve": serve, "hang": hang}[args.what](args)
    agent = Agent(args)
    check("the tools of both groups are known", agent.ready())
    if args.what == "traces":
        for by in ("meta", "header"):
            whole(agent, by)
        sampling(agent)
        many(agent)
    elif args.what == "back":
        def again():
            trace, _, _ = agent.call()
            return soon(lambda: len(agent.trace(trace)) == 7, 5)

        check("traces are whole again", soon(again, 60))
    else:
        many(agent)
        if args.what == "hanging":
            # Not one export has come to an end, and still every call has.
            lost = soon(lambda: agent.spans("dropped") > 0)
            check("what found the queue full is counted", lost)
            check("nothing was taken for sent", agent.spans("sent") == 0, agent.spans("sent"))
        else:
            lost = soon(lambda: agent.spans("failed") + agent.spans("dropped") > 0)
            check("what could not be sent is counted", lost)
    print(f"\n{len(PASSED)} passed, {len(FAILED)} failed")
    sys.exit(1 if FAILED else 0)


main()
