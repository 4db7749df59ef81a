//! What etcd's errors mean to us. Two of them share one code and are told apart by their text.

use etcd_client::Error;
use tonic::Code;
use weir_model::id::Revision;

use crate::store::StoreError;

/// How one attempt failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another member, or the same one later, may answer. The attempt may have been applied.
    Again(String),
    /// The revision asked for is gone.
    Compacted,
    /// The answer exceeds what one message may hold; ask for less.
    AnswerTooLong,
    /// The lease that a mark was to hang on is gone; nothing was applied.
    LeaseGone,
    /// No attempt will do better.
    Store(StoreError),
}

impl Failure {
    pub(super) fn of(error: &Error) -> Self {
        match error {
            Error::GRpcStatus(status) => Self::of_status(status.code(), status.message()),
            Error::TransportError(_) | Error::IoError(_) | Error::WatchError(_) => {
                Self::Again(chain(error))
            }
            Error::InvalidArgs(_) | Error::InvalidUri(_) => {
                Self::Store(StoreError::Malformed(error.to_string()))
            }
            other => Self::Store(StoreError::Unavailable(chain(other))),
        }
    }

    fn of_status(code: Code, text: &str) -> Self {
        let unavailable = |why: &str| Self::Store(StoreError::Unavailable(why.to_owned()));
        match code {
            Code::OutOfRange if text.contains("compacted") => Self::Compacted,
            Code::OutOfRange if text.contains("message length too large") => Self::AnswerTooLong,
            Code::NotFound if text.contains("lease not found") => Self::LeaseGone,
            Code::InvalidArgument if text.contains("too many operations") => {
                Self::Store(StoreError::TooLarge(text.to_owned()))
            }
            Code::InvalidArgument if text.contains("request is too large") => {
                Self::Store(StoreError::TooLarge(text.to_owned()))
            }
            Code::InvalidArgument if text.contains("auth") => unavailable(&refused(text)),
            Code::InvalidArgument => Self::Store(StoreError::Malformed(text.to_owned())),
            Code::ResourceExhausted if text.contains("space exceeded") => unavailable(
                "etcd is out of space: compact and defragment it, or raise its quota, and disarm \
                 the alarm",
            ),
            Code::ResourceExhausted if text.contains("too many requests") => {
                Self::Again(text.to_owned())
            }
            Code::ResourceExhausted => Self::Store(StoreError::TooLarge(text.to_owned())),
            Code::Unauthenticated | Code::PermissionDenied | Code::FailedPrecondition => {
                unavailable(&refused(text))
            }
            Code::Unavailable
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Unknown
            | Code::Internal
            | Code::Aborted => Self::Again(format!("{code:?}: {text}")),
            code => unavailable(&format!("{code:?}: {text}")),
        }
    }

    /// For the caller of the store, who asked at `revision`.
    pub(super) fn into_store(self, revision: Revision) -> StoreError {
        match self {
            Self::Again(text) => StoreError::Unavailable(text),
            Self::Compacted => StoreError::Compacted(revision),
            Self::AnswerTooLong => {
                StoreError::Corrupt("an entry is larger than a transaction may be".to_owned())
            }
            Self::LeaseGone => StoreError::Unavailable("a lease ran out".to_owned()),
            Self::Store(error) => error,
        }
    }
}

fn refused(text: &str) -> String {
    format!("etcd refuses the control plane's user or certificate: {text}")
}

fn chain(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_with_two_meanings_are_told_apart() {
        let of = |code, text| Failure::of_status(code, text);
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        let long = "Error, decoded message length too large: found 9 bytes, the limit is: 4 bytes";
        assert!(matches!(of(Code::OutOfRange, compacted), Failure::Compacted));
        assert!(matches!(of(Code::OutOfRange, long), Failure::AnswerTooLong));
        assert!(matches!(
            of(Code::ResourceExhausted, "trying to send message larger than max"),
            Failure::Store(StoreError::TooLarge(_))
        ));
        assert!(matches!(of(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded"),
            Failure::Store(StoreError::Unavailable(why)) if why.contains("defragment")));
        assert!(matches!(of(Code::Unavailable, "etcdserver: no leader"), Failure::Again(_)));
        assert!(matches!(
            of(Code::Unauthenticated, "invalid auth token"),
            Failure::Store(StoreError::Unavailable(_))
        ));
    }
}
