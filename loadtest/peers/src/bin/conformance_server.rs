//! `conformance-server`: the upstream of the conformance runs, over Streamable HTTP.

use std::path::PathBuf;

use clap::Parser;
use tokio_util::sync::CancellationToken;
use weir_peers::conformance::Fixture;
use weir_peers::serve::{self, Demands, Eras};

#[derive(Debug, Parser)]
#[command(about = "An MCP server to the contract of the public conformance suite")]
struct Args {
    /// Address; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Written once it serves: {"url": ...}.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// Answers only one generation of clients, as a server does that knows no other.
    #[arg(long, value_enum, default_value = "both")]
    eras: Eras,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let fixture = Fixture::of(args.eras);
        let demands = Demands { token: None, eras: args.eras };
        let make = move || fixture.clone();
        let serving =
            serve::http_demanding(make, &args.listen, demands, CancellationToken::new()).await?;
        if let Some(file) = args.ready_file {
            serve::write_ready(&file, &serving.url)?;
        }
        serve::told_to_stop().await;
        serving.stop();
        serving.wait().await
    })
}
