// A server for the conformance runs on the TypeScript SDK: `typescript_fixture.mjs PORT`. One set of
// tools in both eras, as the SDK serves them: stateless requests by its handler, older clients in
// sessions with an event store. What asks for input says so in the newer form, which the SDK turns
// into real requests for older clients.

import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

// Modules are found from the folder that the packages are in.
const require = createRequire(path.join(process.cwd(), "package.json"));
const load = async (name) => import(pathToFileURL(require.resolve(name)).href);
const sdk = await load("@modelcontextprotocol/server");
const node = await load("@modelcontextprotocol/node");
const { z } = await load("zod");
const { McpServer, ResourceTemplate, acceptedContent, completable, inputRequired } = sdk.default ?? sdk;
const { NodeStreamableHTTPServerTransport, toNodeHandler, toWebRequest } = node.default ?? node;
const { localhostHostValidation, localhostOriginValidation } = node.default ?? node;
const { createMcpHandler, isLegacyRequest } = sdk.default ?? sdk;

const PNG =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";
const WAV = Buffer.from("RIFF$\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0@\x1f\0\0\x80>\0\0\x02\0\x10\0data\0\0\0\0", "latin1");
const text = (said) => ({ type: "text", text: said });
const image = { type: "image", data: PNG, mimeType: "image/png" };
const embedded = (uri, mimeType, said) => ({ type: "resource", resource: { uri, mimeType, text: said } });
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

// Everything that was ever sent.
class Store {
  events = [];
  async storeEvent(stream, message) {
    this.events.push([stream, message]);
    return String(this.events.length - 1);
  }
  async getStreamIdForEventId(id) {
    return this.events[Number(id)]?.[0];
  }
  async replayEventsAfter(id, { send }) {
    const stream = this.events[Number(id)]?.[0];
    for (let at = Number(id) + 1; at < this.events.length; at += 1) {
      const [of, message] = this.events[at];
      if (of === stream && message && Object.keys(message).length > 0) await send(String(at), message);
    }
    return stream;
  }
}

let handler;

