//! The floor: a proxy that reads the envelope's method and passes the body on, nothing else.
//!
//! What it costs is what any gateway written on hyper must cost on this machine.

use std::convert::Infallible;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;

/// Largest body, either way.
const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    method: Option<&'a str>,
}

/// Proxies to `to` until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, to: Uri) -> anyhow::Result<()> {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build(connector);
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let (client, to) = (client.clone(), to.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let (client, to) = (client.clone(), to.clone());
                async move {
                    let answer = pass(request, &client, to).await.unwrap_or_else(|_| {
                        let mut response = Response::new(Full::default());
                        *response.status_mut() = StatusCode::BAD_GATEWAY;
                        response
                    });
                    Ok::<_, Infallible>(answer)
                }
            });
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await
                .ok();
        });
    }
}

async fn pass(
    request: Request<Incoming>,
    client: &Client<HttpConnector, Full<Bytes>>,
    to: Uri,
) -> anyhow::Result<Response<Full<Bytes>>> {
    let (mut parts, body) = request.into_parts();
    let body =
        Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed);
    let body = body?.to_bytes();
    let envelope: Envelope<'_> = serde_json::from_slice(&body)?;
    anyhow::ensure!(envelope.method.is_some(), "a request has a method");
    parts.uri = to;
    parts.headers.remove("host");
    let response = client.request(Request::from_parts(parts, Full::new(body))).await?;
    let (parts, body) = response.into_parts();
    let body =
        Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(anyhow::Error::from_boxed);
    Ok(Response::from_parts(parts, Full::new(body?.to_bytes())))
}
