//! `round-robin TARGET...`: a load balancer in front of several proxies.

use std::path::PathBuf;

use clap::Parser;
use tokio::net::TcpListener;
use weir_peers::{balance, serve};

#[derive(Debug, Parser)]
#[command(about = "Sends each HTTP request to the next of its targets")]
struct Args {
    /// HOST:PORT of each target.
    #[arg(required = true)]
    targets: Vec<String>,
    /// Address; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// Written once it serves: {"url": ...}.
    #[arg(long)]
    ready_file: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_target(false).init();
    let args = Args::parse();
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind(&args.listen).await?;
        if let Some(file) = args.ready_file {
            serve::write_ready(&file, &format!("http://{}", listener.local_addr()?))?;
        }
        tokio::select! {
            served = balance::serve(listener, &args.targets) => served,
            () = serve::told_to_stop() => Ok(()),
        }
    })
}
