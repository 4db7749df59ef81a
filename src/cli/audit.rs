//! What can be typed after `weir audit`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// See [`super::Command::Audit`].
#[derive(Debug, Subcommand)]
pub enum Audit {
    /// Show the newest records, and those that come.
    Tail(AuditTail),
    /// Show the records that fit, oldest first.
    Search(AuditSearch),
    /// Write records out exactly as they are, a line each, with the checkpoints that vouch for them.
    Export(AuditExport),
    /// Say whether records are complete and unaltered, or name the first where they are not.
    Verify(AuditVerify),
    /// Export one record with the proof that it is in the log.
    Prove(AuditProve),
    /// Check such a proof.
    Check(AuditCheck),
    /// Show what the control plane has witnessed, as `verify --witness` takes it.
    Witness,
}

/// Where records are.
#[derive(Debug, Clone, Args)]
pub struct Source {
    /// Folder of the audit files (audit/ in the data folder of weir dev), one file, or - for
    /// standard input.
    #[arg(long, default_value = ".weir/audit", value_name = "DIR|FILE|-")]
    pub dir: PathBuf,
    /// Read from Kafka instead: brokers as HOST:PORT,HOST:PORT, or a YAML file with the members of
    /// the setting `audit.kafka`.
    #[arg(long, value_name = "BROKERS|FILE")]
    pub kafka: Option<String>,
    /// Topic of the records.
    #[arg(long, requires = "kafka", value_name = "TOPIC")]
    pub topic: Option<String>,
}

/// Which records are wanted.
#[derive(Debug, Clone, Default, Args)]
pub struct Wanted {
    /// Only of this group.
    #[arg(short, long)]
    pub group: Option<String>,
    /// Only of this caller: account:support, jwt:okta:alice, operator:ID, anonymous.
    #[arg(long)]
    pub principal: Option<String>,
    /// Only with this outcome: success, tool_error, denied, ...
    #[arg(long)]
    pub status: Option<String>,
}

/// See [`Audit::Tail`].
#[derive(Debug, Args)]
pub struct AuditTail {
    /// Where they are.
    #[command(flatten)]
    pub source: Source,
    /// How many of the newest to begin with.
    #[arg(short = 'n', long, default_value_t = 200, value_name = "RECORDS")]
    pub lines: usize,
    /// End after those.
    #[arg(long)]
    pub no_follow: bool,
    /// Which.
    #[command(flatten)]
    pub wanted: Wanted,
    /// How to print them.
    #[arg(short = 'o', long = "output", value_enum, default_value = "line")]
    pub format: RecordFormat,
}

/// See [`Audit::Search`].
#[derive(Debug, Args)]
pub struct AuditSearch {
    /// Where they are.
    #[command(flatten)]
    pub source: Source,
    /// Which.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Only of this server.
    #[arg(long)]
    pub server_name: Option<String>,
    /// Only of this tool, prompt or URI.
    #[arg(long)]
    pub target: Option<String>,
    /// Only of this JSON-RPC method, or operator's action.
    #[arg(long)]
    pub method: Option<String>,
    /// Only the request of this id.
    #[arg(long)]
    pub request: Option<String>,
    /// From this time on: 2026-11-23T11:00:00Z, or milliseconds since the epoch.
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub since: Option<u64>,
    /// Before this time.
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub until: Option<u64>,
    /// How to print them.
    #[arg(short = 'o', long = "output", value_enum, default_value = "line")]
    pub format: RecordFormat,
}

/// See [`Audit::Export`].
#[derive(Debug, Args)]
pub struct AuditExport {
    /// Where they are.
    #[command(flatten)]
    pub source: Source,
    /// Only of this node.
    #[arg(long)]
    pub node: Option<String>,
    /// From this time on.
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub since: Option<u64>,
    /// Before this time.
    #[arg(long, value_parser = time, value_name = "TIME")]
    pub until: Option<u64>,
}

/// See [`Audit::Verify`].
#[derive(Debug, Args)]
pub struct AuditVerify {
    /// Where they are.
    #[command(flatten)]
    pub source: Source,
    /// Whom to believe.
    #[command(flatten)]
    pub trusted: Trusted,
    /// Judge what has come so far every so many seconds, and end with the first finding: for a
    /// pipe from `weir audit tail` that never ends.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub every: Option<u64>,
    /// Ask the control plane what it has witnessed.
    #[arg(long, conflicts_with = "witness")]
    pub ask: bool,
    /// What the control plane has witnessed, from `weir audit witness`.
    #[arg(long, value_name = "FILE")]
    pub witness: Option<PathBuf>,
    /// A node whose log must be here, where that is not every one that was witnessed, as in the
    /// folder of one node; may be repeated.
    #[arg(long = "node", value_name = "NAME")]
    pub nodes: Vec<String>,
    /// Public key of an outside witness that must have cosigned that; may be repeated.
    #[arg(long = "cosigner", value_name = "KEY")]
    pub cosigners: Vec<String>,
    /// As an outside witness: cosign what was witnessed, when it holds, with the key of this file;
    /// made when it is not there.
    #[arg(long, requires_all = ["cosign_as", "cosigned"], value_name = "FILE")]
    pub cosign_key: Option<PathBuf>,
    /// Under this name.
    #[arg(long, value_name = "NAME")]
    pub cosign_as: Option<String>,
    /// Into this file, which `--witness` takes.
    #[arg(long, value_name = "FILE")]
    pub cosigned: Option<PathBuf>,
}

/// Whom to believe.
#[derive(Debug, Clone, Default, Args)]
pub struct Trusted {
    /// Public key of the control plane, NAME+HASH+KEY, as `weir audit witness` shows it. Without it
    /// signatures are checked, and not whose they are.
    #[arg(long, value_name = "KEY")]
    pub trust: Option<String>,
}

/// See [`Audit::Prove`].
#[derive(Debug, Args)]
pub struct AuditProve {
    /// The record: NODE/EPOCH/SEQUENCE, its `metadata.uid`.
    pub record: String,
    /// Where it is, with those around it.
    #[command(flatten)]
    pub source: Source,
    /// Whom to believe.
    #[command(flatten)]
    pub trusted: Trusted,
}

/// See [`Audit::Check`].
#[derive(Debug, Args)]
pub struct AuditCheck {
    /// The proof, or - for standard input.
    pub proof: PathBuf,
    /// Whom to believe.
    #[command(flatten)]
    pub trusted: Trusted,
}

/// Formats of records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordFormat {
    /// The gist, a line each.
    Line,
    /// As written (OCSF), a line each.
    Json,
}

/// Milliseconds since the epoch.
fn time(text: &str) -> Result<u64, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    let stamp: jiff::Timestamp = text.parse().map_err(|error| format!("{error}"))?;
    u64::try_from(stamp.as_millisecond()).map_err(|_| "before 1970".to_owned())
}
