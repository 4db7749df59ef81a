//! `weir connect`: an MCP host that speaks stdio on one side, the gateway over HTTP on the other.
//!
//! The host starts this process and talks to it in newline-delimited JSON-RPC of any revision.
//! Every message is passed on as the bytes that came; what HTTP needs around it (session, version,
//! mirrored headers, credentials) is added here, and what only HTTP has (streams that break,
//! sessions that expire, regions that fail) ends here. The host never learns of either.
//!
//! - [`lines`]: messages on stdin and stdout; [`message`]: what has to be known of one;
//! - [`bridge`]: which message goes where; [`exchange`]: one request and its answer, with every
//!   retry that is safe; [`listening`]: the stream of older revisions that the server writes to;
//! - [`session`]: what an older host's handshake settled; [`mirror`]: headers of newer ones;
//! - [`regions`]: which address; [`http`]: requests and event streams;
//! - [`credentials`] and [`sign_in`]: who the host is.
//!
//! Promises: a request of the host gets exactly one answer, unless it was cancelled. A request is
//! sent twice only when the first one was certainly not carried out, or when carrying it out twice
//! is the same as once. Nothing but messages is written to stdout. Tokens appear in the file that
//! keeps them and in the `Authorization` header, nowhere else.

mod bridge;
mod credentials;
mod exchange;
mod http;
mod lines;
mod listening;
mod message;
mod mirror;
mod regions;
mod session;
mod sign_in;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::io::{AsyncRead, AsyncWrite};
use weir_model::secret::Secret;
use weir_runtime::telemetry::{self, LogSettings};

use crate::cli::Connect;
use crate::exit::{Ended, Exit};
use crate::settings;

use bridge::Bridge;
use credentials::Credentials;
use http::Http;
use regions::Regions;
use sign_in::{SignIn, Wishes};

/// `User-Agent` of everything that the bridge asks for.
const USER_AGENT: &str = concat!("weir-connect/", env!("CARGO_PKG_VERSION"));

/// What the process around it gives: the environment, the user's folder.
#[derive(Debug, Default)]
pub struct Surroundings {
    /// A token that makes signing in unnecessary.
    pub token: Option<Secret<String>>,
    /// Of a client that was registered beforehand and is confidential.
    pub client_secret: Option<Secret<String>>,
    /// Where what was signed in is kept.
    pub folder: PathBuf,
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Program that opens a URL; the system's one without it.
    pub browser: Option<String>,
}

/// Runs until the host closes stdin.
///
/// # Errors
/// When an address makes no sense, or signing in (with `--sign-in`) fails.
pub fn run(args: &Connect, ca: Option<PathBuf>) -> anyhow::Result<()> {
    let log = LogSettings { filter: args.log.clone(), ..LogSettings::default() };
    telemetry::init(&log, Vec::new())?;
    let around = Surroundings {
        token: settings::agent_token(),
        client_secret: settings::client_secret(),
        folder: settings::config_folder().context("neither XDG_CONFIG_HOME nor HOME is set")?,
        ca,
        browser: settings::browser(),
    };
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(serve(args, around, tokio::io::stdin(), tokio::io::stdout()));
    // A read of stdin cannot be interrupted: it must not keep the process.
    runtime.shutdown_background();
    ended
}

/// The same on any pair of streams.
///
/// # Errors
/// See [`run`].
pub async fn serve(
    args: &Connect,
    around: Surroundings,
    input: impl AsyncRead + Send + Unpin + 'static,
    output: impl AsyncWrite + Send + Unpin + 'static,
) -> anyhow::Result<()> {
    for url in &args.urls {
        check(url)?;
    }
    let http = Http::new(around.ca.as_deref())?;
    let wishes = Wishes {
        client_id: args.client_id.clone(),
        client_secret: around.client_secret,
        client_metadata: args.client_metadata.clone(),
        scope: args.scope.clone(),
        callback_port: args.callback_port,
        browser: (!args.no_browser).then_some(around.browser),
    };
    let sign_in = SignIn::new(http.clone(), wishes, &around.folder, &args.urls)?;
    if args.sign_out {
        return sign_in.forget().await;
    }
    let credentials = match around.token {
        Some(token) => Credentials::given(token),
        None => Credentials::signed_in(sign_in),
    };
    if args.sign_in {
        let done = credentials.sign_in_now(&args.urls).await;
        return done.map_err(|error| Ended::new(Exit::NotAllowed, error.to_string()).into());
    }
    let regions = Regions::measured(&args.urls, &http).await;
    let (writer, written) = lines::writer(output);
    let bridge = Arc::new(Bridge::new(http, regions, credentials, writer));
    bridge.run(input).await;
    drop(bridge);
    // Ends once the last answer is written.
    drop(written.await);
    Ok(())
}

/// Tokens travel to these addresses: over TLS, or within this machine.
fn check(url: &str) -> anyhow::Result<()> {
    let fine = http::endpoint(url).is_some();
    anyhow::ensure!(
        fine,
        Ended::new(
            Exit::Usage,
            format!(
                "{url}: give an endpoint of a gateway, https://HOST/GROUP/mcp (http:// on this machine only)"
            )
        )
    );
    Ok(())
}
