"""A server for the conformance runs on the Python SDK: `python_fixture.py PORT`. Not all of the suite's
contract, which the fixture on rmcp has, but another implementation of the wire: JSON answers,
statuses and streams of its own, an event store, and streams that it closes in the middle of a call."""

import base64
import sys
from typing import Annotated

import anyio
from mcp import types
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.streamable_http import EventMessage, EventStore
from pydantic import BaseModel, Field

PNG = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
WAV = base64.b64encode(b"RIFF$\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0@\x1f\0\0\x80>\0\0\2\0\x10\0data\0\0\0\0").decode()
image = types.ImageContent(type="image", data=PNG, mime_type="image/png")


def text(said):
    return types.TextContent(type="text", text=said)


def embedded(uri, mime, said):
    inner = types.TextResourceContents(uri=uri, mime_type=mime, text=said)
    return types.EmbeddedResource(type="resource", resource=inner)


class Store(EventStore):
    """Everything that was ever sent."""

    def __init__(self):
        self.events = []

    async def store_event(self, stream_id, message):
        self.events.append((stream_id, message))
        return str(len(self.events) - 1)

    async def replay_events_after(self, last_event_id, send_callback):
        if not last_event_id.isdigit() or int(last_event_id) >= len(self.events):
            return None
        stream = self.events[int(last_event_id)][0]
        for at in range(int(last_event_id) + 1, len(self.events)):
            of, message = self.events[at]
            if of == stream and message is not None:
                await send_callback(EventMessage(message, str(at)))
        return stream


server = MCPServer("conformance-python")


@server.tool(structured_output=False)
def test_simple_text():
    """Says something."""
    return [text("This is a simple text response for testing.")]


@server.tool(structured_output=False)
def test_image_content():
    """Shows a pixel."""
    return [image]


@server.tool(structured_output=False)
def test_audio_content():
    """Plays nothing."""
    return [types.AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


@server.tool(structured_output=False)
def test_embedded_resource():
    """Holds a resource."""
    return [embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")]


@server.tool(structured_output=False)
def test_multiple_content_types():
    """A little of everything."""
    data = '{"test":"data","value":123}'
    resource = embedded("test://mixed-content-resource", "application/json", data)
    return [text("Multiple content types test:"), image, resource]


@server.tool(structured_output=False)
def test_error_handling():
    """Fails."""
    failed = "This tool intentionally returns an error for testing"
    return types.CallToolResult(content=[text(failed)], is_error=True)


@server.tool(structured_output=False)
async def test_tool_with_logging(ctx: Context):
    """Says what it does."""
    for said in ["Tool execution started", "Tool processing data", "Tool execution completed"]:
        await ctx.info(said)
        await anyio.sleep(0.05)
    return [text("Tool with logging executed")]


@server.tool(structured_output=False)
async def test_tool_with_progress(ctx: Context):
    """Says how far it is."""
    for step in [0, 50, 100]:
        await ctx.report_progress(step, 100)
        await anyio.sleep(0.05)
    return [text("Tool with progress executed")]


class Person(BaseModel):
    username: str = Field(description="User's response")
    email: str = Field(description="User's email address")


@server.tool(structured_output=False)
async def test_elicitation(message: str, ctx: Context):
    """Asks its user while it runs."""
    answer = await ctx.elicit(message, Person)
    return [text(f"User response: action={answer.action}, content={getattr(answer, 'data', None)}")]


@server.tool(structured_output=False)
async def test_reconnection(ctx: Context):
    """Closes its stream before it has answered."""
    await ctx.close_sse_stream()
    await anyio.sleep(0.1)
    return [text("Reconnection test completed")]


@server.tool(structured_output=False)
async def test_logging_tool(ctx: Context):
    """Says what it does, to whoever wants to hear it."""
    await ctx.info("Tool execution started")
    return [text("Tool with logging executed")]


@server.tool(structured_output=False)
def greet(name: str):
    """Greets."""
    return [text(f"Hello, {name}!")]


@server.tool(structured_output=False)
def slow_compute(seconds: float):
    """Is done at once, whoever asks."""
    return [text("computed")]


@server.tool(structured_output=False)
def confirm_delete(filename: str):
    """Asks nobody, and deletes nothing."""
    return [text("kept")]


def question():
    schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
    params = types.ElicitRequestFormParams(message="What is your name?", requested_schema=schema)
    return types.InputRequiredResult(input_requests={"user_name": types.ElicitRequest(params=params)})


@server.tool(structured_output=False)
async def test_input_required_result_elicitation(
    ctx: Context,
) -> list[types.TextContent] | types.InputRequiredResult:
    """Ends its round with a question."""
    answer = (ctx.input_responses or {}).get("user_name")
    content = getattr(answer, "content", None) or {}
    return [text(f"Hello, {content['name']}!")] if "name" in content else question()


@server.tool(structured_output=False)
async def test_streaming_elicitation(
    ctx: Context,
) -> list[types.TextContent] | types.InputRequiredResult:
    """The same."""
    return [text("Thank you")] if ctx.input_responses else question()


@server.resource("test://static-text", mime_type="text/plain")
def static_text():
    """A text."""
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary():
    """Bytes."""
    return base64.b64decode(PNG)


@server.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str):
    """One of many."""
    return f'{{"id":"{id}","templateTest":true,"data":"Data for ID: {id}"}}'


@server.prompt()
def test_simple_prompt():
    """Says something."""
    return "This is a simple prompt for testing."


@server.prompt()
def test_prompt_with_arguments(
    arg1: Annotated[str, Field(description="First")], arg2: Annotated[str, Field(description="Second")]
):
    """Says what it is told."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


@server.completion()
async def complete(ref, argument, context):
    """Words that begin alike."""
    words = [word for word in ["paris", "park", "party"] if word.startswith(argument.value)]
    return types.Completion(values=words, total=len(words), has_more=False)


server.run(
    transport="streamable-http", port=int(sys.argv[1]), event_store=Store(), retry_interval=200
)
