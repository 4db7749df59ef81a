//! `demo-server`: a small MCP server on stdio or Streamable HTTP.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use tokio_util::sync::CancellationToken;
use weir_peers::{orders::OrderDesk, serve, tickets::HelpDesk};

#[derive(Debug, Parser)]
#[command(about = "A small MCP server to put behind the gateway")]
struct Args {
    /// What it offers.
    #[arg(long, global = true, value_enum, default_value = "orders")]
    flavour: Flavour,
    #[command(subcommand)]
    transport: Transport,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Flavour {
    /// A shop's order desk.
    Orders,
    /// A help desk.
    Tickets,
}

#[derive(Debug, Subcommand)]
enum Transport {
    /// Serve one client on stdin and stdout.
    Stdio,
    /// Serve Streamable HTTP at /mcp.
    Http {
        /// Address; port 0 picks a free one.
        #[arg(long, default_value = "127.0.0.1:0")]
        listen: String,
        /// Written once it serves: {"url": ...}.
        #[arg(long)]
        ready_file: Option<PathBuf>,
        /// Demand this bearer token.
        #[arg(long, env = "DEMO_SERVER_TOKEN", hide_env_values = true)]
        token: Option<String>,
    },
}

fn main() -> anyhow::Result<()> {
    // stdout belongs to the protocol on stdio.
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let args = Args::parse();
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(
        async {
            match args.flavour {
                Flavour::Orders => run(args.transport, OrderDesk::default()).await,
                Flavour::Tickets => run(args.transport, HelpDesk::default()).await,
            }
        },
    )
}

async fn run<S: rmcp::ServerHandler + Clone>(
    transport: Transport,
    server: S,
) -> anyhow::Result<()> {
    let (listen, ready_file, token) = match transport {
        Transport::Stdio => return serve::stdio(server).await,
        Transport::Http { listen, ready_file, token } => (listen, ready_file, token),
    };
    let serving =
        serve::http(move || server.clone(), &listen, token, CancellationToken::new()).await?;
    tracing::info!(url = serving.url, "serving");
    if let Some(file) = ready_file {
        serve::write_ready(&file, &serving.url)?;
    }
    serve::told_to_stop().await;
    serving.stop();
    serving.wait().await
}
