//! `weir-loadtest run | upstream | floor`; see the library for what each is.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use weir_loadtest::{
    apply, driver, floor, report,
    scenario::{Scenario, Target},
    upstream,
};

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
    /// Measures the time from an apply to its being in force, and prints percentiles.
    Apply(ApplyArgs),
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

#[derive(Debug, clap::Args)]
struct ApplyArgs {
    /// Base URL of the control plane's REST API.
    #[arg(long)]
    rest: String,
    /// An operator's token.
    #[arg(long, env = "WEIR_TOKEN")]
    operator_token: String,
    /// The group.
    #[arg(long)]
    group: String,
    /// A role of the group that allows `echo`.
    #[arg(long)]
    role: String,
    /// The caller's service account.
    #[arg(long)]
    account: String,
    /// The account's API token.
    #[arg(long)]
    agent_token: String,
    /// An MCP endpoint; once for each proxy.
    #[arg(long = "mcp", required = true)]
    mcp: Vec<String>,
    /// Changes to measure.
    #[arg(long, default_value_t = 50)]
    samples: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Run { scenario, json } => run(&scenario, json).await,
            Command::Apply(args) => measure_apply(args).await,
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

async fn measure_apply(args: ApplyArgs) -> anyhow::Result<()> {
    let target = |url: &String| Target {
        name: url.clone(),
        url: url.clone(),
        token: Some(args.agent_token.clone()),
        tool_prefix: String::new(),
        modern: false,
        pids: vec![],
    };
    let plan = apply::Plan {
        targets: args.mcp.iter().map(target).collect(),
        rest: args.rest.trim_end_matches('/').to_owned(),
        operator_token: args.operator_token,
        group: args.group,
        role: args.role,
        account: args.account,
        samples: args.samples,
    };
    let mut times = apply::measure(&plan).await?;
    times.sort_by(f64::total_cmp);
    let at = |q: f64| times[((times.len() - 1) as f64 * q).round() as usize];
    let line = format!(
        "apply to in force, {} changes, {} proxies: p50 {:.1} ms, p90 {:.1} ms, max {:.1} ms\n",
        times.len(),
        plan.targets.len(),
        at(0.5),
        at(0.9),
        at(1.0)
    );
    std::io::stdout().write_all(line.as_bytes())?;
    Ok(())
}
