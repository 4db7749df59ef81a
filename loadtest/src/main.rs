//! `weir-loadtest run | compare | apply | fleet | chaos | upstream | floor | token`; see the library.

use std::io::{BufReader, BufWriter, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use weir_loadtest::chaos::compare::{self, Promise};
use weir_loadtest::chaos::drive;
use weir_loadtest::chaos::truth::Truth;
use weir_loadtest::era::Era;
use weir_loadtest::flame::Frame;
use weir_loadtest::fleet::world::World;
use weir_loadtest::plan::{Pace, Plan, Scenario, Target, Work};
use weir_loadtest::report::{self, Report};
use weir_loadtest::target::Connection;
use weir_loadtest::{apply, fleet, floor, issuer, run, upstream};

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
    /// Runs a plan and prints its tables as Markdown.
    Run(RunArgs),
    /// Compares two runs by their JSON reports.
    Compare {
        /// The report before.
        old: PathBuf,
        /// The report after.
        new: PathBuf,
    },
    /// Reads what `perf script -F comm,ip,sym` prints, draws a flame graph, and prints which
    /// functions most samples went through.
    Flame {
        /// The input is collapsed stacks: `outer;inner COUNT`.
        #[arg(long)]
        collapsed: bool,
        /// Above the picture.
        #[arg(long)]
        title: String,
        /// Where the picture goes.
        #[arg(long)]
        svg: PathBuf,
    },
    /// Makes an issuer's key, writes its JWKS to a file, and prints tokens, one a line.
    Token {
        /// Where the JWKS goes.
        #[arg(long)]
        jwks: PathBuf,
        #[command(flatten)]
        claims: issuer::Claims,
    },
    /// Tries a `tools/list` once; ends with status 1 unless it is as it should be.
    Wait {
        /// The endpoint.
        #[arg(long)]
        url: String,
        /// Bearer token.
        #[arg(long)]
        token: Option<String>,
        /// How many tools there must be.
        #[arg(long)]
        tools: usize,
    },
    /// Measures the time from an apply to its being in force, and prints percentiles.
    Apply(ApplyArgs),
    /// The client's side of the chaos test.
    #[command(subcommand)]
    Chaos(Chaos),
    /// Starts a control plane, has many proxies follow it, and measures how changes reach them.
    Fleet(FleetArgs),
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
struct RunArgs {
    /// The plan.
    plan: PathBuf,
    /// Only scenarios whose name contains this.
    #[arg(long)]
    only: Option<String>,
    /// Instead of the plan's number of rounds.
    #[arg(long)]
    rounds: Option<u32>,
    /// Writes the report as JSON too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Writes the report as an HTML page too.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Ends with status 1 when a goal is missed or an answer was wrong.
    #[arg(long)]
    strict: bool,
}

#[derive(Debug, clap::Args)]
struct FleetArgs {
    /// The control plane's binary.
    #[arg(long, default_value = "weir-control-plane")]
    control_plane: PathBuf,
    /// Keep the configuration in this etcd (`http://host:port`) instead of the embedded store.
    #[arg(long, env = "WEIR_TEST_ETCD")]
    etcd: Option<String>,
    /// Simulated proxies, up to 10,000.
    #[arg(long, default_value_t = 1_000)]
    proxies: usize,
    /// Groups over which the servers are spread.
    #[arg(long, default_value_t = 10)]
    groups: usize,
    /// Servers.
    #[arg(long, default_value_t = 10_000)]
    servers: usize,
    /// Tools of each server.
    #[arg(long, default_value_t = 10)]
    tools_each: usize,
    /// Edits to measure, of a server and of a tool each.
    #[arg(long, default_value_t = 50)]
    edits: usize,
    /// How long an idle fleet is looked at, in seconds.
    #[arg(long, default_value_t = 10)]
    idle: u64,
    /// Longest time for one step, in seconds.
    #[arg(long, default_value_t = 300)]
    patience: u64,
    /// Writes the report as JSON too.
    #[arg(long)]
    json: Option<PathBuf>,
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

#[derive(Debug, Subcommand)]
enum Chaos {
    /// Calls at a fixed rate until SIGTERM, whoever is away meanwhile, and writes what became of
    /// each call, a line of JSON each.
    Drive {
        /// An endpoint with the tools of `upstream`.
        #[arg(long)]
        url: String,
        /// Bearer token.
        #[arg(long)]
        token: String,
        /// Calls a second.
        #[arg(long, default_value_t = 50.0)]
        rate: f64,
        /// Tells the calls of this run from others.
        #[arg(long)]
        run: String,
        /// Where the lines go.
        #[arg(long)]
        out: PathBuf,
    },
    /// Holds what became of the calls against an export of the audit stream; ends with status 1 when
    /// they disagree.
    Compare {
        /// What `drive` wrote.
        #[arg(long)]
        truth: PathBuf,
        /// What `weir audit export` wrote.
        #[arg(long)]
        stream: PathBuf,
        /// The group that was called.
        #[arg(long)]
        group: String,
        /// Its audit class lets records be lost, and counts them.
        #[arg(long)]
        counted: bool,
        /// NODE=N: what the node's own metric says of lost records, at the end of its last epoch.
        #[arg(long, value_parser = counter)]
        counter: Option<(String, u64)>,
        /// When a proxy was killed, in milliseconds since the epoch; may be repeated.
        #[arg(long = "killed")]
        kills: Vec<u64>,
    },
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match args.command {
            Command::Run(args) => measure(args).await,
            Command::Wait { url, token, tools } => wait(url, token, tools).await,
            Command::Compare { old, new } => {
                let table = report::compare(&read(&old)?, &read(&new)?);
                Ok(std::io::stdout().write_all(table.as_bytes())?)
            }
            Command::Flame { collapsed, title, svg } => flame(collapsed, &title, &svg),
            Command::Token { jwks, claims } => {
                let issued = issuer::issue(&claims)?;
                std::fs::write(&jwks, issued.keys).with_context(|| jwks.display().to_string())?;
                Ok(writeln!(std::io::stdout(), "{}", issued.tokens.join("\n"))?)
            }
            Command::Apply(args) => measure_apply(args).await,
            Command::Chaos(args) => chaos(args).await,
            Command::Fleet(args) => measure_fleet(args).await,
            Command::Upstream { listen, tools } => {
                upstream::serve(TcpListener::bind(listen).await?, tools).await
            }
            Command::Floor { listen, to } => {
                floor::serve(TcpListener::bind(listen).await?, to).await
            }
        }
    })
}

