//! `conformance-compare DIRECT THROUGH --known FILE`: folders hold one folder per MCP revision;
//! what counts are the revisions of THROUGH.
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use weir_peers::conformance::compare::{Known, PASSED_MIN, Run, compare};

#[derive(Debug, Parser)]
#[command(about = "Compares two runs of the conformance suite, check by check")]
struct Args {
    /// Results without the gateway.
    direct: PathBuf,
    /// Results through the gateway.
    through: PathBuf,
    /// YAML list of checks that may end worse; may be repeated.
    #[arg(long)]
    known: Vec<PathBuf>,
    /// Checks that every run without the gateway has to pass.
    #[arg(long, default_value_t = PASSED_MIN)]
    least: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let mut known = Vec::new();
    for file in &args.known {
        let place = || format!("known checks in {}", file.display());
        let text = std::fs::read_to_string(file).with_context(place)?;
        let list: Vec<Known> = serde_saphyr::from_str(&text).with_context(place)?;
        known.extend(list);
    }
    let (mut alike, mut wrong) = (0, 0);
    for entry in std::fs::read_dir(&args.through).context("read the results")? {
        let revision = entry?.file_name().into_string().unwrap_or_default();
        let direct = Run::read(&args.direct.join(&revision))?;
        let through = Run::read(&args.through.join(&revision))?;
        let verdict = compare(&revision, (&direct, args.least), &through, &known);
        println!("{revision}: {} checks end alike\n{}", verdict.alike, verdict.text.trim_end());
        alike += verdict.alike;
        wrong += verdict.wrong;
    }
    println!("{alike} passed, {wrong} failed");
    anyhow::ensure!(wrong == 0, "the gateway changes what the suite sees");
    Ok(())
}
