//! Decisions that were made before.
//!
//! Role grants are decided faster than a cache could be asked, so only questions that a Cedar
//! policy concerns come here. The key covers everything that a decision can depend on but
//! arguments and context; a decision that reads those is made anew for each call. A change of the
//! rules changes their digest, so that old decisions are never found again; nothing is purged.

use std::sync::Arc;

use moka::sync::Cache;
use prometheus_client::metrics::counter::Counter;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::policy::{Decision, Question, Rules};

/// The cache. One per proxy.
#[derive(Debug)]
pub struct Decisions {
    cache: Cache<Digest, Remembered>,
    counts: Counts,
}

#[derive(Debug, Clone)]
enum Remembered {
    Answer(Arc<Decision>),
    /// The answer may differ the next time.
    DecideAgain,
}

/// How questions were answered.
#[derive(Debug, Clone, Default)]
struct Counts {
    roles: Counter,
    hits: Counter,
    misses: Counter,
    per_call: Counter,
}

/// Numbers of [`Decisions`] for tests and the status page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionCounts {
    /// By roles alone.
    pub roles: u64,
    /// From the cache.
    pub hits: u64,
    /// By evaluation, to be remembered.
    pub misses: u64,
    /// By evaluation, since the answer depends on arguments or context.
    pub per_call: u64,
}

impl Default for Decisions {
    fn default() -> Self {
        Self::with_capacity(bounds::DECISIONS_MAX)
    }
}

impl Decisions {
    /// A cache of that many decisions.
    pub fn with_capacity(entries: u64) -> Self {
        Self { cache: Cache::new(entries), counts: Counts::default() }
    }

    /// Shows the counts in a registry.
    pub fn register(&self, metrics: &weir_runtime::metrics::Metrics) {
        let counts = &self.counts;
        let all = [
            ("decisions_by_roles", "Decisions made by roles alone", &counts.roles),
            ("decisions_cached", "Decisions found in the cache", &counts.hits),
            ("decisions_evaluated", "Decisions evaluated and remembered", &counts.misses),
            (
                "decisions_per_call",
                "Decisions that depend on arguments or context",
                &counts.per_call,
            ),
        ];
        for (name, help, counter) in all {
            metrics.register(name, help, counter.clone());
        }
    }

    /// The counts so far.
    pub fn counts(&self) -> DecisionCounts {
        DecisionCounts {
            roles: self.counts.roles.get(),
            hits: self.counts.hits.get(),
            misses: self.counts.misses.get(),
            per_call: self.counts.per_call.get(),
        }
    }

    /// Answers like [`Rules::decide`].
    pub fn decide(&self, rules: &Rules, question: &Question<'_>) -> Arc<Decision> {
        if !rules.evaluates(question) {
            self.counts.roles.inc();
            return Arc::new(rules.decide(question));
        }
        let key = key(rules, question);
        match self.cache.get(&key) {
            Some(Remembered::Answer(decision)) => {
                self.counts.hits.inc();
                return decision;
            }
            Some(Remembered::DecideAgain) => {
                self.counts.per_call.inc();
                return Arc::new(rules.decide(question));
            }
            None => {}
        }
        let decision = Arc::new(rules.decide(question));
        // Open arguments are not read: the rules put a rewritten question.
        let reads_arguments = decision.reads_arguments && question.arguments.is_some();
        if reads_arguments || decision.reads_context {
            self.counts.per_call.inc();
            self.cache.insert(key, Remembered::DecideAgain);
        } else {
            self.counts.misses.inc();
            self.cache.insert(key, Remembered::Answer(Arc::clone(&decision)));
        }
        decision
    }
}

/// Over everything that a decision can depend on, arguments and context apart.
fn key(rules: &Rules, question: &Question<'_>) -> Digest {
    let hints = question.hints;
    let flags = [
        question.action as u8,
        u8::from(question.arguments.is_none()),
        u8::from(hints.read_only),
        u8::from(hints.destructive),
        u8::from(hints.idempotent),
        u8::from(hints.open_world),
    ];
    let server = question.server.as_str().as_bytes();
    let size = (server.len() as u64).to_be_bytes();
    Digest::of_parts(&[
        &rules.digest.0,
        &question.principal.digest().0,
        &flags,
        &size,
        server,
        question.target.as_bytes(),
    ])
}