async fn measure(args: RunArgs) -> anyhow::Result<()> {
    let mut plan = Plan::read(&args.plan)?;
    if let Some(rounds) = args.rounds {
        plan.rounds = rounds.clamp(1, 50);
        // What is held leaves memory behind: its scenarios keep their own number.
        let paced = |s: &&mut Scenario| !matches!(s.pace, Pace::Hold { .. });
        plan.scenarios.iter_mut().filter(paced).for_each(|scenario| scenario.rounds = None);
    }
    let report = run::run(&plan, args.only.as_deref(), std::io::stderr()).await?;
    std::io::stdout().write_all(report.markdown().as_bytes())?;
    let put = |file: &PathBuf, text: String| {
        std::fs::write(file, text).with_context(|| file.display().to_string())
    };
    if let Some(file) = &args.json {
        put(file, serde_json::to_string_pretty(&report)?)?;
    }
    if let Some(file) = &args.html {
        put(file, report::html::page(&report))?;
    }
    let wrong = report.tables.iter().flat_map(|table| &table.rows).any(|row| row.failed > 0);
    let missed = report.verdicts.iter().any(|verdict| !verdict.met);
    anyhow::ensure!(!args.strict || !(wrong || missed), "a goal was missed or an answer was wrong");
    Ok(())
}

