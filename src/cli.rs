//! What can be typed.

mod audit;
mod policy;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use weir_model::resource::Kind;

pub use policy::{PolicyExplain, PolicyRecompute, PolicyReplay, PolicyTest, Review};

use crate::settings::ServerFlags;

pub use audit::{
    Audit, AuditCheck, AuditExport, AuditProve, AuditSearch, AuditTail, AuditVerify, RecordFormat,
    Source, Trusted, Wanted,
};

/// An MCP gateway for enterprises.
#[derive(Debug, Parser)]
#[command(name = "weir", version, about, after_help = EXIT_CODES)]
pub struct Cli {
    /// Which control plane.
    #[command(flatten)]
    pub server: ServerFlags,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the documents have errors, \
4 the configuration changed meanwhile, 5 not allowed, 6 not found, 7 stored but not in force \
everywhere in time, 8 audit records are missing or altered, 10 differences (diff --exit-code, \
policy recompute)";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Put documents in force, all or none.
    Apply(Apply),
    /// Show what an apply would change.
    Diff(Diff),
    /// Show documents.
    Get(Get),
    /// Take documents out.
    Delete(Delete),
    /// Show the proxies and what they run.
    Nodes(Output),
    /// Show who has used what of which quota, and when it renews.
    Limits(Limits),
    /// Tokens of service accounts.
    #[command(subcommand)]
    Token(Token),
    /// Who may administer.
    #[command(subcommand)]
    Operator(Operator),
    /// Take something back, at once and everywhere.
    #[command(subcommand)]
    Revoke(Revoke),
    /// Keys that seal what travels through clients: session ids, cursors and the like.
    #[command(subcommand)]
    Keyring(Keyring),
    /// Make a one-time token with which a new proxy joins.
    EnrolToken(EnrolToken),
    /// Approve what a server offers now.
    Pin(Pin),
    /// Why, what if, and was it so: questions about the rules of a group.
    #[command(subcommand)]
    Policy(Review),
    /// The audit trail.
    #[command(subcommand)]
    Audit(Audit),
    /// Connect an MCP host on standard input and output to a gateway.
    Connect(Connect),
    /// Run both planes in this process, on embedded parts.
    Dev(Dev),
}

/// Files of documents.
#[derive(Debug, Args)]
pub struct Files {
    /// YAML or JSON file, folder (its *.yaml, *.yml and *.json, not deeper), or - for standard input.
    #[arg(short, long = "file", required = true, value_name = "FILE|DIR")]
    pub files: Vec<PathBuf>,
}

