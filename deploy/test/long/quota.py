"""Spends a quota of 2,000 calls at several proxies until each of them says that it is over.

Usage: quota.py spend FILE TOKEN PORT...; FILE has the number of calls that were served so far.
"""

import http.client
import json
import os
import subprocess
import sys
import threading
import time

FILE, TOKEN, PORTS = sys.argv[2], sys.argv[3], [int(port) for port in sys.argv[4:]]
QUOTA, HEAD_START = 2000, 20
# Each proxy, and the one that starts a second time.
PROCESSES = len(PORTS) + 1
PATIENCE = 240
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
PASSED, FAILED = [], []
LOCK = threading.Lock()
SERVED = 0


def check(what, good, detail=""):
    (PASSED if good else FAILED).append(what)
    print(("ok    " if good else "FAIL  ") + what + ("" if good else f": {detail}"), flush=True)


def call(connection):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call",
            "params": {"name": "echo", "arguments": {"text": "x"}, "_meta": META}}
    connection.request("POST", "/acme/bench/mcp", json.dumps(body), {
        "Authorization": "Bearer " + TOKEN, "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/call", "Mcp-Name": "echo",
    })
    answer = connection.getresponse()
    return answer.status, answer.getheader("Retry-After"), answer.read().decode()


class Spender(threading.Thread):
    """Calls one proxy until the quota is over there for good."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port, self.last = port, None

    def run(self):
        global SERVED
        connection = None
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                connection = connection or http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
                status, wait, text = call(connection)
            except (OSError, http.client.HTTPException):
                connection = None
                time.sleep(0.05)
                continue
            if status == 200 and '"result"' in text:
                with LOCK:
                    SERVED += 1
            elif status == 429:
                self.last = (int(wait or 0), text)
                if int(wait or 0) > 1:
                    return
                time.sleep(0.05)
            else:
                time.sleep(0.05)


def write():
    with LOCK:
        text = str(SERVED)
    with open(FILE + ".new", "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(FILE + ".new", FILE)


def main():
    spenders = [Spender(port) for port in PORTS for _ in range(2)]
    for spender in spenders:
        spender.start()
    while any(spender.is_alive() for spender in spenders):
        write()
        time.sleep(0.05)
    write()
    most = QUOTA + PROCESSES * HEAD_START
    check(f"{SERVED} calls of {QUOTA} were served, at most {most}", SERVED <= most)
    # What a process that died had been granted and had not spent is lost: half of the rest at most.
    check("most of the quota was of use", SERVED >= QUOTA // 2, SERVED)
    ended = all(spender.last and spender.last[0] > 1 for spender in spenders)
    check("every proxy says when the quota renews", ended, [spender.last for spender in spenders])
    data = json.loads(spenders[-1].last[1])["error"].get("data", {}) if ended else {}
    check("in the error as well", data.get("retryAfterSecs", 0) > 1, data)
    shown = json.loads(subprocess.run(["weir", "limits", "-g", "acme", "-o", "json"],
                                      capture_output=True, text=True, check=True).stdout)
    use = shown["uses"][0]
    check("the ledger knows who spent it", use["of"] == "account:ci" and use["left"] == 0, use)
    check("and how much, but for what died unheard",
          SERVED - 2 * HEAD_START <= use["used"] + use["reserved"] and use["used"] <= most, use)
    print(f"\n{len(PASSED)} passed, {len(FAILED)} failed")
    sys.exit(1 if FAILED else 0)


main()
