"""Logs in with the official Python SDK and calls a tool. Usage: sdk_login.py ENDPOINT"""

import asyncio
import html
import http.cookiejar
import re
import sys
import urllib.parse
import urllib.request

import httpx2
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

ENDPOINT = sys.argv[1]
REDIRECT = "http://127.0.0.1:7/callback"


class Stay(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but for the one that leads back to the client."""

    answer = None

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        if newurl.startswith(REDIRECT):
            Stay.answer = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(newurl).query))
            return None
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def consent(url):
    browser = urllib.request.build_opener(
        urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()), Stay)
    with browser.open(url, timeout=30) as page:
        text = page.read().decode()
    form = {name: html.unescape(value) for name, value in
            re.findall(r'<(?:input|button)[^>]* name="([^"]+)" value="([^"]*)"', text)}
    form.pop("deny", None)
    try:
        browser.open(urllib.parse.urljoin(url, "/authorize/consent"),
                     urllib.parse.urlencode(form).encode(), timeout=30)
    except urllib.error.HTTPError as stayed:
        assert stayed.code in (302, 303), stayed


class Memory:
    """Where the SDK keeps what it got."""

    tokens = client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client):
        self.client = client


async def main():
    memory = Memory()

    async def redirect(url):
        await asyncio.to_thread(consent, url)

    async def callback():
        answer = Stay.answer
        return AuthorizationCodeResult(
            code=answer["code"], state=answer.get("state"), iss=answer.get("iss"))

    auth = OAuthClientProvider(
        server_url=ENDPOINT,
        client_metadata=OAuthClientMetadata(
            client_name="Python SDK", redirect_uris=[REDIRECT],
            grant_types=["authorization_code", "refresh_token"], response_types=["code"]),
        storage=memory, redirect_handler=redirect, callback_handler=callback)
    async with httpx2.AsyncClient(auth=auth, timeout=30) as web:
        async with Client(streamable_http_client(ENDPOINT, http_client=web)) as client:
            tools = (await client.list_tools()).tools
    assert tools, "the list is empty"
    assert memory.tokens.refresh_token, "no refresh token"
    print(f"ok    the Python SDK logs in and sees {len(tools)} tools")


asyncio.run(main())
