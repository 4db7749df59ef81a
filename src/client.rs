//! The REST client of the command line: one request at a time, JSON or YAML in, JSON out.
//!
//! An answer that is not a success becomes an error that says what to do: a problem document
//! (RFC 9457) is laid out field by field, and its status picks the exit code.

use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::Value;
use weir_model::resource::FieldError;

use crate::exit::{Ended, Exit};
use crate::settings::Server;
use crate::table;

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest wait for an answer.
const ANSWER_TIME: Duration = Duration::from_secs(60);

/// A control plane to talk to.
#[derive(Debug, Clone)]
pub struct Client {
    server: Server,
    http: Http<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// A problem document (RFC 9457) with the errors of fields.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Problem {
    title: String,
    detail: Option<String>,
    remedy: Option<String>,
    errors: Vec<FieldError>,
}

impl Client {
    /// Prepares a client; nothing is sent yet.
    ///
    /// # Errors
    /// When the authorities cannot be read.
    pub fn new(server: Server) -> anyhow::Result<Self> {
        // A second call finds it installed and says so: nothing to do then.
        drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
        let tls = match &server.ca {
            None => HttpsConnectorBuilder::new()
                .with_native_roots()
                .context("the system's authorities")?,
            Some(file) => HttpsConnectorBuilder::new().with_tls_config(trusting(file)?),
        };
        let connector = tls.https_or_http().enable_http1().build();
        Ok(Self { server, http: Http::builder(TokioExecutor::new()).build(connector) })
    }

    /// GET.
    ///
    /// # Errors
    /// See the module.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::GET, path, None).await
    }

    /// DELETE.
    ///
    /// # Errors
    /// See the module.
    pub async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        self.send(Method::DELETE, path, None).await
    }

    /// POST with a JSON body.
    ///
    /// # Errors
    /// See the module.
    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Some(("application/json", body.to_string()))).await
    }

    /// POST with documents as an operator wrote them.
    ///
    /// # Errors
    /// See the module.
    pub async fn post_documents(&self, path: &str, text: String) -> anyhow::Result<Value> {
        self.send(Method::POST, path, Some(("application/yaml", text))).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, String)>,
    ) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.server.url);
        let mut request = Request::builder()
            .method(method)
            .uri(&url)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.server.token.expose()))
            .header(header::ACCEPT, "application/json");
        if let Some((kind, _)) = &body {
            request = request.header(header::CONTENT_TYPE, *kind);
        }
        let body = Bytes::from(body.map(|(_, text)| text).unwrap_or_default());
        let request = request.body(Full::new(body)).map_err(|_| {
            Ended::new(Exit::Usage, format!("{url} is no address, or the token no token"))
        })?;
        let exchange = async {
            let answer = self.http.request(request).await?;
            let (parts, body) = answer.into_parts();
            let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            anyhow::Ok((parts.status, body))
        };
        let (status, body) = tokio::time::timeout(ANSWER_TIME, exchange)
            .await
            .map_err(|_| anyhow::anyhow!("no answer within {} s", ANSWER_TIME.as_secs()))
            .and_then(|answer| answer)
            .with_context(|| format!("{} cannot be reached", self.server.url))?;
        read_answer(status, &body)
    }
}

/// A TLS client that trusts the authorities of a file and nobody else.
pub(crate) fn trusting(file: &std::path::Path) -> anyhow::Result<rustls::ClientConfig> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    let place = || format!("authorities in {}", file.display());
    for certificate in CertificateDer::pem_file_iter(file).with_context(place)? {
        roots.add(certificate.with_context(place)?).with_context(place)?;
    }
    anyhow::ensure!(!roots.is_empty(), "there is no certificate in {}", file.display());
    Ok(rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth())
}

fn read_answer(status: StatusCode, body: &[u8]) -> anyhow::Result<Value> {
    if status.is_success() {
        if body.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(body)
            .context("the answer is no JSON; is this a control plane?");
    }
    let problem: Problem = serde_json::from_slice(body).unwrap_or_default();
    let exit = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Exit::NotAllowed,
        StatusCode::NOT_FOUND => Exit::NotFound,
        StatusCode::CONFLICT | StatusCode::PRECONDITION_FAILED => Exit::Conflict,
        status if status.is_client_error() => Exit::Refused,
        _ => Exit::Failed,
    };
    Err(Ended::new(exit, problem.tell(status)).into())
}

impl Problem {
    fn tell(&self, status: StatusCode) -> String {
        let title = if self.title.is_empty() { status.to_string() } else { self.title.clone() };
        let mut text = title;
        for more in [&self.detail, &self.remedy].into_iter().flatten() {
            text = format!("{text}\n{more}");
        }
        if !self.errors.is_empty() {
            let row = |e: &FieldError| vec![e.document.clone(), e.path.clone(), e.message.clone()];
            let rows = self.errors.iter().map(row).collect::<Vec<_>>();
            text = format!(
                "{text}\n\n{}",
                table::columns(&["DOCUMENT", "PATH", "WHAT TO MEND"], &rows)
            );
        }
        text.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, body: &str) -> (u8, String) {
        let error =
            read_answer(StatusCode::from_u16(status).unwrap(), body.as_bytes()).unwrap_err();
        (crate::exit::code(&error), error.to_string())
    }

    #[test]
    fn problems_are_laid_out_and_pick_the_exit_code() {
        let body = r#"{"title":"2 errors","detail":"Nothing was changed.","errors":[
            {"document":"Server/demo/orders","path":"spec.versions","message":"must not be empty"}]}"#;
        let (code, text) = refused(422, body);
        assert_eq!(code, Exit::Refused as u8);
        assert!(text.starts_with("2 errors\nNothing was changed.\n\nDOCUMENT"), "{text}");
        assert!(text.contains("Server/demo/orders  spec.versions  must not be empty"), "{text}");
        for (status, exit) in [
            (401, Exit::NotAllowed),
            (403, Exit::NotAllowed),
            (404, Exit::NotFound),
            (409, Exit::Conflict),
            (500, Exit::Failed),
        ] {
            assert_eq!(refused(status, "<html>").0, exit as u8, "{status}");
        }
        assert_eq!(refused(502, "").1, "502 Bad Gateway");
    }

    #[test]
    fn an_answer_without_content_is_no_error() {
        assert_eq!(read_answer(StatusCode::NO_CONTENT, b"").unwrap(), Value::Null);
        assert!(read_answer(StatusCode::OK, b"<html>").is_err());
    }
}