/// See [`Command::Apply`].
#[derive(Debug, Args)]
pub struct Apply {
    /// What to apply.
    #[command(flatten)]
    pub files: Files,
    /// Check everything, change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Change it only when the configuration is at this revision.
    #[arg(long, value_name = "REVISION")]
    pub expect: Option<u64>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// Waiting for the proxies.
#[derive(Debug, Clone, Copy, Args)]
pub struct Wait {
    /// Return only when every connected proxy runs the new revision.
    #[arg(long)]
    pub wait: bool,
    /// How long --wait waits, in seconds.
    #[arg(long, default_value_t = 30, value_name = "SECONDS")]
    pub timeout: u64,
}

/// See [`Command::Diff`].
#[derive(Debug, Args)]
pub struct Diff {
    /// What to compare with what is in force.
    #[command(flatten)]
    pub files: Files,
    /// End with 10 when there are differences.
    #[arg(long)]
    pub exit_code: bool,
}

/// A kind, and a document of it.
#[derive(Debug, Args)]
pub struct Target {
    /// Region, Group, Server, IdentityProvider, ServiceAccount, Role, RoleBinding, Policy, Limit,
    /// Credential, Revocation, NodeRevocation, Catalog or Definition; in any case.
    #[arg(value_parser = kind)]
    pub kind: Kind,
    /// The group, for kinds that belong to one.
    #[arg(short, long)]
    pub group: Option<String>,
}

/// How to print.
#[derive(Debug, Clone, Copy, Args)]
pub struct Output {
    /// How to print it.
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// Formats of what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people.
    Table,
    /// As `apply` takes it.
    Yaml,
    /// As the server answered.
    Json,
    /// Keys only, a line each.
    Name,
}

/// See [`Command::Get`].
#[derive(Debug, Args)]
pub struct Get {
    /// Of which kind and group.
    #[command(flatten)]
    pub target: Target,
    /// Its name; all of the kind without one.
    pub name: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// See [`Command::Limits`].
#[derive(Debug, Args)]
pub struct Limits {
    /// The group.
    #[arg(short, long)]
    pub group: String,
    /// Only of this limit.
    #[arg(long)]
    pub limit: Option<String>,
    /// Only of this caller, server or tool (`jwt:okta:alice`, `crm`, `crm/search`).
    #[arg(long)]
    pub of: Option<String>,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// See [`Command::Delete`].
#[derive(Debug, Args)]
pub struct Delete {
    /// Of which kind and group.
    #[command(flatten)]
    pub target: Target,
    /// Its name.
    pub name: String,
    /// Delete what belongs to it as well: a group with everything in it, a server with its catalogs.
    #[arg(long)]
    pub cascade: bool,
    /// Check everything, change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// See [`Command::Token`].
#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token. It is shown once.
    Create(TokenCreate),
    /// Show the tokens of an account: when they expire, when they were last used.
    List(TokenList),
    /// Make a token worthless.
    Revoke(TokenRevoke),
}

/// See [`Token::List`].
#[derive(Debug, Args)]
pub struct TokenList {
    /// The service account.
    pub account: String,
    /// Its group.
    #[arg(short, long)]
    pub group: String,
    /// How to print.
    #[command(flatten)]
    pub output: Output,
}

/// See [`Token::Create`].
#[derive(Debug, Args)]
pub struct TokenCreate {
    /// The service account.
    pub account: String,
    /// Its group.
    #[arg(short, long)]
    pub group: String,
    /// Days until it expires; it does not without this.
    #[arg(long)]
    pub days: Option<u32>,
    /// Public id of the token that it takes the place of, which ends after the overlap.
    #[arg(long, value_name = "ID")]
    pub replaces: Option<String>,
    /// Hours for which the replaced token goes on: 24 without this.
    #[arg(long, value_name = "HOURS", requires = "replaces")]
    pub overlap: Option<u32>,
    /// Print the token and nothing else.
    #[arg(short, long)]
    pub quiet: bool,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// See [`Token::Revoke`].
#[derive(Debug, Args)]
pub struct TokenRevoke {
    /// The service account.
    pub account: String,
    /// The token's public id, as `get ServiceAccount` shows it.
    pub id: String,
    /// The account's group.
    #[arg(short, long)]
    pub group: String,
}

/// See [`Command::Operator`].
#[derive(Debug, Subcommand)]
pub enum Operator {
    /// Make an operator. Its token is shown once.
    Create(OperatorCreate),
    /// Show the operators.
    List(Output),
    /// Take an operator's access away.
    Revoke {
        /// Its id, as `list` shows it.
        id: String,
    },
}

/// See [`Command::Keyring`].
#[derive(Debug, Subcommand)]
pub enum Keyring {
    /// Show the keys, never themselves: which one seals, and since when.
    List(Output),
    /// Begin a rotation now. The key before opens until the overlap is over.
    Rotate {
        /// For a key that leaked: a new key, and no other. Every session ends.
        #[arg(long)]
        at_once: bool,
    },
}

/// See [`Operator::Create`].
#[derive(Debug, Args)]
pub struct OperatorCreate {
    /// For people.
    pub name: String,
    /// viewer reads, editor changes documents, admin makes operators.
    #[arg(long, value_parser = ["viewer", "editor", "admin"])]
    pub role: String,
    /// Only this group; may be repeated. All groups without it.
    #[arg(short, long = "group")]
    pub groups: Vec<String>,
    /// Days until it expires; it does not without this.
    #[arg(long)]
    pub days: Option<u32>,
    /// Print the token and nothing else.
    #[arg(short, long)]
    pub quiet: bool,
}

/// See [`Command::Revoke`].
#[derive(Debug, Subcommand)]
pub enum Revoke {
    /// One token of an identity provider, or one client certificate.
    Token {
        /// The token itself (it is hashed here and not sent), its SHA-256, or jti:ID. - reads the
        /// token from standard input.
        #[arg(value_name = "TOKEN")]
        which: String,
        /// How.
        #[command(flatten)]
        how: RevokeHow,
    },
    /// A session: sid of an identity provider's tokens, of the gateway's sign-in, or the session
    /// of an MCP client, as audit records show it.
    Session {
        /// Its id.
        id: String,
        /// How.
        #[command(flatten)]
        how: RevokeHow,
    },
    /// A caller with everything that it presents: jwt:okta:alice, account:ci.
    Principal {
        /// Its id, as audit records show it.
        id: String,
        /// Only what was issued until now: whoever can log in again may come back.
        #[arg(long)]
        issued_until_now: bool,
        /// How.
        #[command(flatten)]
        how: RevokeHow,
    },
    /// A server.
    Server {
        /// Its name.
        name: String,
        /// How.
        #[command(flatten)]
        how: RevokeHow,
    },
    /// A tool of a server.
    Tool {
        /// The server.
        #[arg(id = "server_name", value_name = "SERVER")]
        server: String,
        /// The tool's own name there.
        name: String,
        /// How.
        #[command(flatten)]
        how: RevokeHow,
    },
    /// A policy: what it permits it permits no more; what it forbids stays forbidden.
    Policy {
        /// Its name.
        name: String,
        /// How.
        #[command(flatten)]
        how: RevokeHow,
    },
    /// A role binding.
    RoleBinding {
        /// Its name.
        name: String,
        /// How.
        #[command(flatten)]
        how: RevokeHow,
    },
    /// An API token of a service account, for good.
    ApiToken(TokenRevoke),
    /// A proxy: its stream ends, its certificate is not renewed, other proxies refuse it.
    Node {
        /// Its name, as `nodes` shows it.
        name: String,
        /// For people: why.
        #[arg(long)]
        because: Option<String>,
    },
}

/// How something is revoked. `delete revocation` gives it back.
#[derive(Debug, Args)]
pub struct RevokeHow {
    /// The group.
    #[arg(short, long)]
    pub group: String,
    /// Hours until it ends by itself. A token given as such ends when the token would; sessions
    /// and hashes end after 24 hours; all else does not.
    #[arg(long)]
    pub hours: Option<u32>,
    /// For people: why.
    #[arg(long)]
    pub because: Option<String>,
    /// Whether to wait.
    #[command(flatten)]
    pub wait: Wait,
}

/// See [`Command::EnrolToken`].
#[derive(Debug, Args)]
pub struct EnrolToken {
    /// Region that the new proxy will serve.
    #[arg(long)]
    pub region: String,
    /// Name of the proxy that may use it; without, the proxy names itself.
    #[arg(long)]
    pub node: Option<String>,
    /// Minutes until it expires.
    #[arg(long, default_value_t = 60)]
    pub minutes: u32,
    /// Print the token and nothing else.
    #[arg(short, long)]
    pub quiet: bool,
}

/// See [`Command::Pin`].
#[derive(Debug, Args)]
pub struct Pin {
    /// The server.
    #[arg(id = "server_name", value_name = "SERVER")]
    pub server: String,
    /// Its group.
    #[arg(short, long)]
    pub group: String,
    /// One of its versions; all of them without this.
    #[arg(long)]
    pub version: Option<String>,
}

/// See [`Command::Connect`].
#[derive(Debug, Clone, Args)]
#[command(after_help = CONNECT_ENVIRONMENT)]
pub struct Connect {
    /// Endpoints of the gateway, one per region: https://HOST/GROUP/mcp. The one that answers
    /// quickest is used, the next one when it fails.
    #[arg(required = true, value_name = "URL")]
    pub urls: Vec<String>,
    /// Sign in now, then end. A host need not wait for the browser later.
    #[arg(long, conflicts_with = "sign_out")]
    pub sign_in: bool,
    /// Forget the tokens of these endpoints, then end.
    #[arg(long)]
    pub sign_out: bool,
    /// OAuth client that is registered with the authorization server.
    #[arg(long, value_name = "ID")]
    pub client_id: Option<String>,
    /// URL of a client id metadata document, for authorization servers that take one.
    #[arg(long, value_name = "URL")]
    pub client_metadata: Option<String>,
    /// Scopes to ask for instead of those that the endpoint names.
    #[arg(long, value_name = "SCOPES")]
    pub scope: Option<String>,
    /// Port of 127.0.0.1 that the browser comes back to; 0 picks a free one.
    #[arg(long, default_value_t = 0, value_name = "PORT")]
    pub callback_port: u16,
    /// Do not open a browser; the address to open is on standard error.
    #[arg(long)]
    pub no_browser: bool,
    /// What is logged on standard error: warn, info, weir=debug, ...
    #[arg(long, default_value = "warn", value_name = "FILTER")]
    pub log: String,
}

const CONNECT_ENVIRONMENT: &str = "Environment: WEIR_AGENT_TOKEN is used instead of signing in; \
WEIR_CLIENT_SECRET belongs to --client-id; BROWSER opens addresses";

/// See [`Command::Dev`].
#[derive(Debug, Clone, Args)]
pub struct Dev {
    /// Documents to apply at the start; may be repeated.
    #[arg(long, value_name = "FILE|DIR")]
    pub apply: Vec<PathBuf>,
    /// Where state, snapshot and audit records are kept.
    #[arg(long, default_value = ".weir", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Address for agents; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7777", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Address for operators; port 0 picks a free one.
    #[arg(long, default_value = "127.0.0.1:7778", value_name = "ADDRESS")]
    pub admin_listen: SocketAddr,
    /// Address for health and metrics of the proxy; none without.
    #[arg(long, value_name = "ADDRESS")]
    pub metrics_listen: Option<SocketAddr>,
    /// Address for health and metrics of the control plane; none without.
    #[arg(long, value_name = "ADDRESS")]
    pub control_metrics_listen: Option<SocketAddr>,
    /// OpenTelemetry collector for traces and metrics: `http://127.0.0.1:4317`.
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// What is logged: warn, info, data_plane=debug, ...
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Written as JSON once everything serves: addresses and the admin token.
    #[arg(long, value_name = "FILE")]
    pub ready_file: Option<PathBuf>,
}

fn kind(text: &str) -> Result<Kind, String> {
    let found = Kind::ALL.iter().find(|kind| kind.as_str().eq_ignore_ascii_case(text));
    let plural = text.strip_suffix('s').unwrap_or(text);
    let plural = plural.strip_suffix("ie").map_or(plural.to_owned(), |stem| format!("{stem}y"));
    let found =
        found.or_else(|| Kind::ALL.iter().find(|k| k.as_str().eq_ignore_ascii_case(&plural)));
    found.copied().ok_or_else(|| {
        let known = Kind::ALL.iter().map(|kind| kind.as_str()).collect::<Vec<_>>();
        format!("known kinds are {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn kinds_are_read_in_any_case_and_number() {
        for (text, expected) in [
            ("Server", Kind::Server),
            ("servers", Kind::Server),
            ("policies", Kind::Policy),
            ("rolebinding", Kind::RoleBinding),
        ] {
            assert_eq!(kind(text), Ok(expected), "{text}");
        }
        assert!(kind("pod").unwrap_err().contains("RoleBinding"));
    }
}
