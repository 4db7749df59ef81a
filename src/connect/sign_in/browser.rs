//! The person's consent in a browser, and the code that comes back to this machine.

use std::convert::Infallible;
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use weir_model::secret::equal_in_constant_time;

use super::SignInError;
use super::discovery::Found;
use super::grant::{decoded, plain};

/// Connections of the browser at a time; it opens a few ahead.
const CONNECTIONS: usize = 8;

/// Where the browser comes back to: an address that only this machine reaches (RFC 8252).
#[derive(Debug)]
pub(super) struct Landing {
    listener: TcpListener,
    port: u16,
}

/// What the browser brought.
#[derive(Debug)]
pub(super) struct Returned {
    code: Option<String>,
    issuer: Option<String>,
    error: Option<String>,
}

impl Landing {
    pub(super) async fn open(port: u16) -> Result<Self, SignInError> {
        let unusable = |error: std::io::Error| {
            SignInError::Network(format!("cannot wait for the browser on port {port}: {error}"))
        };
        let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(unusable)?;
        let port = listener.local_addr().map_err(unusable)?.port();
        Ok(Self { listener, port })
    }

    /// The redirect URI.
    pub(super) fn redirect(&self) -> String {
        format!("http://127.0.0.1:{}/callback", self.port)
    }

    /// Waits for the browser to come back with this state. Whoever comes without it is sent away.
    pub(super) async fn wait(&self, state: &str) -> Result<Returned, SignInError> {
        let (sender, mut returned) = mpsc::channel(1);
        let state: Arc<str> = state.into();
        let room = Arc::new(tokio::sync::Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                returned = returned.recv() => return returned.ok_or(SignInError::Nobody),
                accepted = self.listener.accept() => accepted,
            };
            let Ok((stream, _)) = accepted else { continue };
            let Ok(permit) = Arc::clone(&room).try_acquire_owned() else { continue };
            let (sender, state) = (sender.clone(), Arc::clone(&state));
            let service = service_fn(move |request: Request<Incoming>| {
                let answer = land(&request, &state, &sender);
                async move { Ok::<_, Infallible>(answer) }
            });
            tokio::spawn(async move {
                let serving = hyper::server::conn::http1::Builder::new()
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = serving.await {
                    tracing::debug!(%error, "the browser left early");
                }
                drop(permit);
            });
        }
    }
}

fn land(
    request: &Request<Incoming>,
    state: &str,
    sender: &mpsc::Sender<Returned>,
) -> Response<Full<Bytes>> {
    let query = request.uri().query().unwrap_or_default();
    if request.uri().path() != "/callback" {
        return page(StatusCode::NOT_FOUND, "There is nothing here.");
    }
    match read(query, state) {
        None => page(StatusCode::BAD_REQUEST, "This answer belongs to no question of ours."),
        Some(returned) => {
            let told = match &returned.error {
                None => "You can close this window.",
                Some(_) => "It did not work; see where you started.",
            };
            // The first one counts.
            drop(sender.try_send(returned));
            page(StatusCode::OK, told)
        }
    }
}

/// Reads the answer; nothing when it is not to our question.
fn read(query: &str, state: &str) -> Option<Returned> {
    let value = |wanted: &str| {
        query.split('&').find_map(|pair| {
            let (name, value) = pair.split_once('=')?;
            (name == wanted).then(|| decoded(value))?
        })
    };
    let ours = equal_in_constant_time(value("state")?.as_bytes(), state.as_bytes());
    let error = value("error").map(|error| match value("error_description") {
        Some(more) => plain(&format!("{error}: {more}")),
        None => plain(&error),
    });
    let returned = Returned { code: value("code"), issuer: value("iss"), error };
    (ours && (returned.code.is_some() || returned.error.is_some())).then_some(returned)
}

fn page(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    let body = format!(
        "<!doctype html><meta charset=utf-8><title>Weir</title>\
         <body style=\"font:1.1rem system-ui;margin:4rem\"><h1>Weir</h1><p>{text}</p>"
    );
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    for (name, value) in [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (header::CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
        (header::CACHE_CONTROL, "no-store"),
        (header::REFERRER_POLICY, "no-referrer"),
    ] {
        response.headers_mut().insert(name, http::HeaderValue::from_static(value));
    }
    response
}

impl Returned {
    /// The code, when it is of the server that was asked (RFC 9207).
    pub(super) fn code(self, found: &Found) -> Result<String, SignInError> {
        let refused = |why: &str| Err(SignInError::Refused(why.to_owned()));
        match &self.issuer {
            Some(issuer) if *issuer != found.issuer() => {
                return refused("the answer came from another authorization server");
            }
            None if found.server.authorization_response_iss_parameter_supported => {
                return refused("the answer does not say which authorization server it is from");
            }
            _ => {}
        }
        match (self.error, self.code) {
            (Some(error), _) => refused(&error),
            (None, Some(code)) => Ok(code),
            (None, None) => refused("the answer holds no code"),
        }
    }
}

/// Shows the person where to go: in a browser when there is one, and on stderr in any case.
pub(super) fn show(url: &str, browser: Option<&Option<String>>) {
    tracing::warn!("sign in with your browser: {url}");
    let Some(program) = browser else { return };
    let system = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let program = program.as_deref().unwrap_or(system);
    let mut command = Command::new(program);
    // stdout belongs to the host.
    command.arg(url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    match command.spawn() {
        // It may run for as long as the browser: whoever waits for it is a thread of its own.
        Ok(mut child) => drop(std::thread::spawn(move || child.wait())),
        Err(error) => tracing::info!(program, %error, "no browser could be opened"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_to_our_own_question_counts() {
        let got = read("code=a%2Fb&state=s1&iss=https%3A%2F%2Fas", "s1").unwrap();
        assert_eq!(got.code.as_deref(), Some("a/b"));
        assert_eq!(got.issuer.as_deref(), Some("https://as"));
        let got = read("error=access_denied&error_description=no+way&state=s1", "s1").unwrap();
        assert_eq!(got.error.as_deref(), Some("access_denied: no way"));
        for foreign in ["", "code=a", "code=a&state=s2", "state=s1", "code=a&state="] {
            assert!(read(foreign, "s1").is_none(), "{foreign}");
        }
    }
}
