//! From `apply` to in force: how long until a change at the control plane decides calls.
//!
//! A role binding is given to the caller and taken away again, over REST; the proxy is asked all
//! the time, one call after the other, until its answer flips. The time runs from the moment at
//! which the apply is sent.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use crate::plan::{Target, Work};
use crate::target::Connection;

/// What to measure.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Base URL of the control plane's REST API.
    pub rest: String,
    /// An operator's token.
    pub operator_token: String,
    /// Group that the proxies serve.
    pub group: String,
    /// A role of the group that allows `echo`; nothing else may allow it to the caller.
    pub role: String,
    /// The caller's service account, whose token the targets carry.
    pub account: String,
    /// One endpoint for each proxy; a change counts when it is in force at all of them.
    pub targets: Vec<Target>,
    /// How many changes.
    pub samples: usize,
}

/// The change must be in force within this time, or the measurement fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Milliseconds for each change, in the order of measurement.
///
/// # Errors
/// When the control plane refuses a change or a proxy never shows it.
pub async fn measure(plan: &Plan) -> anyhow::Result<Vec<f64>> {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let mut times = Vec::with_capacity(plan.samples);
    let mut connections = Vec::new();
    apply(&client, plan, true).await?;
    let started = Instant::now();
    for target in &plan.targets {
        loop {
            match Connection::open(target, target.era).await {
                Ok(connection) => break connections.push(connection),
                Err(error) => ensure!(started.elapsed() < PATIENCE, "{error:#}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    in_force(&mut connections, true).await?;
    for sample in 0..plan.samples {
        let allowed = sample % 2 == 1;
        let started = Instant::now();
        let (applied, seen) =
            tokio::join!(apply(&client, plan, allowed), in_force(&mut connections, allowed));
        applied?;
        seen?;
        times.push(started.elapsed().as_secs_f64() * 1000.0);
    }
    Ok(times)
}

/// Waits until every proxy answers as the change demands.
async fn in_force(connections: &mut [Connection], allowed: bool) -> anyhow::Result<()> {
    let work = Work::Call { tool: "echo".to_owned(), bytes: 1 };
    let started = Instant::now();
    for connection in connections {
        while connection.run(&work, "x").await.is_ok() != allowed {
            ensure!(started.elapsed() < PATIENCE, "the change never came into force");
        }
    }
    Ok(())
}

async fn apply(
    client: &Client<HttpConnector, Full<Bytes>>,
    plan: &Plan,
    allowed: bool,
) -> anyhow::Result<()> {
    // Taking it away leaves the binding in place, for a user that nobody is.
    let subject = if allowed {
        serde_json::json!({"serviceAccount": plan.account})
    } else {
        serde_json::json!({"user": "nobody"})
    };
    let document = serde_json::json!({
        "apiVersion": "weir/v1", "kind": "RoleBinding",
        "metadata": {"name": "apply-latency", "group": plan.group},
        "spec": {"role": plan.role, "subjects": [subject]},
    });
    let request = Request::post(format!("{}/v1/apply", plan.rest))
        .header("authorization", format!("Bearer {}", plan.operator_token))
        .header("content-type", "application/json")
        .body(Full::new(document.to_string().into()))?;
    let response = client.request(request).await.context("the control plane does not answer")?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    ensure!(status.is_success(), "apply: {status} {}", String::from_utf8_lossy(&body));
    Ok(())
}