function offer({ era }) {
  const capabilities = { logging: {}, resources: { subscribe: true }, tools: { listChanged: true } };
  const server = new McpServer({ name: "conformance-typescript", version: "1.0.0" }, { capabilities });
  const tool = (name, description, inputSchema, run) =>
    server.registerTool(name, { description, ...(inputSchema && { inputSchema }) }, run);
  const plain = (name, description, content) =>
    tool(name, description, undefined, async () => ({ content }));

  plain("test_simple_text", "Says something", [text("This is a simple text response for testing.")]);
  plain("test_image_content", "Shows a pixel", [image]);
  plain("test_audio_content", "Plays nothing", [
    { type: "audio", data: WAV.toString("base64"), mimeType: "audio/wav" },
  ]);
  plain("test_embedded_resource", "Holds a resource", [
    embedded("test://embedded-resource", "text/plain", "This is an embedded resource content."),
  ]);
  plain("test_multiple_content_types", "A little of everything", [
    text("Multiple content types test:"),
    image,
    embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
  ]);
  tool("test_error_handling", "Fails", undefined, async () => ({
    content: [text("This tool intentionally returns an error for testing")],
    isError: true,
  }));
  tool("test_tool_with_logging", "Says what it does", undefined, async (ctx) => {
    for (const said of ["Tool execution started", "Tool processing data", "Tool execution completed"]) {
      await ctx.mcpReq.log("info", said);
      await pause(50);
    }
    return { content: [text("Tool with logging executed")] };
  });
  tool("test_logging_tool", "Says what it does, to whoever wants to hear it", undefined, async (ctx) => {
    await ctx.mcpReq.log("info", "Tool execution started");
    return { content: [text("Tool with logging executed")] };
  });
  tool("test_tool_with_progress", "Says how far it is", undefined, async (ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progressToken !== undefined) {
        const params = { progressToken, progress, total: 100 };
        await ctx.mcpReq.notify({ method: "notifications/progress", params });
      }
      await pause(50);
    }
    return { content: [text("Tool with progress executed")] };
  });
  tool("test_reconnection", "Closes its stream before it has answered", undefined, async (ctx) => {
    ctx.http?.closeSSE?.();
    await pause(100);
    return { content: [text("Reconnection test completed")] };
  });
  tool("greet", "Greets", z.object({ name: z.string() }), async ({ name }) => ({
    content: [text(`Hello, ${name}!`)],
  }));
  tool("test_trigger_tool_change", "Says that the list of tools has changed", undefined, async () => {
    handler.notify.toolsChanged();
    return { content: [text("said")] };
  });

  const person = {
    type: "object",
    properties: {
      username: { type: "string", description: "User's response" },
      email: { type: "string", description: "User's email address" },
    },
    required: ["username", "email"],
  };
  tool("test_elicitation", "Asks its user", z.object({ message: z.string() }), async ({ message }, ctx) => {
    const answer = ctx.mcpReq.inputResponses?.person;
    if (!answer) {
      const ask = inputRequired.elicit({ message, requestedSchema: person });
      return inputRequired({ inputRequests: { person: ask } });
    }
    const content = JSON.stringify(answer.content ?? {});
    return { content: [text(`User response: action=${answer.action}, content=${content}`)] };
  });
  tool("test_sampling", "Samples", z.object({ prompt: z.string() }), async ({ prompt }, ctx) => {
    const answer = ctx.mcpReq.inputResponses?.model;
    if (!answer) {
      const messages = [{ role: "user", content: text(prompt) }];
      const ask = inputRequired.createMessage({ messages, maxTokens: 100 });
      return inputRequired({ inputRequests: { model: ask } });
    }
    const said = Array.isArray(answer.content) ? answer.content[0] : answer.content;
    return { content: [text(`LLM response: ${said?.text ?? ""}`)] };
  });
  const named = {
    type: "object",
    properties: { name: { type: "string" } },
    required: ["name"],
  };
  const asking = (name, description) =>
    tool(name, description, undefined, async (ctx) => {
      const content = acceptedContent(ctx.mcpReq.inputResponses ?? {}, "user_name");
      if (content?.name !== undefined) return { content: [text(`Hello, ${content.name}!`)] };
      const ask = inputRequired.elicit({ message: "What is your name?", requestedSchema: named });
      return inputRequired({ inputRequests: { user_name: ask } });
    });
  asking("test_input_required_result_elicitation", "Ends its round with a question");
  asking("test_streaming_elicitation", "The same");
  tool("test_input_required_result_list_roots", "Asks for roots", undefined, async (ctx) => {
    const roots = ctx.mcpReq.inputResponses?.client_roots?.roots;
    if (roots) return { content: [text(`Roots: ${roots.map((root) => root.uri).join(", ")}`)] };
    return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
  });

  const meta = (description, mimeType) => ({ description, mimeType });
  const read = (name, uri, about, content) =>
    server.registerResource(name, uri, about, async (at) => ({
      contents: [{ uri: at.href, mimeType: about.mimeType, ...content }],
    }));
  read("static-text", "test://static-text", meta("A text", "text/plain"), {
    text: "This is the content of the static text resource.",
  });
  read("static-binary", "test://static-binary", meta("Bytes", "image/png"), { blob: PNG });
  read("watched", "test://watched-resource", meta("Something to watch", "text/plain"), {
    text: "Nothing has happened yet.",
  });
  server.registerResource(
    "template",
    new ResourceTemplate("test://template/{id}/data", { list: undefined }),
    meta("One of many", "application/json"),
    async (uri, { id }) => {
      const said = JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` });
      return { contents: [{ uri: uri.href, mimeType: "application/json", text: said }] };
    },
  );

  const says = (said) => ({ messages: [{ role: "user", content: said }] });
  server.registerPrompt("test_simple_prompt", { description: "Says something" }, async () =>
    says(text("This is a simple prompt for testing.")),
  );
  const words = (start) => ["paris", "park", "party"].filter((word) => word.startsWith(start));
  const argument = (about) => completable(z.string().describe(about), words);
  server.registerPrompt(
    "test_prompt_with_arguments",
    {
      description: "Says what it is told",
      argsSchema: z.object({ arg1: argument("First"), arg2: argument("Second") }),
    },
    async ({ arg1, arg2 }) => says(text(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)),
  );
  server.registerPrompt(
    "test_prompt_with_embedded_resource",
    { description: "Holds a resource", argsSchema: z.object({ resourceUri: z.string() }) },
    async ({ resourceUri }) => says(embedded(resourceUri, "text/plain", "Embedded resource content for testing.")),
  );
  server.registerPrompt("test_prompt_with_image", { description: "Shows a pixel" }, async () => says(image));

  if (era === "legacy") {
    for (const method of ["resources/subscribe", "resources/unsubscribe"]) {
      server.server.setRequestHandler(method, async () => ({}));
    }
  }
  return server;
}

handler = createMcpHandler(offer, { legacy: "reject" });
const modern = toNodeHandler(handler);
const sessions = new Map();

async function legacy(req, res, body) {
  const id = req.headers["mcp-session-id"];
  let transport = id === undefined ? undefined : sessions.get(id);
  if (id !== undefined && !transport) {
    const error = { code: -32001, message: "Session not found" };
    res.writeHead(404, { "content-type": "application/json" });
    return res.end(JSON.stringify({ jsonrpc: "2.0", id: null, error }));
  }
  if (!transport) {
    transport = new NodeStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      eventStore: new Store(),
      retryInterval: 200,
      onsessioninitialized: (made) => void sessions.set(made, transport),
      onsessionclosed: (gone) => void sessions.delete(gone),
    });
    await offer({ era: "legacy" }).connect(transport);
  }
  return transport.handleRequest(req, res, body);
}

const goodHost = localhostHostValidation();
const goodOrigin = localhostOriginValidation();

createServer(async (req, res) => {
  if (!goodHost(req, res) || !goodOrigin(req, res)) return;
  const chunks = [];
  for await (const chunk of req) chunks.push(chunk);
  let body;
  try {
    body = chunks.length > 0 ? JSON.parse(Buffer.concat(chunks).toString("utf8")) : undefined;
  } catch {
    const error = { code: -32700, message: "Parse error" };
    res.writeHead(400, { "content-type": "application/json" });
    return void res.end(JSON.stringify({ jsonrpc: "2.0", id: null, error }));
  }
  const older = await isLegacyRequest(await toWebRequest(req, body));
  await (older ? legacy(req, res, body) : modern(req, res, body));
}).listen(Number(process.argv[2]), "127.0.0.1");
