//! The turns of everybody's sign-in, for the whole fleet: which code and which refresh token was
//! used already, whichever proxy it was shown to. And the end of what somebody had who signed out
//! at an identity provider.
//!
//! What a turn is, and when it is granted, [`weir_model::sign_in`] tells. The turns of a sign-in
//! are one small entry under `state/sign-ins/`, changed by transactions that are guarded by its
//! revision, so any replica answers and none grants what another has granted. What came of a
//! refresh is kept sealed, as the proxy sent it, under `state/sign-in-answers/` for as long as a
//! client may repeat itself. Entries go when their sign-in has ended; there are at most
//! [`bounds::SIGN_IN_RECORDS_MAX`].
//!
//! A turn that was taken twice ends the sign-in: a revocation of its session goes to every proxy,
//! so that the access tokens of both holders end too. A browser's trip to the identity provider is an
//! entry of the same sort with nothing but turn 0; who comes back a second time is told so, no more.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_model::id::{Name, Revision};
use weir_model::resource::{Kind, ResourceKey, Revocation, Revoked, RevokedPrincipal};
use weir_model::sign_in::{Ended, SignedOut, Step, Taken, Turn, Turns, Verdict};
use weir_runtime::clock::SharedClock;
use weir_runtime::drain::Watch;

use crate::author::Author;
use crate::revoke::{self, RevokeError, Withdrawn, said};
use crate::store::{Entry, Guard, Op, Store, StoreError};

