//! Decisions that were made before.
//!
//! Role grants are decided faster than a cache could be asked, so only questions that a Cedar
//! policy concerns come here. The key covers everything that a decision can depend on but
//! arguments and context. What is kept is the decision, or, where arguments or context have a say,
//! what is left to find out about them ([`Residual`]): finished for each call. A change of the
//! rules changes their digest, so that old decisions are never found again; nothing is purged.

mod key;

use std::sync::Arc;

use moka::sync::Cache;
use prometheus_client::metrics::counter::Counter;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::policy::{Decision, Question, Residual, Rules};

use key::{Asked, Key};

/// The cache. One per proxy.
#[derive(Debug)]
pub struct Decisions {
    cache: Cache<Key, Remembered>,
    counts: Counts,
}

#[derive(Debug, Clone)]
enum Remembered {
    Answer(Arc<Decision>),
    /// The answer may differ the next time; this much of it is known.
    Open(Arc<Residual>),
    /// The answer may differ the next time, and only Cedar can tell.
    DecideAgain,
}

/// How questions were answered.
#[derive(Debug, Clone, Default)]
struct Counts {
    roles: Counter,
    hits: Counter,
    finished: Counter,
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
    /// From the cache, with the arguments and the context of the call.
    pub finished: u64,
    /// By evaluation, to be remembered.
    pub misses: u64,
    /// By evaluation each time, since the policies need Cedar and read arguments or context.
    pub per_call: u64,
}

impl Default for Decisions {
    fn default() -> Self {
        Self::with_capacity(bounds::DECISIONS_MAX)
    }
}

impl Decisions {
    /// A cache of that many decisions; larger residuals count as several.
    pub fn with_capacity(entries: u64) -> Self {
        let weigh = |_: &Key, kept: &Remembered| match kept {
            Remembered::Open(residual) => {
                u32::try_from(1 + residual.size() / RESIDUAL_UNIT).unwrap_or(u32::MAX)
            }
            Remembered::Answer(_) | Remembered::DecideAgain => 1,
        };
        let cache = Cache::builder().max_capacity(entries).weigher(weigh).build();
        Self { cache, counts: Counts::default() }
    }

    /// Shows the counts in a registry.
    pub fn register(&self, metrics: &weir_runtime::metrics::Metrics) {
        let counts = &self.counts;
        let all = [
            ("decisions_by_roles", "Decisions made by roles alone", &counts.roles),
            ("decisions_cached", "Decisions found in the cache", &counts.hits),
            (
                "decisions_finished",
                "Decisions found in the cache but for arguments and context",
                &counts.finished,
            ),
            ("decisions_evaluated", "Decisions evaluated and remembered", &counts.misses),
            ("decisions_per_call", "Decisions that cannot be remembered", &counts.per_call),
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
            finished: self.counts.finished.get(),
            misses: self.counts.misses.get(),
            per_call: self.counts.per_call.get(),
        }
    }

    /// Answers like [`Rules::decide`]. `who` is the digest of the question's principal, which
    /// costs more than the rest of the look-up, so that it is computed once per request.
    pub fn decide(&self, rules: &Rules, question: &Question<'_>, who: &Digest) -> Arc<Decision> {
        if !rules.evaluates(question) {
            self.counts.roles.inc();
            return Arc::new(rules.decide(question));
        }
        let asked = Asked::new(rules, question, who);
        match self.cache.get(&asked) {
            Some(Remembered::Answer(decision)) => {
                self.counts.hits.inc();
                return decision;
            }
            Some(Remembered::Open(residual)) => {
                self.counts.finished.inc();
                return Arc::new(rules.finish(&residual, question));
            }
            Some(Remembered::DecideAgain) => {
                self.counts.per_call.inc();
                return Arc::new(rules.decide(question));
            }
            None => {}
        }
        let (decision, kept) = decide(rules, question);
        let again = matches!(kept, Remembered::DecideAgain);
        if again {
            self.counts.per_call.inc()
        } else {
            self.counts.misses.inc()
        };
        self.cache.insert(asked.keep(), kept);
        decision
    }
}

/// Parts of conditions that take as much memory as a decision.
const RESIDUAL_UNIT: usize = 16;

fn decide(rules: &Rules, question: &Question<'_>) -> (Arc<Decision>, Remembered) {
    if let Some(residual) = rules.residual(question) {
        let decision = Arc::new(rules.finish(&residual, question));
        let kept = match residual.is_closed() {
            true => Remembered::Answer(Arc::clone(&decision)),
            false => Remembered::Open(Arc::new(residual)),
        };
        return (decision, kept);
    }
    let decision = Arc::new(rules.decide(question));
    // Open arguments are not read: the rules put a rewritten question.
    let reads_arguments = decision.reads_arguments && question.arguments.is_some();
    let kept = match reads_arguments || decision.reads_context {
        true => Remembered::DecideAgain,
        false => Remembered::Answer(Arc::clone(&decision)),
    };
    (decision, kept)
}
