//! Reading requests: bounded, timed, and with errors that say where they are wrong.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, Request};
use http::request::Parts;
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use weir_model::bounds;
use weir_model::id::{Name, Revision};
use weir_model::resource::{self, ResourceKey};

use super::problem::{Kind, Problem};

/// Body of a request that is not an apply.
const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;

/// The query; unknown parameters are errors.
pub(super) struct Query<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        axum::extract::Query::try_from_uri(&parts.uri)
            .map(|axum::extract::Query(query)| Self(query))
            .map_err(|error| {
                use std::error::Error as _;
                let why = error.source().map_or_else(|| error.to_string(), ToString::to_string);
                Problem::new(Kind::InvalidRequest, format!("the query: {why}"))
            })
    }
}

/// Documents as text, YAML or JSON.
pub(super) struct DocumentText(pub(super) String);

impl<S: Sync> FromRequest<S> for DocumentText {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let known = [
            "application/json",
            "application/yaml",
            "application/x-yaml",
            "text/yaml",
            "text/x-yaml",
        ];
        content_type(request.headers(), &known)?;
        let body = read(request.into_body(), bounds::APPLY_BODY_BYTES_MAX).await?;
        let text = String::from_utf8(body);
        Ok(Self(text.map_err(|_| Problem::new(Kind::InvalidRequest, "the body is no UTF-8"))?))
    }
}

/// A JSON body; unknown members are errors.
pub(super) struct Json<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        object(request, SMALL_BODY_BYTES_MAX).await.map(Self)
    }
}

/// A JSON body as large as an apply; unknown members are errors.
pub(super) struct LargeJson<T>(pub(super) T);

impl<S: Sync, T: DeserializeOwned> FromRequest<S> for LargeJson<T> {
    type Rejection = Problem;
    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        object(request, bounds::APPLY_BODY_BYTES_MAX).await.map(Self)
    }
}

async fn object<T: DeserializeOwned>(request: Request, bytes_max: usize) -> Result<T, Problem> {
    content_type(request.headers(), &["application/json"])?;
    let body = read(request.into_body(), bytes_max).await?;
    // Serde takes an array for a struct; the API's description does not.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Problem::new(Kind::InvalidRequest, "the body must be a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_slice(&body);
    let value: T = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { String::new() } else { format!("{path}: ") };
        Problem::new(Kind::InvalidRequest, format!("the body: {place}{}", error.inner()))
    })?;
    let end = reader.end();
    end.map_err(|_| Problem::new(Kind::InvalidRequest, "the body goes on after its end"))?;
    Ok(value)
}

fn content_type(headers: &HeaderMap, known: &[&str]) -> Result<(), Problem> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let media = given.split(';').next().unwrap_or_default().trim();
    if known.iter().any(|known| known.eq_ignore_ascii_case(media)) {
        return Ok(());
    }
    Err(Problem::new(Kind::UnsupportedMediaType, format!("one of {} is read", known.join(", "))))
}

async fn read(body: Body, bytes_max: usize) -> Result<Vec<u8>, Problem> {
    let limit = Duration::from_millis(bounds::BODY_READ_MS);
    let read = tokio::time::timeout(limit, Limited::new(body, bytes_max).collect()).await;
    match read.map_err(|_| Kind::RequestTimeout)? {
        Ok(body) => Ok(body.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => {
            Err(Problem::new(Kind::TooLarge, format!("the body is over {bytes_max} bytes")))
        }
        Err(_) => Err(Problem::new(Kind::InvalidRequest, "the body ended early")),
    }
}

/// `If-Match: "123"`.
pub(super) struct IfMatch(pub(super) Option<Revision>);

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Problem;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let Some(value) = parts.headers.get(header::IF_MATCH) else { return Ok(Self(None)) };
        let revision = value.to_str().ok().and_then(|text| match text.trim() {
            "*" => Some(None),
            text => {
                text.strip_prefix('"')?.strip_suffix('"')?.parse().ok().map(|n| Some(Revision(n)))
            }
        });
        revision.map(Self).ok_or_else(|| {
            Problem::new(Kind::InvalidRequest, "If-Match must be one revision in quotes, or *")
        })
    }
}

/// The key in a path.
pub(super) fn key(kind: &str, group: Option<&str>, name: &str) -> Result<ResourceKey, Problem> {
    let kind = self::kind(kind)?;
    let bad = |why: String| Err(Problem::new(Kind::InvalidRequest, why));
    match (kind.is_grouped(), group) {
        (true, None) => {
            bad(format!("a {kind} belongs to a group: /v1/resources/{kind}/GROUP/NAME"))
        }
        (false, Some(_)) => bad(format!("a {kind} belongs to no group: /v1/resources/{kind}/NAME")),
        (true, Some(group)) => Ok(ResourceKey::grouped(kind, &self::name(group)?, name)),
        (false, None) => Ok(ResourceKey::global(kind, name)),
    }
}

/// The kind in a path or query.
pub(super) fn kind(text: &str) -> Result<resource::Kind, Problem> {
    resource::Kind::parse(text).ok_or_else(|| {
        let known: Vec<_> = resource::Kind::ALL.iter().map(|kind| kind.as_str()).collect();
        let shown: String = text.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
        let text = format!("there is no kind {shown}; known are {}", known.join(", "));
        Problem::new(Kind::InvalidRequest, text)
    })
}

/// A name in a path or query.
pub(super) fn name(text: &str) -> Result<Name, Problem> {
    text.parse().map_err(|error| Problem::new(Kind::InvalidRequest, format!("a name {error}")))
}