const TURNS: &str = "state/sign-ins/";
const ANSWERS: &str = "state/sign-in-answers/";
/// Times that a transaction is tried when other replicas are faster.
const TRIES_MAX: usize = 8;
/// Longest life of a sign-in, whatever a proxy says.
const LIFE_SECS_MAX: i64 = 31 * 86_400;
/// Between two looks at answers that nobody may ask for any more.
const SWEEP: Duration = Duration::from_secs(15);
/// Every how many of these the ended sign-ins are looked for as well.
const TURNS_EVERY: u32 = 40;
/// Entries that one transaction removes.
const PER_COMMIT: usize = 50;

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum SignInError {
    /// It cannot be what a proxy means.
    #[error("{0}")]
    Bad(&'static str),
    /// There are too many sign-ins.
    #[error("{} sign-ins, more are not possible", bounds::SIGN_IN_RECORDS_MAX)]
    Full,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What ended could not be revoked.
    #[error(transparent)]
    Revoke(#[from] RevokeError),
}

/// What came of a step.
#[derive(Debug)]
pub struct Done {
    /// For the proxy.
    pub verdict: Verdict,
    /// What was revoked with it, and the words for the trail.
    pub withdrawn: Option<(Withdrawn, String)>,
}

impl From<Verdict> for Done {
    fn from(verdict: Verdict) -> Self {
        Self { verdict, withdrawn: None }
    }
}

/// What came of a refresh.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    number: u64,
    at: i64,
    answer: String,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub struct SignIns {
    store: Arc<dyn Store>,
    author: Author,
    clock: SharedClock,
    /// As of the last look.
    have: Arc<AtomicUsize>,
}

impl std::fmt::Debug for SignIns {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIns").finish_non_exhaustive()
    }
}

impl SignIns {
    /// Over a store and the author of its documents.
    pub fn new(store: Arc<dyn Store>, author: Author, clock: SharedClock) -> Self {
        Self { store, author, clock, have: Arc::default() }
    }

    /// Takes one step of somebody's sign-in in a group.
    ///
    /// # Errors
    /// See [`SignInError`]. Whoever hears one does not know whether the step was taken, and may
    /// ask again with the same attempt.
    pub async fn step(&self, group: &Name, step: Step) -> Result<Done, SignInError> {
        if let Some(bad) = bad(&step) {
            return Err(SignInError::Bad(bad));
        }
        self.known(group, &step)?;
        match step {
            Step::Take(turn) => self.take(group, &turn).await,
            Step::GiveBack(turn) => self.give_back(group, &turn).await.map(Done::from),
            Step::Keep(turn, answer) => self.keep(group, &turn, answer).await.map(Done::from),
            Step::SignedOut(out) => self.signed_out(group, out).await,
            Step::Once(turn) => match self.taken(group, &turn).await?.0 {
                Taken::Now => Ok(Verdict::Granted.into()),
                Taken::MomentsAgo | Taken::Over => Ok(Verdict::Over.into()),
            },
        }
    }

    /// A proxy speaks for groups that there are, and for providers of theirs.
    fn known(&self, group: &Name, step: &Step) -> Result<(), SignInError> {
        let newest = self.author.newest();
        let set = &newest.borrow().set;
        if set.get(&ResourceKey::global(Kind::Group, group.as_str())).is_none() {
            return Err(SignInError::Bad("there is no such group"));
        }
        if let Step::SignedOut(out) = step {
            let provider = out.provider.as_str();
            let key = ResourceKey::grouped(Kind::IdentityProvider, group, provider);
            if set.get(&key).is_none() {
                return Err(SignInError::Bad("the group has no such identity provider"));
            }
        }
        Ok(())
    }

    async fn take(&self, group: &Name, turn: &Turn) -> Result<Done, SignInError> {
        match self.taken(group, turn).await? {
            (Taken::Now, _) => Ok(Verdict::Granted.into()),
            (Taken::MomentsAgo, _) => {
                let answer = self.answer(group, turn).await?;
                Ok(Verdict::Again(answer).into())
            }
            (Taken::Over, true) => self.copied(group, turn).await,
            (Taken::Over, false) => Ok(Verdict::Over.into()),
        }
    }

    /// What taking a turn comes to, and whether that found out that it was taken twice.
    async fn taken(&self, group: &Name, turn: &Turn) -> Result<(Taken, bool), SignInError> {
        let key = path(TURNS, group, &turn.session);
        let now = self.now();
        let turn = Turn { until: turn.until.min(now + LIFE_SECS_MAX), ..turn.clone() };
        for _ in 0..TRIES_MAX {
            let (before, revision) = self.turns(&key).await?;
            if revision.0 == 0 && self.have.load(Ordering::Relaxed) >= bounds::SIGN_IN_RECORDS_MAX {
                return Err(SignInError::Full);
            }
            let mut after = before.clone();
            let taken = after.take(&turn, now);
            if after != before && !self.put(&key, revision, &after).await? {
                continue;
            }
            if revision.0 == 0 {
                self.have.fetch_add(1, Ordering::Relaxed);
            }
            return Ok((taken, after.ended && !before.ended));
        }
        Err(StoreError::Conflict.into())
    }

    /// Ends a sign-in for good, if it is one: a revocation of its session ends sooner than its
    /// refresh tokens would.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn end(&self, group: &Name, session: &str) -> Result<(), StoreError> {
        let key = path(TURNS, group, session);
        for _ in 0..TRIES_MAX {
            let (turns, revision) = self.turns(&key).await?;
            if revision.0 == 0 || turns.ended {
                return Ok(());
            }
            if self.put(&key, revision, &Turns { ended: true, ..turns }).await? {
                return Ok(());
            }
        }
        Err(StoreError::Conflict)
    }

    /// Ends what both holders of a copied code or refresh token have.
    async fn copied(&self, group: &Name, turn: &Turn) -> Result<Done, SignInError> {
        tracing::warn!(
            %group, session = turn.session, turn = turn.number,
            "a code or refresh token was used twice: the sign-in is ended"
        );
        let until = turn.until.min(self.now() + bounds::SIGNED_OUT_SECS);
        let what = Revoked::Session(turn.session.clone());
        let because = "a code or refresh token of this sign-in was used twice";
        match self.revoke(group, (what, until), because).await {
            Ok(withdrawn) => Ok(Done { verdict: Verdict::Over, withdrawn: Some(withdrawn) }),
            // It is refreshed no more; what is left ends within the life of an access token.
            Err(error) => {
                tracing::error!(%group, session = turn.session, %error, "it could not be revoked");
                Ok(Verdict::Over.into())
            }
        }
    }

    async fn give_back(&self, group: &Name, turn: &Turn) -> Result<Verdict, SignInError> {
        let key = path(TURNS, group, &turn.session);
        for _ in 0..TRIES_MAX {
            let (before, revision) = self.turns(&key).await?;
            let mut after = before.clone();
            after.give_back(turn);
            if after == before || self.put(&key, revision, &after).await? {
                return Ok(Verdict::Granted);
            }
        }
        Err(StoreError::Conflict.into())
    }

    async fn keep(
        &self,
        group: &Name,
        turn: &Turn,
        answer: String,
    ) -> Result<Verdict, SignInError> {
        let (turns, _) = self.turns(&path(TURNS, group, &turn.session)).await?;
        if turn.number + 1 == turns.next && turn.attempt == turns.attempt {
            let answer = Answer { number: turn.number, at: self.now(), answer };
            let put = Op::Put(path(ANSWERS, group, &turn.session), json(&answer)?.into());
            self.store.commit(Vec::new(), vec![put]).await?;
        }
        Ok(Verdict::Granted)
    }

    async fn answer(&self, group: &Name, turn: &Turn) -> Result<Option<String>, SignInError> {
        let entry = self.store.get(&path(ANSWERS, group, &turn.session)).await?;
        let answer = entry.as_ref().map(read::<Answer>).transpose()?;
        Ok(answer.filter(|answer| answer.number == turn.number).map(|answer| answer.answer))
    }

    async fn signed_out(&self, group: &Name, out: SignedOut) -> Result<Done, SignInError> {
        let what = match out.what {
            Ended::Session(session) => Revoked::Session(session),
            Ended::Subject { id, before } => Revoked::Principal(RevokedPrincipal {
                id: format!("jwt:{}:{id}", out.provider),
                issued_before: Some(before.min(self.now() + 300)),
            }),
        };
        let until = self.now() + bounds::SIGNED_OUT_SECS;
        let because = format!("signed out at {}", out.provider);
        let withdrawn = self.revoke(group, (what, until), &because).await?;
        Ok(Done { verdict: Verdict::Granted, withdrawn: Some(withdrawn) })
    }

    async fn revoke(
        &self,
        group: &Name,
        (what, until): (Revoked, i64),
        because: &str,
    ) -> Result<(Withdrawn, String), RevokeError> {
        let words = said(&what);
        let because = Some(because.to_owned());
        let revocation = Revocation { what, expires: Some(until), because };
        let withdrawn = revoke::revoke(&self.author, group, revocation, self.now()).await?;
        Ok((withdrawn, words))
    }

    async fn turns(&self, key: &str) -> Result<(Turns, Revision), StoreError> {
        match self.store.get(key).await? {
            Some(entry) => Ok((read(&entry)?, entry.revision)),
            None => Ok((Turns::default(), Revision(0))),
        }
    }

    /// False when somebody else was faster.
    async fn put(&self, key: &str, revision: Revision, turns: &Turns) -> Result<bool, StoreError> {
        let guard = Guard { key: key.to_owned(), revision };
        let put = Op::Put(key.to_owned(), json(turns)?.into());
        match self.store.commit(vec![guard], vec![put]).await {
            Ok(_) => Ok(true),
            Err(StoreError::Conflict) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn now(&self) -> i64 {
        i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX)
    }

    /// Clears away what is over, until the drain.
    pub async fn run(self, drain: Watch) {
        let mut tick = tokio::time::interval(SWEEP);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut turn = 0_u32;
        loop {
            tokio::select! {
                _ = tick.tick() => {}
                () = drain.drained() => return,
            }
            if let Err(error) = self.sweep(turn.is_multiple_of(TURNS_EVERY)).await {
                tracing::debug!(%error, "sign-ins that are over could not be cleared away");
            }
            turn = turn.wrapping_add(1);
        }
    }

    /// Clears away answers that nobody may ask for any more; with `turns`, sign-ins that have
    /// ended as well.
    ///
    /// # Errors
    /// Those of the store; what is left over is found by the next sweep.
    pub async fn sweep(&self, turns: bool) -> Result<(), StoreError> {
        let now = self.now();
        let late = |entry: &Entry| {
            read::<Answer>(entry).map_or(true, |a| now - a.at > bounds::SIGN_IN_REPEAT_SECS)
        };
        let entries = self.store.list(ANSWERS).await?.entries;
        self.remove(entries.into_iter().filter(late).collect()).await?;
        if turns {
            let entries = self.store.list(TURNS).await?.entries;
            let all = entries.len();
            let over = |entry: &Entry| read::<Turns>(entry).map_or(true, |t| t.until <= now);
            let over: Vec<Entry> = entries.into_iter().filter(over).collect();
            self.have.store(all - over.len(), Ordering::Relaxed);
            self.remove(over).await?;
        }
        Ok(())
    }

    async fn remove(&self, entries: Vec<Entry>) -> Result<(), StoreError> {
        for chunk in entries.chunks(PER_COMMIT) {
            let guard = |e: &Entry| Guard { key: e.key.clone(), revision: e.revision };
            let guards = chunk.iter().map(guard).collect();
            let ops = chunk.iter().map(|entry| Op::Delete(entry.key.clone())).collect();
            match self.store.commit(guards, ops).await {
                Ok(_) | Err(StoreError::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn path(prefix: &str, group: &Name, session: &str) -> String {
    format!("{prefix}{group}/{session}")
}

fn json(value: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(|error| StoreError::Corrupt(error.to_string()))
}

fn read<T: serde::de::DeserializeOwned>(entry: &Entry) -> Result<T, StoreError> {
    serde_json::from_slice(&entry.value)
        .map_err(|error| StoreError::Corrupt(format!("{}: {error}", entry.key)))
}

/// What is wrong with a step.
fn bad(step: &Step) -> Option<&'static str> {
    let turn = |turn: &Turn| {
        // It is a part of a path in the store.
        let word = |text: &str| {
            let fine = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
            !text.is_empty() && text.len() <= 64 && text.bytes().all(fine)
        };
        (!word(&turn.session) || !word(&turn.attempt)).then_some("ids are 1 to 64 of A-Za-z0-9_-")
    };
    let id = |text: &str| {
        let fine = !text.is_empty() && text.len() <= bounds::SIGN_IN_ID_BYTES_MAX;
        (!fine).then_some("an id that is empty or too long")
    };
    match step {
        Step::Take(of) | Step::GiveBack(of) | Step::Once(of) => turn(of),
        Step::Keep(of, answer) => {
            let long = answer.len() > bounds::SIGN_IN_ANSWER_BYTES_MAX;
            turn(of).or(long.then_some("the answer is too long"))
        }
        Step::SignedOut(out) => match &out.what {
            Ended::Session(session) => id(session),
            Ended::Subject { id: subject, .. } => id(subject),
        },
    }
}

#[cfg(test)]
mod tests;
