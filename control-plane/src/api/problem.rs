//! Everything that the API refuses, as problem documents (RFC 9457). Statuses are chosen here and
//! nowhere else.
//!
//! `type` is a stable URN that ends in a stable label; `remedy` says what to do. The detail never
//! holds a secret, nor the text of a request.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use weir_model::id::Revision;
use weir_model::reason::Reason;
use weir_model::resource::FieldError;

use crate::admit::Refused;
use crate::author::AuthorError;
use crate::keyring::KeyringError;
use crate::operator::OperatorError;
use crate::revoke::RevokeError;
use crate::store::StoreError;
use crate::token::NoRandomness;

macro_rules! kinds {
    ($($variant:ident $label:literal $status:ident $reason:ident $title:literal $remedy:literal;)*) => {
        /// What kind of problem it is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Kind { $(#[doc = $title] $variant,)* }

        impl Kind {
            /// Every kind, in the order of the reference page.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// Stable label; the last part of `type`.
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$variant => $label,)*
                }
            }
            /// HTTP status.
            pub fn status(self) -> StatusCode {
                match self {
                    $(Self::$variant => StatusCode::$status,)*
                }
            }
            /// What the audit record says.
            pub fn reason(self) -> Reason {
                match self {
                    $(Self::$variant => Reason::$reason,)*
                }
            }
            /// One line for people.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)*
                }
            }
            /// What to do.
            pub fn remedy(self) -> &'static str {
                match self {
                    $(Self::$variant => $remedy,)*
                }
            }
        }
    };
}

kinds! {
    InvalidRequest "invalid_request" BAD_REQUEST InvalidParams
        "The request cannot be read" "Send what the API's description (/v1/openapi.json) says.";
    Unauthenticated "unauthenticated" UNAUTHORIZED Unauthenticated
        "No token" "Send the token of an operator as Authorization: Bearer.";
    TokenUnknown "token_unknown" UNAUTHORIZED TokenInvalid
        "Unknown token" "Ask an admin for a token of an operator; tokens of agents do not work here.";
    TokenExpired "token_expired" UNAUTHORIZED TokenExpired
        "Expired token" "Ask an admin for a new token.";
    Denied "denied" FORBIDDEN Denied
        "Not allowed" "Ask an admin for the role or the group that this needs.";
    NotFound "not_found" NOT_FOUND UnknownTarget
        "Not found" "Check kind, group and name; GET /v1/resources lists what is there.";
    UnknownPath "unknown_path" NOT_FOUND UnknownEndpoint
        "No such path" "Use a path of the API's description (/v1/openapi.json).";
    MethodNotAllowed "method_not_allowed" METHOD_NOT_ALLOWED MethodNotAllowed
        "No such method here" "Use a method of the API's description (/v1/openapi.json).";
    RequestTimeout "request_timeout" REQUEST_TIMEOUT RequestTimeout
        "The request took too long to arrive" "Send the whole body within the time limit.";
    Conflict "conflict" CONFLICT InvalidParams
        "The configuration has changed" "Look at what changed (diff), then send it again for the newest revision.";
    LastAdmin "last_admin" CONFLICT InvalidParams
        "The last admin stays" "Make another operator with the role admin for all groups first.";
    Full "full" CONFLICT InvalidParams
        "There is no room for more" "Delete what is no longer needed.";
    PreconditionFailed "precondition_failed" PRECONDITION_FAILED InvalidParams
        "The configuration has changed" "Look at what changed (diff), then send it again for the newest revision.";
    TooLarge "too_large" PAYLOAD_TOO_LARGE BodyTooLarge
        "Too large" "Send it in parts.";
    UnsupportedMediaType "unsupported_media_type" UNSUPPORTED_MEDIA_TYPE UnsupportedMediaType
        "Unknown content type" "Send Content-Type: application/yaml or application/json.";
    InvalidDocuments "invalid_documents" UNPROCESSABLE_ENTITY InvalidArguments
        "The documents have errors" "Mend every field that `errors` names; nothing was changed.";
    Busy "busy" SERVICE_UNAVAILABLE Overloaded
        "Others change the configuration at the same time" "Send it again shortly; nothing was changed.";
    Unavailable "unavailable" SERVICE_UNAVAILABLE Internal
        "The store is unavailable" "Try again shortly; look at the revision first if this was a change.";
    AuditFull "audit_full" SERVICE_UNAVAILABLE AuditFull
        "The audit trail takes no records" "Mend the audit sink; nothing is changed without a record.";
    Overloaded "overloaded" SERVICE_UNAVAILABLE Overloaded
        "Too many requests at a time" "Try again shortly.";
    Timeout "timeout" GATEWAY_TIMEOUT Internal
        "The answer took too long" "Look whether the change was made before sending it again.";
    Internal "internal" INTERNAL_SERVER_ERROR Internal
        "A fault of the control plane" "Its log has the details under the request id.";
}

impl Kind {
    /// The `type` member.
    pub fn uri(self) -> String {
        format!("urn:weir:problem:{}", self.label())
    }
}