fn flame(collapsed: bool, title: &str, svg: &std::path::Path) -> anyhow::Result<()> {
    let input = std::io::stdin().lock();
    let root = if collapsed { Frame::collapsed(input)? } else { Frame::read(input)? };
    std::fs::write(svg, root.svg(title)).with_context(|| svg.display().to_string())?;
    let mut out = std::io::stdout();
    for (name, share) in root.inclusive().iter().take(60) {
        writeln!(out, "{:5.1} %  {name}", share * 100.0)?;
    }
    Ok(())
}

fn read(path: &std::path::Path) -> anyhow::Result<Report> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_json::from_str(&text).with_context(|| format!("{} is no report", path.display()))
}

fn target(url: &str, token: Option<&str>) -> Target {
    Target {
        name: url.to_owned(),
        url: url.to_owned(),
        sse_url: None,
        token: token.map(str::to_owned),
        tool_prefix: String::new(),
        era: Era::default(),
        pids: String::new(),
    }
}

async fn wait(url: String, token: Option<String>, tools: usize) -> anyhow::Result<()> {
    let target = target(&url, token.as_deref());
    let mut connection = Connection::open(&target, target.era).await?;
    connection.run(&Work::List { tools: Some(tools) }, "").await?;
    Ok(())
}

async fn chaos(args: Chaos) -> anyhow::Result<()> {
    match args {
        Chaos::Drive { url, token, rate, run, out } => {
            anyhow::ensure!(rate > 0.0, "--rate must be above 0");
            let file = std::fs::File::create(&out).with_context(|| out.display().to_string())?;
            let mut told = signal(SignalKind::terminate())?;
            let (stop, stopped) = watch::channel(false);
            tokio::spawn(async move {
                told.recv().await;
                stop.send_replace(true);
            });
            let plan = drive::Plan { url, token, rate, run };
            drive::drive(plan, BufWriter::new(file), stopped).await?;
            Ok(())
        }
        Chaos::Compare { truth, stream, group, counted, counter, kills } => {
            let truth = Truth::read(&truth)?;
            let open =
                std::fs::File::open(&stream).with_context(|| stream.display().to_string())?;
            let stream = compare::Stream::read(BufReader::new(open), &group)?;
            let promise = if counted { Promise::Counted } else { Promise::Kept };
            let mut verdict = stream.compare(&truth, promise, &kills);
            if let Some((node, lost)) = counter {
                verdict.wrong.extend(stream.unlike_metric(&node, lost));
            }
            std::io::stdout().write_all(verdict.text().as_bytes())?;
            anyhow::ensure!(verdict.wrong.is_empty(), "{} things are wrong", verdict.wrong.len());
            Ok(())
        }
    }
}

fn counter(text: &str) -> Result<(String, u64), String> {
    let (node, lost) = text.split_once('=').ok_or("give NODE=N")?;
    Ok((node.to_owned(), lost.parse().map_err(|error| format!("{error}"))?))
}

async fn measure_fleet(args: FleetArgs) -> anyhow::Result<()> {
    let plan = fleet::Plan {
        binary: args.control_plane,
        etcd: args.etcd,
        proxies: args.proxies,
        world: World { groups: args.groups, servers: args.servers, tools_each: args.tools_each },
        edits: args.edits,
        idle: Duration::from_secs(args.idle),
        patience: Duration::from_secs(args.patience),
    };
    let progress = |text: String| {
        // Nobody may be looking.
        let _ = writeln!(std::io::stderr(), "{text}");
    };
    let report = fleet::run(&plan, &progress).await?;
    std::io::stdout().write_all(report.markdown().as_bytes())?;
    if let Some(file) = &args.json {
        let text = serde_json::to_string_pretty(&report)?;
        std::fs::write(file, text).with_context(|| file.display().to_string())?;
    }
    Ok(())
}

async fn measure_apply(args: ApplyArgs) -> anyhow::Result<()> {
    let plan = apply::Plan {
        targets: args.mcp.iter().map(|url| target(url, Some(&args.agent_token))).collect(),
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
