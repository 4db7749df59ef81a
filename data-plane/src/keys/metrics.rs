//! What is measured about tokens and keys. Labels are closed sets: no issuer, no key id.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use weir_runtime::metrics::Metrics;

/// Counters of tokens and key fetches. The default counts for nobody.
#[derive(Debug, Clone, Default)]
pub struct KeyMetrics {
    tokens: Family<TokenLabels, Counter>,
    fetches: Family<FetchLabels, Counter>,
}

/// How a JWT was judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum TokenResult {
    /// Known to be good.
    Cached,
    /// Found to be good.
    Verified,
    /// Known to be bad.
    CachedRefusal,
    /// Found to be bad.
    Refused,
}

/// How a fetch from an issuer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(super) enum FetchResult {
    /// The same keys as before.
    Same,
    /// Other keys than before.
    Changed,
    /// Nothing usable; the last good keys stay.
    Failed,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    result: TokenResult,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FetchLabels {
    result: FetchResult,
}

impl KeyMetrics {
    /// Registers what is measured.
    pub fn register(metrics: &Metrics) -> Self {
        Self {
            tokens: metrics.register(
                "tokens",
                "JWTs of callers by how they were judged; a high share of Verified means that \
                 clients do not reuse their tokens",
                Family::default(),
            ),
            fetches: metrics.register(
                "issuer_key_fetches",
                "Fetches of issuers' keys by how they ended",
                Family::default(),
            ),
        }
    }

    pub(super) fn token(&self, result: TokenResult) {
        self.tokens.get_or_create(&TokenLabels { result }).inc();
    }

    pub(super) fn fetch(&self, result: FetchResult) {
        self.fetches.get_or_create(&FetchLabels { result }).inc();
    }
}
