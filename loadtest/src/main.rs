//! `weir-loadtest run | upstream | floor`; see the library for what each is.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use weir_loadtest::{driver, floor, report, scenario::Scenario, upstream};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A load tool for MCP gateways.
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a scenario and prints a Markdown table.
    Run {
        /// The scenario.
        scenario: PathBuf,
        /// Writes the rows as JSON too.
        #[arg(long)]
        json: Option<PathBuf>,
    },
    /// A fast MCP server.
    Upstream {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:7801")]
        listen: SocketAddr,
        /// Tools to list.
        #[arg(long, default_value_t = 10)]
        tools: usize,
    },
    /// A bare proxy.
    Floor {
        /// Where to listen.
        #[arg(long, default_value = "127.0.0.1:7802")]
        listen: SocketAddr,
        /// The upstream's URL.
        #[arg(long)]
        to: hyper::Uri,
    },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Run { scenario, json } => run(&scenario, json).await,
            Command::Upstream { listen, tools } => {
                upstream::serve(TcpListener::bind(listen).await?, tools).await
            }
            Command::Floor { listen, to } => {
                floor::serve(TcpListener::bind(listen).await?, to).await
            }
        }
    })
}

async fn run(path: &std::path::Path, json: Option<PathBuf>) -> anyhow::Result<()> {
    let scenario = Scenario::read(path)?;
    let mut rounds: Vec<Vec<driver::Round>> = scenario.targets.iter().map(|_| vec![]).collect();
    // Targets take turns within a round, so that a slow minute of the machine hits all of them.
    for _ in 0..scenario.rounds {
        for (target, rounds) in scenario.targets.iter().zip(&mut rounds) {
            rounds.push(driver::run(target, &scenario.work, &scenario.pace).await?);
        }
    }
    let named = scenario.targets.iter().zip(&rounds);
    let rows: Vec<_> = named.map(|(t, r)| report::Row::of(&t.name, r)).collect();
    std::io::stdout().write_all(report::markdown(&scenario.name, &rows).as_bytes())?;
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&rows)?;
        std::fs::write(&file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}
