//! What has to count everywhere in the sign-in of people, whichever proxy takes the next step.
//!
//! A sign-in is a row of **turns**: the authorization code is turn 0, each refresh token the next.
//! A turn is taken once, for the whole fleet: who takes it a second time has a copy, and the
//! sign-in ends. One exception: a client that never got the answer to a refresh may repeat it for
//! [`bounds::SIGN_IN_REPEAT_SECS`] and gets the same answer again. A copy that is used in that time
//! is found out at the turn after.
//!
//! Everything here is a pure function of what it is given; where the [`Turns`] of a sign-in are
//! kept is for others to say.

use serde::{Deserialize, Serialize};

use crate::bounds;
use crate::id::Name;

/// One turn of a sign-in, as one attempt takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    /// The sign-in.
    pub session: String,
    /// 0 for the code, then one more with each refresh.
    pub number: u64,
    /// Random: the same attempt may ask twice, when it did not hear the answer.
    pub attempt: String,
    /// When the sign-in ends, in seconds since the epoch.
    pub until: i64,
}

/// What a proxy wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To take a turn.
    Take(Turn),
    /// To undo that: nothing came of it, and the client should be able to try again.
    GiveBack(Turn),
    /// To keep what came of it, sealed, for the client's repeating it.
    Keep(Turn, String),
    /// To end what somebody had who signed out at the identity provider.
    SignedOut(SignedOut),
    /// To finish one trip of a browser to the identity provider, with turn 0 of a session that is
    /// the trip's own. A second time nothing is granted and nothing ends: people press buttons twice.
    Once(Turn),
}

/// Who signed out, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedOut {
    /// The identity provider's resource.
    pub provider: Name,
    /// What ends.
    pub what: Ended,
}

/// What ends with a sign-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// One session at the provider (`sid`).
    Session(String),
    /// Whatever was issued to somebody (`sub`) before a second.
    Subject {
        /// Who.
        id: String,
        /// Seconds since the epoch.
        before: i64,
    },
}

/// What is said to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is yours, or done.
    Granted,
    /// Somebody took it moments ago: what came of it, where that is known yet.
    Again(Option<String>),
    /// Somebody took it before, or the sign-in is over.
    Over,
}

/// The turns of one sign-in, as they are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Turns {
    /// The turn that nobody has taken yet.
    pub next: u64,
    /// Who took the one before.
    pub attempt: String,
    /// When, in seconds since the epoch.
    pub at: i64,
    /// When the sign-in ends: what is kept goes then.
    pub until: i64,
    /// A turn was taken twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub ended: bool,
}

/// What taking a turn comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Taken now, or by the same attempt before.
    Now,
    /// By somebody else moments ago.
    MomentsAgo,
    /// The sign-in is over.
    Over,
}

impl Turns {
    /// Takes a turn. Whoever keeps the turns writes them back where they changed.
    pub fn take(&mut self, turn: &Turn, now: i64) -> Taken {
        if self.ended || turn.until <= now {
            return Taken::Over;
        }
        // What is beyond the next turn was given out all the same: by a proxy that was alone, or
        // before these turns were lost.
        if turn.number >= self.next {
            self.next = turn.number.saturating_add(1);
            self.attempt.clone_from(&turn.attempt);
            self.at = now;
            self.until = self.until.max(turn.until);
            return Taken::Now;
        }
        let last = turn.number + 1 == self.next;
        if last && self.attempt == turn.attempt {
            return Taken::Now;
        }
        // A code is never good twice (RFC 6749, section 4.1.2).
        if last && turn.number > 0 && now - self.at <= bounds::SIGN_IN_REPEAT_SECS {
            return Taken::MomentsAgo;
        }
        self.ended = true;
        Taken::Over
    }

    /// Undoes the taking of a turn by the same attempt, while nobody took the next one.
    pub fn give_back(&mut self, turn: &Turn) {
        if turn.number + 1 == self.next && self.attempt == turn.attempt {
            self.next = turn.number;
            self.attempt.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turn(number: u64, attempt: &str) -> Turn {
        Turn { session: "s".to_owned(), number, attempt: attempt.to_owned(), until: 10_000 }
    }

    #[test]
    fn a_turn_is_taken_once() {
        let repeat = bounds::SIGN_IN_REPEAT_SECS;
        // number, attempt, time, what comes of it
        let steps = [
            (0, "a", 100, Taken::Now),
            (0, "a", 101, Taken::Now),
            (1, "b", 200, Taken::Now),
            (1, "c", 200 + repeat, Taken::MomentsAgo),
            (1, "b", 201 + repeat, Taken::Now),
            (2, "d", 300, Taken::Now),
            (7, "e", 400, Taken::Now),
            (7, "f", 401 + repeat, Taken::Over),
            (8, "g", 402 + repeat, Taken::Over),
        ];
        let mut turns = Turns::default();
        for (number, attempt, now, expect) in steps {
            assert_eq!(turns.take(&turn(number, attempt), now), expect, "{number} {attempt} {now}");
        }
        assert!(turns.ended);
        let mut code = Turns::default();
        assert_eq!(code.take(&turn(0, "a"), 100), Taken::Now);
        assert_eq!(code.take(&turn(0, "b"), 100), Taken::Over, "a code is never good twice");
        assert_eq!(Turns::default().take(&turn(0, "a"), 10_000), Taken::Over, "it has ended");
    }

    #[test]
    fn what_came_to_nothing_is_given_back() {
        let mut turns = Turns::default();
        turns.take(&turn(3, "a"), 100);
        turns.give_back(&turn(3, "b"));
        assert_eq!(turns.take(&turn(3, "c"), 101), Taken::MomentsAgo, "not theirs to give back");
        turns.give_back(&turn(3, "a"));
        assert_eq!(turns.take(&turn(3, "c"), 102), Taken::Now);
        turns.take(&turn(4, "d"), 103);
        turns.give_back(&turn(3, "c"));
        assert_eq!(turns.next, 5, "too late");
    }

    proptest! {
        /// However attempts come, each turn is granted to one of them at most, unless it was
        /// given back; and after a copy was found out nothing is granted any more.
        #[test]
        fn no_turn_is_granted_twice(steps in prop::collection::vec((0..4_u64, 0..6_u8, 0..40_i64, any::<bool>()), 1..60)) {
            let mut turns = Turns::default();
            let mut holders: std::collections::HashMap<u64, String> = Default::default();
            let mut now = 0;
            for (number, who, later, back) in steps {
                now += later;
                let turn = turn(number, &who.to_string());
                if back {
                    let before = turns.next;
                    turns.give_back(&turn);
                    if turns.next < before {
                        holders.remove(&number);
                    }
                    continue;
                }
                let ended = turns.ended;
                if turns.take(&turn, now) == Taken::Now {
                    prop_assert!(!ended);
                    let holder = holders.entry(number).or_insert_with(|| who.to_string());
                    prop_assert_eq!(&*holder, &who.to_string());
                }
            }
        }
    }
}
