"""A client on the Python SDK: `python_client.py MODE URL CALLS`, where URL may be a command after
`stdio:`. Prints a line per check, `ok ...` or `not ok ...`."""

import asyncio
import json
import shlex
import sys

from mcp import Client
from mcp.client.stdio import StdioServerParameters
from mcp import types

failed = 0


async def check(name, work):
    global failed
    try:
        await work()
        print(f"ok {name}")
    except Exception as error:
        failed += 1
        print(f"not ok {name}: {type(error).__name__}: {error}"[:600])


def holds(text, part):
    if part not in text:
        raise AssertionError(f"{part} is not in {text[:400]}")


async def sample(_context, _params):
    content = types.TextContent(type="text", text="sampled by the client")
    return types.CreateMessageResult(role="assistant", content=content, model="none")


async def decline(_context, _params):
    return types.ElicitResult(action="decline")


async def main(mode, url, calls):
    modes = {"auto": "auto", "legacy": "legacy", "modern": "2026-07-28"}
    server = url
    if url.startswith("stdio:"):
        command, *arguments = shlex.split(url.removeprefix("stdio:"))
        server = StdioServerParameters(command=command, args=arguments)
    async with Client(server, mode=modes[mode], sampling_callback=sample, elicitation_callback=decline) as client:

        async def lists():
            names = [tool.name for tool in (await client.list_tools()).tools]
            for call in calls:
                holds(" ".join(names), call["tool"])

        await check("lists tools of every server", lists)
        for call in calls:

            async def one(call=call):
                result = await client.call_tool(call["tool"], call["arguments"])
                text = result.model_dump_json()
                assert not result.is_error, text
                holds(text, call["expect"])

            await check(f"calls {call['tool']}", one)

        async def prompt():
            assert (await client.get_prompt("everything__simple-prompt")).messages

        async def resource():
            first = (await client.list_resources()).resources[0]
            assert (await client.read_resource(first.uri)).contents

        async def samples():
            arguments = {"prompt": "hello", "maxTokens": 20}
            result = await client.call_tool("everything__trigger-sampling-request", arguments)
            holds(result.model_dump_json(), "sampled by the client")

        async def asked():
            result = await client.call_tool("everything__trigger-elicitation-request", {})
            holds(result.model_dump_json(), "declined to provide")

        async def sent():
            arguments = {"url": "https://example.com/visit"}
            result = await client.call_tool("everything__trigger-url-elicitation", arguments)
            holds(result.model_dump_json(), "declined to open")

        await check("is asked for input by a server", asked)
        await check("is asked to visit a URL", sent)
        await check("gets a prompt", prompt)
        await check("reads a resource", resource)
        await check("samples for a server", samples)


with open(sys.argv[3]) as file:
    asyncio.run(main(sys.argv[1], sys.argv[2], json.load(file)))
sys.exit(1 if failed else 0)
