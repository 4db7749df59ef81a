// The client under test of the public suite's client mode: `scenario.mjs URL`. Which scenario, at which
// revision and with what to call, the suite says in the environment. Run from the folder that the
// packages are in.
//
// It does the same whatever is at the URL, so that a run through the gateway can be compared with
// a run against the suite's own server.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const url = process.argv[2];
const scenario = process.env.MCP_CONFORMANCE_SCENARIO;
const revision = process.env.MCP_CONFORMANCE_PROTOCOL_VERSION;
const context = JSON.parse(process.env.MCP_CONFORMANCE_CONTEXT ?? "{}");
const require = createRequire(process.cwd() + "/");
const { Client, StreamableHTTPClientTransport } = await import(
  pathToFileURL(require.resolve("@modelcontextprotocol/client")).href
);

const client = new Client(
  { name: "weir-test", version: "1.0.0" },
  {
    capabilities: { sampling: {}, elicitation: { form: { applyDefaults: true } }, roots: {} },
    versionNegotiation: { mode: revision >= "2026" ? { pin: revision } : "legacy" },
  },
);
client.setRequestHandler("elicitation/create", async (request) => ({
  action: "accept",
  content: request.params.requestedSchema.properties.confirmed ? { confirmed: true } : {},
}));

// Arguments that fit a schema of the suite's own tools.
function fitting(schema) {
  const samples = { string: "eu", integer: 7, number: 1.5, boolean: true, array: [], object: {}, null: null };
  const required = schema.required ?? [];
  return Object.fromEntries(required.map((name) => [name, samples[schema.properties?.[name]?.type]]));
}

async function listed(what, list) {
  return client.getServerCapabilities()?.[what] ? list() : [];
}

await client.connect(new StreamableHTTPClientTransport(new URL(url)));
const { tools } = await client.listTools();
switch (scenario) {
  case "json-schema-ref-no-deref":
    break;
  case "json-schema-2020-12-preservation": {
    const schema = tools.find((tool) => tool.name === "json_schema_2020_12_tool").inputSchema;
    await client.callTool({ name: "json_schema_echo", arguments: { schema } });
    break;
  }
  case "tools_call":
    await client.callTool({ name: "add_numbers", arguments: { a: 5, b: 3 } });
    break;
  default: {
    const calls = context.toolCalls ?? tools.map((t) => ({ name: t.name, arguments: fitting(t.inputSchema) }));
    for (const call of calls) await client.callTool(call);
    for (const { uri } of await listed("resources", async () => (await client.listResources()).resources))
      await client.readResource({ uri });
    for (const { name } of await listed("prompts", async () => (await client.listPrompts()).prompts))
      await client.getPrompt({ name });
  }
}
await client.close();
process.exit(0);
