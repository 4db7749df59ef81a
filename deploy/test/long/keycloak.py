"""What deploy/test/long/keycloak.sh checks. Standard library alone.

Usage: keycloak.py KEYCLOAK GATEWAY, both as base URLs. Keycloak has the realm of
keycloak-realm.json, the gateway the configuration of keycloak.yaml; WEIR_URL and WEIR_TOKEN lead
to its control plane.
"""

import base64
import hashlib
import html
import http.client
import json
import re
import secrets
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

KEYCLOAK, GATEWAY = sys.argv[1:3]
REALM = KEYCLOAK + "/realms/weir"
ADMIN = KEYCLOAK + "/admin/realms/weir"
ENDPOINT = GATEWAY + "/corp/mcp"
REDIRECT = "http://127.0.0.1:7/callback"
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
}
PASSED, FAILED = [], []


class Stay(urllib.request.HTTPRedirectHandler):
    """Redirects are looked at, not followed."""

    def redirect_request(self, *_):
        return None


WEB = urllib.request.build_opener(Stay)


def ask(url, data=None, headers=None, method=None):
    """Status, headers and text of an answer, whatever it is."""
    if isinstance(data, dict):
        data = urllib.parse.urlencode(data).encode()
    request = urllib.request.Request(url, data, headers or {}, method=method)
    try:
        with WEB.open(request, timeout=30) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as answer:
        return answer.code, answer.headers, answer.read().decode()


def check(what, good, detail=""):
    (PASSED if good else FAILED).append(what)
    print(("ok    " if good else "FAIL  ") + what + ("" if good else f": {detail}"), flush=True)


def soon(what, condition, seconds=30):
    end = time.monotonic() + seconds
    while True:
        last = condition()
        if last is True or time.monotonic() > end:
            return check(what, last is True, last)
        time.sleep(0.2)


def login(user):
    status, _, text = ask(
        REALM + "/protocol/openid-connect/token",
        {"grant_type": "password", "client_id": "agent", "username": user, "password": "pw",
         "scope": "openid"},
    )
    return json.loads(text) if status == 200 else {"error": text}


def names(token):
    """Tools that a token's bearer sees."""
    status, _, _, found = listed(token)
    return sorted(found) if status == 200 else status


def tools(token):
    """Status and number of tools that a token's bearer sees, and the challenge."""
    return listed(token)[:3]


def listed(token):
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    headers = {
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2026-07-28",
        "Mcp-Method": "tools/list",
    }
    if token:
        headers["Authorization"] = "Bearer " + token
    status, heads, text = ask(ENDPOINT, json.dumps(body).encode(), headers)
    found = [t["name"] for t in json.loads(text)["result"]["tools"]] if status == 200 else []
    return status, len(found), heads.get("WWW-Authenticate", ""), found


class Flow(threading.Thread):
    """Calls that never stop, with whatever tokens there are; keeps what was refused."""

    def __init__(self, *tokens):
        super().__init__(daemon=True)
        self.tokens, self.refused, self.calls, self.over = list(tokens), [], 0, False
        self.start()

    def run(self):
        while not self.over:
            for token in list(self.tokens):
                status, _, challenge = tools(token)
                self.calls += 1
                if status != 200:
                    self.refused.append((kid(token), status, challenge))

    def stop(self):
        self.over = True
        self.join()
        return self.refused


class Stream(threading.Thread):
    """A stream that stays open until the gateway ends it."""

    def __init__(self, token):
        super().__init__(daemon=True)
        place = urllib.parse.urlsplit(ENDPOINT)
        self.connection = http.client.HTTPConnection(place.hostname, place.port, timeout=120)
        body = {"jsonrpc": "2.0", "id": 1, "method": "subscriptions/listen",
                "params": {"notifications": {"toolsListChanged": True}, "_meta": META}}
        self.connection.request("POST", place.path, json.dumps(body), {
            "Content-Type": "application/json", "Authorization": "Bearer " + token,
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": "2026-07-28", "Mcp-Method": "subscriptions/listen",
        })
        self.answer = self.connection.getresponse()
        assert self.answer.status == 200, self.answer.read()
        self.start()

    def run(self):
        try:
            while self.answer.readline():
                pass
        except OSError:
            pass


def out(token):
    """True when a token is refused for good, else what it gets."""
    answer = tools(token)
    return True if answer[0] == 401 else answer


def claims(token):
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def admin(path, body=None, method="GET"):
    status, _, text = ask(
        KEYCLOAK + "/realms/master/protocol/openid-connect/token",
        {"grant_type": "password", "client_id": "admin-cli", "username": "admin",
         "password": "admin"},
    )
    assert status == 200, text
    token = json.loads(text)["access_token"]
    headers = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
    data = json.dumps(body).encode() if body is not None else None
    status, _, text = ask(ADMIN + path, data, headers, method)
    assert status < 300, (path, status, text)
    return json.loads(text) if text else None


