// Logs in with one of the official TypeScript SDKs, calls a tool, and stays logged in when the access
// token is worth nothing any more: `sdk_login.mjs v1|v2 ENDPOINT`. Run from the folder that the
// packages are in. Prints a line per check, `ok ...` or `not ok ...`.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [library, endpoint] = process.argv.slice(2);
const REDIRECT = "http://127.0.0.1:7/callback";
const require = createRequire(process.cwd() + "/");
const load = (name) => import(pathToFileURL(require.resolve(name)).href);

let failed = 0;
async function check(name, work) {
  try {
    await work();
    console.log(`ok ${library}: ${name}`);
  } catch (error) {
    failed += 1;
    console.log(`not ok ${library}: ${name}: ${error?.stack ?? error}`);
  }
}
function holds(condition, what) {
  if (!condition) throw new Error(what);
}

// A browser of one person who agrees to everything.
const jar = new Map();
function keep(response) {
  for (const cookie of response.headers.getSetCookie()) {
    const [pair] = cookie.split(";");
    const at = pair.indexOf("=");
    jar.set(pair.slice(0, at), pair.slice(at + 1));
  }
}
async function visit(url, init = {}) {
  for (let hops = 0; hops < 10; hops += 1) {
    if (String(url).startsWith(REDIRECT)) return { done: new URL(url).searchParams };
    const cookie = [...jar].map(([name, value]) => `${name}=${value}`).join("; ");
    const response = await fetch(url, { ...init, redirect: "manual", headers: { ...init.headers, cookie } });
    keep(response);
    const next = response.headers.get("location");
    if (!next) return { text: await response.text(), url, status: response.status };
    url = new URL(next, url).href;
    init = {};
  }
  throw new Error("redirects for ever");
}
const unescaped = (text) =>
  text.replace(/&#39;/g, "'").replace(/&quot;/g, '"').replace(/&lt;/g, "<").replace(/&gt;/g, ">").replace(/&amp;/g, "&");
async function agree(url) {
  const page = await visit(url);
  holds(page.text?.includes('name="request"'), `no consent page: ${page.status} ${page.text}`);
  const form = new URLSearchParams();
  for (const [, name, value] of page.text.matchAll(/<(?:input|button)[^>]* name="([^"]+)" value="([^"]*)"/g)) {
    if (name !== "deny" && name !== "remember") form.set(name, unescaped(value));
  }
  const back = await visit(new URL("/authorize/consent", page.url).href, { method: "POST", body: form });
  holds(back.done, `the browser ends elsewhere: ${back.status} ${back.text}`);
  return back.done;
}

// What the SDK wants to be kept.
let client, tokens, verifier, answer;
const provider = {
  redirectUrl: REDIRECT,
  clientMetadata: {
    client_name: `TypeScript SDK ${library}`, redirect_uris: [REDIRECT],
    grant_types: ["authorization_code", "refresh_token"], response_types: ["code"],
    token_endpoint_auth_method: "none",
  },
  state: () => "some-state",
  clientInformation: () => client,
  saveClientInformation: (information) => { client = information; },
  tokens: () => tokens,
  saveTokens: (fresh) => { tokens = fresh; },
  redirectToAuthorization: async (url) => { answer = await agree(url.href); },
  saveCodeVerifier: (text) => { verifier = text; },
  codeVerifier: () => verifier,
};

const info = { name: "weir-test", version: "1.0.0" };
async function parts() {
  if (library === "v1") {
    const { Client } = await load("@modelcontextprotocol/sdk/client/index.js");
    const { StreamableHTTPClientTransport } = await load("@modelcontextprotocol/sdk/client/streamableHttp.js");
    return { make: () => new Client(info), StreamableHTTPClientTransport };
  }
  const { Client, StreamableHTTPClientTransport } = await load("@modelcontextprotocol/client");
  return { make: () => new Client(info, { versionNegotiation: { mode: "auto" } }), StreamableHTTPClientTransport };
}
const { make, StreamableHTTPClientTransport } = await parts();
const transport = () => new StreamableHTTPClientTransport(new URL(endpoint), { authProvider: provider });

await check("is sent to log in, and logs in", async () => {
  const first = transport();
  let refused;
  await make().connect(first).catch((error) => { refused = error; });
  holds(refused, "it was let in without a token");
  holds(answer?.get("code"), `no code: ${refused?.stack}`);
  holds(answer.get("state") === "some-state", "another state");
  if (library === "v1") await first.finishAuth(answer.get("code"));
  else await first.finishAuth(answer);
  holds(tokens?.access_token && tokens.refresh_token, JSON.stringify(tokens));
});
let connected;
await check("calls tools", async () => {
  connected = make();
  await connected.connect(transport());
  const { tools } = await connected.listTools();
  holds(tools.length > 0, "the list is empty");
});
await check("refreshes by itself", async () => {
  const before = tokens.refresh_token;
  tokens = { ...tokens, access_token: tokens.access_token.slice(0, -8) + "AAAAAAAA" };
  // A client of its own: the first one may answer from what it has kept.
  const another = make();
  await another.connect(transport());
  const { tools } = await another.listTools();
  await another.close();
  holds(tools.length > 0 && tokens.refresh_token !== before, "nothing was refreshed");
});
await connected?.close();
process.exit(failed === 0 ? 0 : 1);
