//! The agent's side: one MCP connection of a chosen era, and refusals in a shape to look at.

use std::sync::Arc;

use anyhow::Context as _;
use parking_lot::Mutex;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ErrorData,
    Implementation, ProgressNotificationParam, ProtocolVersion,
};
use rmcp::service::{NotificationContext, RunningService, ServiceError};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt as _, RoleClient};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

/// Which generation of the protocol the agent speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// `initialize`, then a session.
    Legacy,
    /// 2026-07-28: every request stands for itself.
    Modern,
}

impl Era {
    fn lifecycle(self) -> ClientLifecycleMode {
        match self {
            Self::Legacy => ClientLifecycleMode::Initialize,
            Self::Modern => ClientLifecycleMode::Discover {
                preferred_versions: vec![ProtocolVersion::V_2026_07_28],
            },
        }
    }
}

/// What the connection's notifications leave behind.
#[derive(Debug, Clone, Default)]
pub struct Ears {
    progress: Arc<Mutex<Vec<f64>>>,
}

impl ClientHandler for Ears {
    fn get_info(&self) -> ClientConfig {
        let me = Implementation::new("demo-agent", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), me)
    }

    async fn on_progress(
        &self,
        progress: ProgressNotificationParam,
        _context: NotificationContext<RoleClient>,
    ) {
        self.progress.lock().push(progress.progress);
    }
}

/// One connection of an agent.
#[derive(Debug)]
pub struct Agent {
    running: RunningService<RoleClient, Ears>,
    ears: Ears,
}

/// A call that brought no result, in whatever way the era tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// HTTP status, where the client library shows it.
    pub status: Option<u16>,
    /// JSON-RPC error code.
    pub code: Option<i64>,
    /// What the answer says to the caller.
    pub message: String,
}

impl Agent {
    /// Connects to an MCP endpoint.
    ///
    /// # Errors
    /// When the endpoint does not answer as the era demands.
    pub async fn connect(url: &str, token: Option<&str>, era: Era) -> anyhow::Result<Self> {
        crate::install_crypto();
        let mut config = StreamableHttpClientTransportConfig::with_uri(url);
        if let Some(token) = token {
            config = config.auth_header(token);
        }
        let transport = StreamableHttpClientTransport::from_config(config);
        let ears = Ears::default();
        let running = ears
            .clone()
            .serve_with_lifecycle(transport, era.lifecycle())
            .await
            .with_context(|| format!("connect to {url}"))?;
        Ok(Self { running, ears })
    }

    /// Connects over a pair of streams: what a host on stdio does.
    ///
    /// # Errors
    /// When the other side does not answer as the era demands.
    pub async fn over<R, W>(streams: (R, W), era: Era) -> anyhow::Result<Self>
    where
        R: AsyncRead + Send + Unpin + 'static,
        W: AsyncWrite + Send + Unpin + 'static,
    {
        let ears = Ears::default();
        let running = ears.clone().serve_with_lifecycle(streams, era.lifecycle()).await?;
        Ok(Self { running, ears })
    }

    /// Names of the tools that the endpoint lists for this caller, sorted.
    ///
    /// # Errors
    /// When the list is refused.
    pub async fn tools(&self) -> anyhow::Result<Vec<String>> {
        let tools = self.running.list_all_tools().await?;
        let mut names = tools.into_iter().map(|tool| tool.name.into_owned()).collect::<Vec<_>>();
        names.sort();
        Ok(names)
    }

    /// Calls a tool with a JSON object.
    ///
    /// # Errors
    /// [`Refused`] when anybody on the way answers with an error instead of a result.
    pub async fn call(&self, tool: &str, arguments: Value) -> Result<CallToolResult, Refused> {
        let Value::Object(arguments) = arguments else {
            return Err(Refused::said("arguments must be an object"));
        };
        let request = CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments);
        self.running.call_tool(request).await.map_err(Refused::from)
    }

    /// The connection itself, for what has no method here.
    pub fn peer(&self) -> &RunningService<RoleClient, Ears> {
        &self.running
    }

    /// Progress values heard so far.
    pub fn progress(&self) -> Vec<f64> {
        // The SDK hands each notification to a task of its own: what is told is which came.
        let mut progress = self.ears.progress.lock().clone();
        progress.sort_by(f64::total_cmp);
        progress
    }

    /// Leaves in good order.
    ///
    /// # Errors
    /// When the connection's task died.
    pub async fn close(self) -> anyhow::Result<()> {
        self.running.cancel().await?;
        Ok(())
    }
}

impl Refused {
    fn said(message: &str) -> Self {
        Self { status: None, code: None, message: message.to_owned() }
    }

    fn from_rpc(error: &ErrorData, status: Option<u16>) -> Self {
        let code = Some(i64::from(error.code.0));
        Self { status, code, message: error.message.to_string() }
    }
}

impl From<ServiceError> for Refused {
    /// The library keeps a 401 or 403 as text (`HTTP 403 Forbidden: {json}`), other statuses as
    /// the JSON-RPC error of their body.
    fn from(error: ServiceError) -> Self {
        if let ServiceError::McpError(error) = &error {
            return Self::from_rpc(error, None);
        }
        let text = chain(&error);
        let after = text.split_once("HTTP ").map(|(_, after)| after);
        let status = after.and_then(|after| after.get(..3)).and_then(|code| code.parse().ok());
        let body = after.and_then(|after| after.find('{').map(|start| &after[start..]));
        let rpc = body.and_then(|body| {
            let mut values = serde_json::Deserializer::from_str(body).into_iter::<Value>();
            let error = values.next()?.ok()?.get_mut("error")?.take();
            serde_json::from_value::<ErrorData>(error).ok()
        });
        match rpc {
            Some(error) => Self::from_rpc(&error, status),
            None => Self { status, code: None, message: text },
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.status, self.code) {
            (Some(status), Some(code)) => write!(f, "HTTP {status}, code {code}: ")?,
            (Some(status), None) => write!(f, "HTTP {status}: ")?,
            (None, Some(code)) => write!(f, "code {code}: ")?,
            (None, None) => {}
        }
        f.write_str(&self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_read_the_same_in_every_wrapping() {
        let rpc = ErrorData::new(rmcp::model::ErrorCode(40300), "Ask the owner.", None);
        let direct = Refused::from(ServiceError::McpError(rpc));
        assert_eq!(direct.code, Some(40300));
        assert_eq!(direct.to_string(), "code 40300: Ask the owner.");
    }
}
