// A client on one of the TypeScript SDKs: `typescript.mjs v1|v2 MODE URL CALLS`. Prints a line per
// check, `ok ...` or `not ok ...`. Run from the folder that the packages are in.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [library, mode, url, callsFile] = process.argv.slice(2);
const require = createRequire(process.cwd() + "/");
const load = (name) => import(pathToFileURL(require.resolve(name)).href);

let failed = 0;
async function check(name, work) {
  try {
    await work();
    console.log(`ok ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok ${name}: ${error?.message ?? error}`);
  }
}
function same(found, expected) {
  if (found !== expected) throw new Error(`${JSON.stringify(found)} is not ${JSON.stringify(expected)}`);
}
function holds(text, part) {
  if (!text.includes(part)) throw new Error(`${part} is not in ${text.slice(0, 400)}`);
}

const info = { name: "weir-test", version: "1.0.0" };
const capabilities = { sampling: {}, roots: {}, elicitation: { form: {}, url: {} } };
const sample = async () => ({
  model: "none", role: "assistant", content: { type: "text", text: "sampled by the client" },
});
const roots = async () => ({ roots: [] });
const decline = async () => ({ action: "decline" });

async function connect() {
  if (library === "v1") {
    const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
    const schemas = await load("@modelcontextprotocol/sdk/types.js");
    const client = new Client(info, { capabilities });
    client.setRequestHandler(schemas.CreateMessageRequestSchema, sample);
    client.setRequestHandler(schemas.ListRootsRequestSchema, roots);
    client.setRequestHandler(schemas.ElicitRequestSchema, decline);
    if (mode === "sse") {
      const { SSEClientTransport } = await load("@modelcontextprotocol/sdk/client/sse.js");
      await client.connect(new SSEClientTransport(new URL(url.replace(/mcp$/, "sse"))));
      return client;
    }
    const http = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");
    await client.connect(new http.StreamableHTTPClientTransport(new URL(url)));
    return client;
  }
  const { Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client");
  const modes = { legacy: "legacy", auto: "auto", modern: { pin: "2026-07-28" } };
  const options = { capabilities, versionNegotiation: { mode: modes[mode] } };
  const client = new Client(info, options);
  client.setRequestHandler("sampling/createMessage", sample);
  client.setRequestHandler("roots/list", roots);
  client.setRequestHandler("elicitation/create", decline);
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  return client;
}

const client = await connect();
await check("lists tools of every server", async () => {
  const { tools } = await client.listTools();
  const names = tools.map((tool) => tool.name);
  for (const call of JSON.parse(readFileSync(callsFile, "utf8"))) holds(names.join(" "), call.tool);
});
for (const call of JSON.parse(readFileSync(callsFile, "utf8"))) {
  await check(`calls ${call.tool}`, async () => {
    const result = await client.callTool({ name: call.tool, arguments: call.arguments });
    if (result.isError) throw new Error(JSON.stringify(result.content));
    holds(JSON.stringify(result), call.expect);
  });
}
await check("gets a prompt", async () => {
  const { messages } = await client.getPrompt({ name: "everything__simple-prompt" });
  same(messages.length > 0, true);
});
await check("reads a resource", async () => {
  const { resources } = await client.listResources();
  same(resources.length > 0, true);
  const { contents } = await client.readResource({ uri: resources[0].uri });
  same(contents.length > 0, true);
});
await check("hears of progress", async () => {
  const heard = [];
  const call = { name: "everything__trigger-long-running-operation", arguments: { duration: 1, steps: 4 } };
  const options = { onprogress: (progress) => heard.push(progress.progress) };
  if (library === "v1") await client.callTool(call, undefined, options);
  else await client.callTool(call, options);
  same(heard.length > 0, true);
});
await check("samples for a server", async () => {
  const call = { name: "everything__trigger-sampling-request", arguments: { prompt: "hello", maxTokens: 20 } };
  holds(JSON.stringify(await client.callTool(call)), "sampled by the client");
});
await check("is asked for input by a server", async () => {
  const call = { name: "everything__trigger-elicitation-request", arguments: {} };
  holds(JSON.stringify(await client.callTool(call)), "declined to provide");
});
await check("is asked to visit a URL", async () => {
  const call = { name: "everything__trigger-url-elicitation", arguments: { url: "https://example.com/visit" } };
  holds(JSON.stringify(await client.callTool(call)), "declined to open");
});
await check("is told what does not exist", async () => {
  let code;
  try {
    await client.callTool({ name: "everything__no-such-tool", arguments: {} });
  } catch (error) {
    code = error.code;
  }
  same(code, -32602);
});
await client.close();
process.exit(failed === 0 ? 0 : 1);