def user_id(name):
    return admin(f"/users?username={name}&exact=true")[0]["id"]


def weir(*args):
    done = subprocess.run(["weir", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def kid(token):
    head = token.split(".")[0]
    return json.loads(base64.urlsafe_b64decode(head + "=" * (-len(head) % 4)))["kid"]


def key_rotation(token):
    """A new key while calls flow: tokens of both are good; without the old one, its are not."""
    provider = {
        "name": "fresh", "providerId": "rsa-generated",
        "providerType": "org.keycloak.keys.KeyProvider",
        "config": {"priority": ["200"], "enabled": ["true"], "active": ["true"],
                   "algorithm": ["RS256"]},
    }
    provider["parentId"] = admin("")["id"]
    flow = Flow(token)
    admin("/components", provider, "POST")
    fresh = login("alice")["access_token"]
    check("a new key signs", kid(fresh) != kid(token))
    # Every call from the first on: the proxy fetches the keys while the call waits.
    flow.tokens.append(fresh)
    before = flow.calls
    soon("calls flow with both", lambda: flow.calls > before + 40 or flow.calls)
    found = admin("/components?type=org.keycloak.keys.KeyProvider")
    old = [c for c in found if c["providerId"] == "rsa-generated" and c["name"] != "fresh"]
    provider["name"], provider["config"]["priority"] = "fresher", ["300"]
    admin("/components", provider, "POST")
    newest = login("alice")["access_token"]
    flow.tokens.append(newest)
    before = flow.calls
    soon("calls flow with three keys", lambda: flow.calls > before + 60 or flow.calls)
    refused = flow.stop()
    check(f"of {flow.calls} calls while keys rotated none was refused", not refused, refused[:5])
    for component in old:
        admin(f"/components/{component['id']}", method="DELETE")
    # Keys are fetched again when a token names one that is not known, or after five minutes.
    provider["name"], provider["config"]["priority"] = "freshest", ["400"]
    admin("/components", provider, "POST")
    newest = login("alice")["access_token"]
    soon("a token of the newest key gets in", lambda: tools(newest)[0] == 200 or tools(newest))
    status, _, challenge = tools(token)
    check("a withdrawn key verifies nothing", status == 401 and "invalid_token" in challenge,
          (status, challenge))
    return newest


def everything_of(user):
    """Keycloak tells a client of one session, however many of them it ends; a client that is told
    of persons hears of all at once."""
    client = admin("/clients?clientId=agent")[0]
    client["attributes"]["backchannel.logout.session.required"] = "false"
    admin(f"/clients/{client['id']}", client, "PUT")
    both = [login(user)["access_token"] for _ in range(2)]
    check("two sessions of one person", all(tools(token)[0] == 200 for token in both))
    admin(f"/users/{user_id(user)}/logout", method="POST")
    soon("end together where the client is told of persons",
         lambda: all(out(token) is True for token in both) or [out(token) for token in both])
    # Whatever was issued until that second has ended.
    time.sleep(2)


def browser_login(url, user):
    """A person before Keycloak's login page; gives the URL that the browser is sent to."""
    status, heads, text = ask(url)
    assert status == 200, (status, text)
    jar = "; ".join(c.split(";")[0] for c in heads.get_all("Set-Cookie", []))
    action = html.unescape(re.search(r'action="([^"]+)"', text).group(1))
    status, heads, text = ask(action, {"username": user, "password": "pw"}, {"Cookie": jar})
    assert status == 302, (status, text[:500])
    return heads["Location"]


def cookie(heads, name):
    return next(c.split(";")[0] for c in heads.get_all("Set-Cookie", [])
                if c.startswith(name + "=") and not c.startswith(name + "=;"))


def through_the_gateway(user):
    """Everything that an MCP client and a browser do; gives client id and tokens."""
    _, _, challenge = tools(None)
    metadata = re.search(r'resource_metadata="([^"]+)"', challenge).group(1)
    resource = json.loads(ask(metadata)[2])
    issuer = resource["authorization_servers"][0]
    server = json.loads(ask(issuer + "/.well-known/oauth-authorization-server")[2])
    assert server["issuer"] == issuer
    body = json.dumps({"client_name": "test", "redirect_uris": [REDIRECT]}).encode()
    status, _, text = ask(server["registration_endpoint"], body,
                          {"Content-Type": "application/json"})
    assert status == 201, text
    client = json.loads(text)["client_id"]
    verifier = secrets.token_urlsafe(48)
    challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).decode()
    query = urllib.parse.urlencode({
        "response_type": "code", "client_id": client, "redirect_uri": REDIRECT, "state": "s",
        "code_challenge": challenge.rstrip("="), "code_challenge_method": "S256",
        "resource": resource["resource"], "scope": "mcp",
    })
    status, heads, text = ask(server["authorization_endpoint"] + "?" + query)
    assert status == 200, text
    request = html.unescape(re.search(r'name="request" value="([^"]+)"', text).group(1))
    status, heads, text = ask(issuer + "/authorize/consent",
                              {"request": request, "provider": "keycloak"},
                              {"Cookie": cookie(heads, "weir-consent"), "Origin": issuer})
    assert status == 303, (status, text)
    back = browser_login(heads["Location"], user)
    status, heads, text = ask(back, headers={"Cookie": cookie(heads, "weir-sign-in")})
    assert status == 303, (status, text)
    answer = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(heads["Location"]).query))
    assert answer.get("iss") == issuer and "code" in answer, answer
    status, _, text = ask(server["token_endpoint"], {
        "grant_type": "authorization_code", "code": answer["code"], "redirect_uri": REDIRECT,
        "client_id": client, "code_verifier": verifier, "resource": resource["resource"],
    })
    assert status == 200, text
    return server["token_endpoint"], client, json.loads(text)


