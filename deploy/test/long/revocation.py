"""Takes things back over REST and looks when two proxies refuse them: how long that takes, and that
open streams end too. Standard library alone.

Usage: revocation.py CONTROL OPERATOR-TOKEN SAMPLES TOKENS PROXY...

TOKENS is a file with one JWT a line: each is revoked once. The proxies serve group acme with the
server bench, where staff may call echo by the role binding staff, and visitors by the policy visitors.
Ends with `N passed, N failed`; the figures are printed, not judged.
"""

import hashlib
import http.client
import json
import pathlib
import statistics
import sys
import threading
import time
import urllib.parse

CONTROL, OPERATOR, SAMPLES = sys.argv[1], sys.argv[2], int(sys.argv[3])
TOKENS = pathlib.Path(sys.argv[4]).read_text().split()
PROXIES = sys.argv[5:]
PATIENCE = 20
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
PASSED, FAILED = [], []


def check(what, good, detail=""):
    (PASSED if good else FAILED).append(what)
    print(("ok    " if good else "FAIL  ") + what + ("" if good else f": {detail}"), flush=True)


def connect(url):
    place = urllib.parse.urlsplit(url)
    return http.client.HTTPConnection(place.hostname, place.port, timeout=PATIENCE)


def headers(token, method, name=None):
    found = {
        "Authorization": "Bearer " + token, "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": method,
    }
    if name:
        found["Mcp-Name"] = name
    return found


def post(connection, token, method, params, name=None):
    body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}
    connection.request("POST", "/acme/bench/mcp", json.dumps(body), headers(token, method, name))
    return connection.getresponse()


def call(connection, token):
    """True when the tool ran."""
    answer = post(connection, token, "tools/call",
                  {"name": "echo", "arguments": {"text": "x"}}, "echo")
    text = answer.read().decode()
    return answer.status == 200 and '"result"' in text


def operator(method, path, body=None):
    connection = connect(CONTROL)
    head = {"Authorization": "Bearer " + OPERATOR, "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), head)
    answer = connection.getresponse()
    text = answer.read().decode()
    assert answer.status < 300, (method, path, answer.status, text)
    return json.loads(text) if text else None


class Watcher(threading.Thread):
    """Calls one proxy all the time until the answer is the one that is wished for."""

    def __init__(self, proxy, token, wish):
        super().__init__(daemon=True)
        self.proxy, self.token, self.wish, self.at = proxy, token, wish, None
        self.began = threading.Event()

    def run(self):
        connection = connect(self.proxy)
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            good = call(connection, self.token)
            if good == self.wish:
                self.at = time.monotonic()
                return
            self.began.set()


class Stream(threading.Thread):
    """A stream that stays open until the gateway ends it."""

    def __init__(self, proxy, token):
        super().__init__(daemon=True)
        self.connection, self.at = connect(proxy), None
        params = {"notifications": {"toolsListChanged": True}}
        self.answer = post(self.connection, token, "subscriptions/listen", params)
        assert self.answer.status == 200, self.answer.read()
        self.start()

    def run(self):
        try:
            while self.answer.readline():
                pass
            self.at = time.monotonic()
        except OSError:
            self.at = time.monotonic()


def wait(token, wish):
    watchers = [Watcher(proxy, token, wish) for proxy in PROXIES]
    for watcher in watchers:
        watcher.start()
    for watcher in watchers:
        watcher.join(PATIENCE)
    return all(watcher.at for watcher in watchers)


def measure(kind, what, token_of, streams=True):
    """Milliseconds until the last proxy refuses, and until the last stream ends."""
    calls, ends, whole = [], [], True
    for sample in range(SAMPLES):
        token = token_of(sample)
        if not wait(token, True):
            return check(f"{kind}: {sample} is let in before", False)
        opened = [Stream(proxy, token) for proxy in PROXIES] if streams else []
        watchers = [Watcher(proxy, token, False) for proxy in PROXIES]
        for watcher in watchers:
            watcher.start()
            watcher.began.wait(PATIENCE)
        begun = time.monotonic()
        answer = operator("POST", "/v1/groups/acme/revocations", what(token, sample))
        for thread in watchers + opened:
            thread.join(PATIENCE)
        if not all(thread.at for thread in watchers + opened):
            whole = False
            break
        calls.append(1000 * (max(w.at for w in watchers) - begun))
        if opened:
            ends.append(1000 * (max(s.at for s in opened) - begun))
        operator("DELETE", f"/v1/resources/Revocation/acme/{answer['name']}")
    check(f"{kind}: refused at {len(PROXIES)} proxies" + (", streams end" if streams else ""), whole)
    for name, times in (("refused", calls), ("stream ended", ends)):
        if times:
            times.sort()
            p99 = times[min(len(times) - 1, round(0.99 * (len(times) - 1)))]
            print(f"      {kind}, {name}: p50 {statistics.median(times):.0f} ms, p99 {p99:.0f} ms, "
                  f"max {times[-1]:.0f} ms of {len(times)}", flush=True)


def claims(token):
    part = token.split(".")[1]
    import base64
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def soon(what):
    return {"what": what, "expires": int(time.time()) + 600}


def main():
    staff = TOKENS[0]
    visitor = TOKENS[-1]
    measure("token", lambda token, _: soon({"token": hashlib.sha256(token.encode()).hexdigest()}),
            lambda sample: TOKENS[sample % (len(TOKENS) - 1)])
    measure("session", lambda token, _: soon({"session": claims(token)["sid"]}),
            lambda sample: TOKENS[sample % (len(TOKENS) - 1)])
    measure("principal",
            lambda token, _: soon({"principal": {"id": "jwt:corp:" + claims(token)["sub"]}}),
            lambda sample: TOKENS[sample % (len(TOKENS) - 1)])
    measure("server", lambda *_: {"what": {"server": "bench"}}, lambda _: staff)
    measure("tool", lambda *_: {"what": {"tool": {"server": "bench", "name": "echo"}}},
            lambda _: staff, streams=False)
    measure("policy", lambda *_: {"what": {"policy": "visitors"}}, lambda _: visitor)
    measure("role binding", lambda *_: {"what": {"roleBinding": "staff"}}, lambda _: staff)
    print(f"\n{len(PASSED)} passed, {len(FAILED)} failed")
    sys.exit(1 if FAILED else 0)


main()
