"""Logs in with the official Python SDK and calls a tool. Usage: sdk_login.py ENDPOINT"""

import asyncio
import sys
import urllib.parse

import httpx2
from agree import REDIRECT, agree
from mcp.client.auth import OAuthClientProvider
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientMetadata

ENDPOINT = sys.argv[1]


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

    back = []

    async def redirect(url):
        back.append(await asyncio.to_thread(agree, url))

    async def callback():
        answer = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(back[-1]).query))
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
