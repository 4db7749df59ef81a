"""A small OpenID provider for tests of the gateway's sign-in: whoever comes is logged in as alice.

Usage: oidc.py PORT FOLDER. Keeps its key in FOLDER. Needs the program openssl.
"""

import base64
import hashlib
import http.server
import json
import pathlib
import secrets
import subprocess
import sys
import time
import urllib.parse

PORT, FOLDER = int(sys.argv[1]), pathlib.Path(sys.argv[2])
ISSUER = f"http://127.0.0.1:{PORT}"
KEY = FOLDER / "oidc.pem"
CODES, REFRESH = {}, set()


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def openssl(*args, data=None):
    return subprocess.run(["openssl", *args], input=data, capture_output=True, check=True).stdout


openssl("genrsa", "-out", str(KEY), "2048")
MODULUS = bytes.fromhex(openssl("rsa", "-in", str(KEY), "-modulus", "-noout").decode()
                        .strip().split("=")[1])


def id_token(client, nonce):
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": client, "sub": "alice", "groups": ["staff"],
              "iat": now, "exp": now + 300}
    if nonce:
        claims["nonce"] = nonce
    head = {"alg": "RS256", "kid": "k1", "typ": "JWT"}
    text = ".".join(b64(json.dumps(part).encode()) for part in (head, claims))
    return text + "." + b64(openssl("dgst", "-sha256", "-sign", str(KEY), data=text.encode()))


class Provider(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def say(self, status, value, **headers):
        body = json.dumps(value).encode()
        self.send_response(status)
        for name, text in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        parts = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(parts.query))
        if parts.path == "/.well-known/openid-configuration":
            self.say(200, {
                "issuer": ISSUER, "jwks_uri": ISSUER + "/keys",
                "authorization_endpoint": ISSUER + "/authorize", "token_endpoint": ISSUER + "/token",
            })
        elif parts.path == "/keys":
            self.say(200, {"keys": [{"kty": "RSA", "kid": "k1", "use": "sig", "alg": "RS256",
                                     "n": b64(MODULUS), "e": "AQAB"}]})
        elif parts.path == "/authorize":
            code = secrets.token_urlsafe(16)
            CODES[code] = (query["client_id"], query.get("nonce"), query["code_challenge"])
            back = urllib.parse.urlencode({"code": code, "state": query["state"], "iss": ISSUER})
            self.say(302, {}, Location=query["redirect_uri"] + "?" + back)
        else:
            self.say(404, {})

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        form = dict(urllib.parse.parse_qsl(body))
        if form.get("grant_type") == "authorization_code":
            client, nonce, challenge = CODES.pop(form.get("code"), (None, None, None))
            proof = b64(hashlib.sha256(form.get("code_verifier", "").encode()).digest())
            if client is None or proof != challenge:
                return self.say(400, {"error": "invalid_grant"})
        else:
            if form.get("refresh_token") not in REFRESH:
                return self.say(400, {"error": "invalid_grant"})
            REFRESH.remove(form["refresh_token"])
            client, nonce = "weir", None
        refresh = secrets.token_urlsafe(16)
        REFRESH.add(refresh)
        return self.say(200, {"access_token": "opaque", "token_type": "Bearer",
                              "id_token": id_token(client, nonce), "refresh_token": refresh})


http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Provider).serve_forever()
