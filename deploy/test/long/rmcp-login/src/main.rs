//! Logs in with rmcp, lists tools, refreshes and lists them again: `rmcp-login ENDPOINT AGREE`, where
//! AGREE is a program that takes an authorization URL, plays the person, and prints the URL that the
//! browser ends at. Prints a line per check, `ok ...` or `not ok ...`.

use anyhow::{Context, ensure};
use rmcp::ServiceExt;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::auth::{AuthClient, AuthorizationManager, AuthorizationRequest, OAuthState};
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;

const REDIRECT: &str = "http://127.0.0.1:7/callback";

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let mut arguments = std::env::args().skip(1);
    let (endpoint, agree) = (arguments.next().unwrap_or_default(), arguments.next().unwrap_or_default());
    let mut state = None;
    let mut failed = false;
    for (name, outcome) in [
        ("logs in", log_in(&endpoint, &agree).await.map(|done| state = Some(done))),
        ("calls, refreshes, calls", match state.take() {
            Some(state) => use_it(&endpoint, state).await,
            None => Err(anyhow::anyhow!("nobody is logged in")),
        }),
    ] {
        match outcome {
            Ok(()) => println!("ok rmcp: {name}"),
            Err(error) => {
                failed = true;
                println!("not ok rmcp: {name}: {error:#}");
            }
        }
    }
    u8::from(failed).into()
}

async fn log_in(endpoint: &str, agree: &str) -> anyhow::Result<OAuthState> {
    let mut state = OAuthState::new(endpoint, None).await?;
    let request = AuthorizationRequest::new(REDIRECT).with_client_name("rmcp");
    state.start_authorization(request).await.context("start")?;
    let url = state.get_authorization_url().await?;
    let person = tokio::process::Command::new("python3").args([agree, &url]).output().await?;
    ensure!(person.status.success(), "{}", String::from_utf8_lossy(&person.stderr));
    let back = String::from_utf8(person.stdout)?;
    state.handle_callback_url(back.trim()).await.context("callback")?;
    Ok(state)
}

async fn use_it(endpoint: &str, state: OAuthState) -> anyhow::Result<()> {
    let manager = state.into_authorization_manager().context("not authorized")?;
    let before = manager.get_access_token().await?;
    let manager = called(endpoint, manager).await?;
    manager.refresh_token().await.context("refresh")?;
    ensure!(manager.get_access_token().await? != before, "nothing was refreshed");
    called(endpoint, manager).await.map(drop)
}

/// Lists tools over a connection of its own; gives the manager back.
async fn called(
    endpoint: &str,
    manager: AuthorizationManager,
) -> anyhow::Result<AuthorizationManager> {
    let client = AuthClient::new(reqwest::Client::new(), manager);
    let shared = client.auth_manager.clone();
    let config = StreamableHttpClientTransportConfig::with_uri(endpoint);
    let transport = StreamableHttpClientTransport::with_client(client, config);
    let service = ().serve(transport).await?;
    let tools = service.list_all_tools().await?;
    ensure!(!tools.is_empty(), "the list is empty");
    service.cancel().await?;
    let mut shared = shared;
    for _ in 0..500 {
        match std::sync::Arc::try_unwrap(shared) {
            Ok(manager) => return Ok(manager.into_inner()),
            Err(still) => shared = still,
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    anyhow::bail!("the connection does not let go")
}
