//! `demo-agent`: tells the demo's story against a gateway, and fails when it went otherwise.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use clap::{Parser, ValueEnum};
use weir_peers::agent::Era;
use weir_peers::story::{self, Cast};

#[derive(Debug, Parser)]
#[command(about = "An MCP agent that shows what the gateway lets it do")]
struct Args {
    /// The gateway's endpoint of the group: http://HOST:PORT/demo/mcp
    #[arg(long)]
    url: String,
    /// API token of the service account `support`.
    #[arg(long, env = "SUPPORT_TOKEN", hide_env_values = true)]
    support: String,
    /// API token of the service account `auditor`.
    #[arg(long, env = "AUDITOR_TOKEN", hide_env_values = true)]
    auditor: String,
    /// Which protocol generation to speak.
    #[arg(long, value_enum, default_value = "both")]
    era: Eras,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Eras {
    /// 2026-07-28.
    Modern,
    /// 2025-11-25.
    Legacy,
    /// One after the other.
    Both,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let cast = Cast { url: args.url, support: args.support, auditor: args.auditor };
    let eras = match args.era {
        Eras::Modern => vec![Era::Modern],
        Eras::Legacy => vec![Era::Legacy],
        Eras::Both => vec![Era::Modern, Era::Legacy],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (mut steps, mut deviations) = (0, 0);
    for era in eras {
        let tale = runtime.block_on(story::tell(&cast, era))?;
        println!("{}", tale.text);
        steps += tale.steps;
        deviations += tale.deviations;
    }
    println!("{steps} steps, {deviations} of them otherwise than promised");
    anyhow::ensure!(deviations == 0, "the story went otherwise than promised");
    Ok(())
}