def refresh(endpoint, client, tokens):
    status, _, text = ask(endpoint, {
        "grant_type": "refresh_token", "client_id": client,
        "refresh_token": tokens["refresh_token"],
    })
    return status, json.loads(text)


def main():
    alice = login("alice")["access_token"]
    soon("a realm role from its claims gets in", lambda: tools(alice)[1] > 1 or tools(alice))
    bob = login("bob")["access_token"]
    check("a client role from its claims gets in", tools(bob)[1] > 1, tools(bob))
    dave, erin = login("dave")["access_token"], login("erin")["access_token"]
    one = ["tickets__search_tickets"]
    check("a group from its claims opens one tool, and no other", names(dave) == one, names(dave))
    check("a policy over its claims opens one tool", names(erin) == one, names(erin))
    carol = login("carol")["access_token"]
    check("without a role nothing is seen", tools(carol)[1] == 0, tools(carol))
    status, _, challenge = tools(None)
    check("without a token there is a challenge",
          status == 401 and "resource_metadata=" in challenge and 'scope="mcp"' in challenge)
    account = json.loads(ask(REALM + "/protocol/openid-connect/token", {
        "grant_type": "password", "client_id": "admin-cli", "username": "alice", "password": "pw",
    })[2]).get("access_token", "none")
    check("a token for another audience does not", tools(account)[0] == 401, tools(account))

    alice = key_rotation(alice)

    endpoint, client, tokens = through_the_gateway("alice")
    check("a person logs in through the gateway", tools(tokens["access_token"])[1] > 0,
          tools(tokens["access_token"]))
    status, fresh = refresh(endpoint, client, tokens)
    check("and stays logged in", status == 200 and tools(fresh["access_token"])[1] > 0, fresh)

    stream = Stream(fresh["access_token"])
    # The key that signed the first tokens is gone.
    direct, dave = login("alice")["access_token"], login("dave")["access_token"]
    check("a token that did not come through the gateway", tools(direct)[0] == 200)
    admin(f"/sessions/{claims(direct)['sid']}", method="DELETE")
    soon("signing one session out at the provider ends its tokens", lambda: out(direct))
    check("and those of no other", tools(fresh["access_token"])[0] == 200 and stream.is_alive())
    admin(f"/users/{user_id('alice')}/logout", method="POST")
    soon("signing out altogether ends the gateway's tokens", lambda: out(fresh["access_token"]))
    stream.join(20)
    check("and open streams", not stream.is_alive())
    check("while other people's go on", names(dave) == one, names(dave))
    status, answer = refresh(endpoint, client, fresh)
    check("a signed-out session is not refreshed",
          status == 400 and answer["error"] == "invalid_grant", answer)

    again = through_the_gateway("alice")[2]
    check("who signs in again is back", tools(again["access_token"])[1] > 1)
    everything_of("alice")
    alice = login("alice")["access_token"]
    check("and in again", tools(alice)[0] == 200, tools(alice))

    endpoint, client, tokens = through_the_gateway("bob")
    bob = login("bob")["access_token"]
    admin(f"/users/{user_id('bob')}", {"enabled": False}, "PUT")
    status, answer = refresh(endpoint, client, tokens)
    check("a disabled user is not refreshed",
          status == 400 and answer["error"] == "invalid_grant", answer)
    check("a disabled user gets no token", "error" in login("bob"))
    check("the token that the user still has works until it ends", tools(bob)[1] > 0, tools(bob))
    weir("revoke", "principal", f"jwt:keycloak:{claims(bob)['sub']}", "-g", "corp", "--wait")
    check("unless an operator revokes the user", tools(bob)[0] == 401, tools(bob))
    weir("revoke", "token", alice, "-g", "corp", "--wait")
    check("or one token", tools(alice)[0] == 401, tools(alice))
    check("and no other", tools(login("alice")["access_token"])[1] > 0)

    print(f"\n{len(PASSED)} passed, {len(FAILED)} failed")
    sys.exit(1 if FAILED else 0)


main()
