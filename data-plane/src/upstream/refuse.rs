//! Refusals of the back edge, each with a detail for our logs only.

use weir_model::reason::{Reason, Refusal};

/// No connection, or the server is not there at all.
pub(crate) fn unreachable(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::UpstreamUnreachable, detail)
}

/// The connection, stream or child ended before the answer.
pub(crate) fn closed(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::UpstreamClosed, detail)
}

/// What came is not what the protocol allows.
pub(crate) fn protocol(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::UpstreamProtocol, detail)
}

/// The deadline passed.
pub(crate) fn timeout(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::UpstreamTimeout, detail)
}

/// The server refused the gateway's credential.
pub(crate) fn refused(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::UpstreamRefused, detail)
}

/// The session of a transparent client is gone.
pub(crate) fn session_unknown(detail: impl Into<String>) -> Refusal {
    Refusal::new(Reason::SessionUnknown, detail)
}
