//! `peer-agent`: a client that samples for servers, in every mode that the library has. Prints a
//! line per check, `ok ...` or `not ok ...`.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]
#![allow(deprecated, reason = "sampling is still carried")]

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, CreateMessageRequestParams,
    CreateMessageResult, ErrorData, GetPromptRequestParams, Implementation, ProtocolVersion,
    ReadResourceRequestParams,
};
use rmcp::service::{RequestContext, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde::Deserialize;
use serde_json::{Map, Value, json};

#[derive(Debug, Parser)]
#[command(about = "Calls what a file lists, on a library that Weir does not share")]
struct Args {
    /// The endpoint.
    #[arg(long)]
    url: String,
    /// JSON file: tools, arguments, and what the answer has to say.
    #[arg(long)]
    calls: PathBuf,
    /// How the library begins.
    #[arg(long, value_enum)]
    mode: Mode,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    /// With a handshake.
    Legacy,
    /// With whatever the server understands.
    Auto,
    /// Without a handshake.
    Modern,
}

#[derive(Debug, Deserialize)]
struct Call {
    tool: String,
    arguments: Map<String, Value>,
    expect: String,
}

/// Answers what servers ask.
#[derive(Debug, Clone)]
struct Sampler;

impl ClientHandler for Sampler {
    fn get_info(&self) -> ClientConfig {
        let able = ClientCapabilities::builder().enable_sampling().build();
        ClientConfig::new(able, Implementation::new("peer-agent", env!("CARGO_PKG_VERSION")))
    }

    async fn create_message(
        &self,
        _params: CreateMessageRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        let said = json!({ "role": "assistant", "model": "none",
            "content": { "type": "text", "text": "sampled by the client" } });
        serde_json::from_value(said).map_err(|e| ErrorData::internal_error(e.to_string(), None))
    }
}

type Client = RunningService<RoleClient, Sampler>;

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    weir_peers::install_crypto();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let failed = runtime.block_on(run(&args))?;
    anyhow::ensure!(failed == 0, "{failed} checks failed");
    Ok(())
}

async fn run(args: &Args) -> anyhow::Result<usize> {
    let text = std::fs::read_to_string(&args.calls).context("read the calls")?;
    let calls: Vec<Call> = serde_json::from_str(&text).context("the calls")?;
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    let lifecycle = match args.mode {
        Mode::Legacy => ClientLifecycleMode::Initialize,
        Mode::Modern => ClientLifecycleMode::Discover { preferred_versions },
        Mode::Auto => ClientLifecycleMode::Auto { preferred_versions, legacy_version: None },
    };
    let transport = StreamableHttpClientTransport::from_uri(args.url.as_str());
    let client = Sampler.serve_with_lifecycle(transport, lifecycle).await?;
    let mut failed = 0;
    let mut told = |name: &str, result: anyhow::Result<()>| match result {
        Ok(()) => println!("ok {name}"),
        Err(error) => {
            failed += 1;
            println!("not ok {name}: {error:#}");
        }
    };
    told("lists tools of every server", lists(&client, &calls).await);
    for call in &calls {
        told(&format!("calls {}", call.tool), calls_one(&client, call).await);
    }
    told("gets a prompt", prompt(&client).await);
    told("reads a resource", resource(&client).await);
    let sampling = Call {
        tool: "everything__trigger-sampling-request".to_owned(),
        arguments: Map::from_iter([
            ("prompt".to_owned(), "hello".into()),
            ("maxTokens".to_owned(), 20.into()),
        ]),
        expect: "sampled by the client".to_owned(),
    };
    told("samples for a server", calls_one(&client, &sampling).await);
    client.cancel().await?;
    Ok(failed)
}

async fn lists(client: &Client, calls: &[Call]) -> anyhow::Result<()> {
    let tools = client.list_all_tools().await?;
    for call in calls {
        let listed = tools.iter().any(|tool| tool.name == call.tool);
        anyhow::ensure!(listed, "{} is not listed", call.tool);
    }
    Ok(())
}

async fn calls_one(client: &Client, call: &Call) -> anyhow::Result<()> {
    let request = CallToolRequestParams::new(call.tool.clone());
    let result = client.call_tool(request.with_arguments(call.arguments.clone())).await?;
    let text = serde_json::to_string(&result)?;
    anyhow::ensure!(result.is_error != Some(true) && text.contains(&call.expect), "{text}");
    Ok(())
}

async fn prompt(client: &Client) -> anyhow::Result<()> {
    let request = GetPromptRequestParams::new("everything__simple-prompt");
    anyhow::ensure!(!client.get_prompt(request).await?.messages.is_empty(), "it is empty");
    Ok(())
}

async fn resource(client: &Client) -> anyhow::Result<()> {
    let first = client.list_all_resources().await?.into_iter().next().context("there is none")?;
    let read = client.read_resource(ReadResourceRequestParams::new(first.uri.clone())).await?;
    anyhow::ensure!(!read.contents.is_empty(), "it is empty");
    Ok(())
}
