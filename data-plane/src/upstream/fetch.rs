//! Small JSON documents from elsewhere (key sets, issuer metadata) through the guard.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use rustls_pki_types::CertificateDer;

use super::client::{self, HttpClient, TlsError, root_cause};

/// Why a document could not be fetched. For logs; never shown to callers.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No absolute `https` URL (`http` needs the private flag), or it carries user information.
    #[error("the URL cannot be fetched: {0}")]
    Url(&'static str),
    /// No connection, or it broke. The guard's refusals are here too.
    #[error("cannot be reached: {0}")]
    Unreachable(String),
    /// Not `200`. Redirects are not followed.
    #[error("answered HTTP {0}")]
    Status(u16),
    /// Longer than the bound.
    #[error("is longer than {0} bytes")]
    TooLarge(usize),
    /// Took longer than the bound.
    #[error("took too long")]
    Timeout,
    /// Not JSON.
    #[error("is not JSON: {0}")]
    NotJson(String),
}

/// Fetches JSON documents. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Fetcher {
    public: HttpClient,
    private: HttpClient,
}

impl Fetcher {
    /// A fetcher that trusts the system's roots and `extra_roots`.
    ///
    /// # Errors
    /// When there is no root certificate at all.
    pub fn new(extra_roots: &[CertificateDer<'static>]) -> Result<Self, TlsError> {
        let tls = client::tls(extra_roots)?;
        Ok(Self { public: client::client(&tls, false), private: client::client(&tls, true) })
    }

    /// The body of `url`, checked to be one JSON value of at most `max_bytes`.
    ///
    /// # Errors
    /// A [`FetchError`]; nothing is retried.
    pub async fn get_json(
        &self,
        url: &str,
        allow_private: bool,
        max_bytes: usize,
        timeout: Duration,
    ) -> Result<Bytes, FetchError> {
        let uri = checked(url, allow_private)?;
        let client = if allow_private { &self.private } else { &self.public };
        let body = tokio::time::timeout(timeout, get(client, uri, max_bytes))
            .await
            .map_err(|_| FetchError::Timeout)??;
        serde_json::from_slice::<serde::de::IgnoredAny>(&body)
            .map_err(|error| FetchError::NotJson(error.to_string()))?;
        Ok(body)
    }

    /// Posts a form; gives status and body of the answer, whatever they are, redirects included.
    ///
    /// # Errors
    /// A [`FetchError`]; nothing is retried, since a code or refresh token may be in the form.
    pub async fn post_form(
        &self,
        (url, allow_private): (&str, bool),
        form: String,
        authorization: Option<String>,
        (max_bytes, timeout): (usize, Duration),
    ) -> Result<(u16, Bytes), FetchError> {
        let uri = checked(url, allow_private)?;
        let client = if allow_private { &self.private } else { &self.public };
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(uri)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(USER_AGENT, super::USER_AGENT_TEXT);
        if let Some(authorization) = authorization {
            let value = HeaderValue::try_from(authorization);
            let mut value = value.map_err(|_| FetchError::Url("its credentials do not fit"))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        let request = request
            .body(Full::new(Bytes::from(form)))
            .map_err(|_| FetchError::Url("it cannot be requested"))?;
        let exchange = async {
            let answer = client.request(request).await;
            let answer = answer.map_err(|error| FetchError::Unreachable(root_cause(&error)))?;
            let status = answer.status().as_u16();
            Ok((status, bounded(answer.into_body(), max_bytes).await?))
        };
        tokio::time::timeout(timeout, exchange).await.map_err(|_| FetchError::Timeout)?
    }
}

fn checked(url: &str, allow_private: bool) -> Result<Uri, FetchError> {
    let uri: Uri = url.parse().map_err(|_| FetchError::Url("it is no URL"))?;
    match uri.scheme_str() {
        Some("https") => {}
        Some("http") if allow_private => {}
        Some("http") => return Err(FetchError::Url("it must be https")),
        _ => return Err(FetchError::Url("it must be absolute, with https")),
    }
    if uri.authority().is_none_or(|a| a.as_str().contains('@')) {
        return Err(FetchError::Url("it must name a host and no user"));
    }
    Ok(uri)
}

async fn get(client: &HttpClient, uri: Uri, max_bytes: usize) -> Result<Bytes, FetchError> {
    let request = Request::builder()
        .method(Method::GET)
        .uri(uri)
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, super::USER_AGENT_TEXT)
        .body(Full::new(Bytes::new()))
        .map_err(|_| FetchError::Url("it cannot be requested"))?;
    let answer = client
        .request(request)
        .await
        .map_err(|error| FetchError::Unreachable(root_cause(&error)))?;
    if answer.status().as_u16() != 200 {
        return Err(FetchError::Status(answer.status().as_u16()));
    }
    let announced =
        answer.headers().get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    if announced.is_some_and(|length: usize| length > max_bytes) {
        return Err(FetchError::TooLarge(max_bytes));
    }
    bounded(answer.into_body(), max_bytes).await
}

async fn bounded(body: hyper::body::Incoming, max_bytes: usize) -> Result<Bytes, FetchError> {
    match Limited::new(body, max_bytes).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(FetchError::TooLarge(max_bytes)),
        Err(error) => Err(FetchError::Unreachable(root_cause(&*error))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    /// Serves one connection with fixed bytes and gives its URL.
    async fn served(answer: &'static str) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind");
        let url = format!("http://{}/keys", listener.local_addr().expect("address"));
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("accept");
            let mut seen = [0; 1024];
            let _ = stream.read(&mut seen).await;
            stream.write_all(answer.as_bytes()).await.expect("write");
        });
        url
    }

    async fn fetched(answer: &'static str) -> Result<Bytes, FetchError> {
        let fetcher = Fetcher::new(&[]).expect("roots");
        let url = served(answer).await;
        fetcher.get_json(&url, true, 16, Duration::from_millis(500)).await
    }

    #[tokio::test]
    async fn only_small_json_with_status_200_comes_back() {
        let good = fetched("HTTP/1.1 200 OK\r\ncontent-length: 11\r\n\r\n{\"keys\":[]}").await;
        assert_eq!(good.expect("json"), "{\"keys\":[]}");
        let moved =
            "HTTP/1.1 302 Found\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\n\r\n";
        assert!(matches!(fetched(moved).await, Err(FetchError::Status(302))));
        let large = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n14\r\n[1,2,3,4,5,6,7,8,9,0]\r\n0\r\n\r\n";
        assert!(matches!(fetched(large).await, Err(FetchError::TooLarge(16))));
        let announced = "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n";
        assert!(matches!(fetched(announced).await, Err(FetchError::TooLarge(16))));
        let text = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnope";
        assert!(matches!(fetched(text).await, Err(FetchError::NotJson(_))));
        let hang = "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{";
        let hung = fetched(hang).await;
        assert!(matches!(hung, Err(FetchError::Unreachable(_) | FetchError::Timeout)), "{hung:?}");
    }

    #[tokio::test]
    async fn urls_are_checked_before_they_are_fetched() {
        let fetcher = Fetcher::new(&[]).expect("roots");
        for url in ["", "keys", "ftp://a/b", "http://example.com/", "https://u:p@example.com/"] {
            let got = fetcher.get_json(url, false, 16, Duration::from_secs(1)).await;
            assert!(matches!(got, Err(FetchError::Url(_))), "{url}");
        }
        let private =
            fetcher.get_json("https://127.0.0.1/", false, 16, Duration::from_secs(1)).await;
        let Err(FetchError::Unreachable(why)) = private else { panic!("{private:?}") };
        assert!(why.contains("allowPrivate"), "{why}");
    }
}