/// A problem on its way out.
#[derive(Debug, Clone)]
pub struct Problem {
    /// What kind.
    pub kind: Kind,
    /// What exactly, for people.
    pub detail: Option<String>,
    /// Of fields.
    pub errors: Vec<FieldError>,
    /// The newest revision, where that matters.
    pub revision: Option<Revision>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    remedy: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<Revision>,
}

impl Problem {
    /// A problem of that kind, and what exactly.
    pub fn new(kind: Kind, detail: impl Into<String>) -> Self {
        Self { detail: Some(detail.into()), ..Self::from(kind) }
    }
}

impl From<Kind> for Problem {
    fn from(kind: Kind) -> Self {
        Self { kind, detail: None, errors: Vec::new(), revision: None }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = Body {
            r#type: self.kind.uri(),
            title: self.kind.title(),
            status: self.kind.status().as_u16(),
            detail: self.detail.as_deref(),
            remedy: self.kind.remedy(),
            errors: &self.errors,
            revision: self.revision,
        };
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let mut response = (self.kind.status(), body).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        match self.kind.status() {
            StatusCode::UNAUTHORIZED => {
                let challenge = HeaderValue::from_static("Bearer realm=\"weir operators\"");
                headers.insert(header::WWW_AUTHENTICATE, challenge);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            _ => {}
        }
        response.extensions_mut().insert(self.kind);
        response
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Conflict => Kind::Busy.into(),
            StoreError::TooLarge(why) => Self::new(Kind::TooLarge, why),
            StoreError::Unavailable(why) => {
                tracing::warn!(why, "the store is unavailable");
                Kind::Unavailable.into()
            }
            StoreError::Compacted(revision) => {
                let text = format!("the history no longer reaches back to revision {revision}");
                Self::new(Kind::NotFound, text)
            }
            error => {
                tracing::error!(%error, "the store failed");
                Kind::Internal.into()
            }
        }
    }
}

impl From<NoRandomness> for Problem {
    fn from(error: NoRandomness) -> Self {
        tracing::error!(%error, "no token can be made");
        Kind::Internal.into()
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Missing(key) => Self::new(Kind::NotFound, format!("there is no {key}")),
            Refused::TooLarge(why) => Self::new(Kind::TooLarge, why),
            Refused::Fields(errors) => Self::fields(errors),
        }
    }
}

impl Problem {
    /// Documents with errors.
    pub fn fields(errors: Vec<FieldError>) -> Self {
        let detail = match errors.len() {
            1 => "1 error".to_owned(),
            count => format!("{count} errors"),
        };
        Self { errors, ..Self::new(Kind::InvalidDocuments, detail) }
    }
}

impl From<AuthorError> for Problem {
    fn from(error: AuthorError) -> Self {
        match error {
            AuthorError::Refused(refused) => refused.into(),
            AuthorError::Moved { actual, .. } => {
                let problem = Self::new(Kind::Conflict, error.to_string());
                Self { revision: Some(actual), ..problem }
            }
            AuthorError::Busy => Kind::Busy.into(),
            AuthorError::Store(error) => error.into(),
            AuthorError::Vault(error) => {
                tracing::error!(%error, "the vault failed");
                Kind::Internal.into()
            }
            AuthorError::Aborted => Kind::Internal.into(),
        }
    }
}

impl From<KeyringError> for Problem {
    fn from(error: KeyringError) -> Self {
        match error {
            KeyringError::Store(error) => error.into(),
            error => {
                tracing::error!(%error, "the keyring cannot be changed");
                Kind::Internal.into()
            }
        }
    }
}

impl From<RevokeError> for Problem {
    fn from(error: RevokeError) -> Self {
        match error {
            RevokeError::Missing(_) => Self::new(Kind::NotFound, error.to_string()),
            RevokeError::Full(_) => Self::new(Kind::Full, error.to_string()),
            RevokeError::Fields(errors) => Self::fields(errors),
            RevokeError::Author(error) => error.into(),
        }
    }
}

impl From<OperatorError> for Problem {
    fn from(error: OperatorError) -> Self {
        match error {
            OperatorError::Unknown => Kind::TokenUnknown.into(),
            OperatorError::Expired => Kind::TokenExpired.into(),
            OperatorError::Denied(why) => Self::new(Kind::Denied, why),
            OperatorError::Missing(_) => Self::new(Kind::NotFound, error.to_string()),
            OperatorError::LastAdmin => Kind::LastAdmin.into(),
            OperatorError::Full => Self::new(Kind::Full, error.to_string()),
            OperatorError::NoRandomness(error) => error.into(),
            OperatorError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_every_kind_has_a_remedy() {
        let labels: std::collections::HashSet<_> = Kind::ALL.iter().map(|k| k.label()).collect();
        assert_eq!(labels.len(), Kind::ALL.len());
        assert!(Kind::ALL.iter().all(|kind| kind.remedy().ends_with('.')));
    }

    #[test]
    fn internals_of_the_store_stay_inside() {
        let secret = "etcd at http://10.0.0.7:2379 said no";
        for error in [
            StoreError::Unavailable(secret.to_owned()),
            StoreError::Corrupt(secret.to_owned()),
            StoreError::Malformed(secret.to_owned()),
        ] {
            assert_eq!(Problem::from(error).detail, None);
        }
    }
}
