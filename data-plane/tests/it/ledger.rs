//! The ledger of sign-ins as the control plane keeps it, in the process of the test: proxies that
//! share one are of one fleet.

use std::collections::HashMap;

use async_trait::async_trait;
use data_plane::authorization::ledger::{Ledger, Unreachable};
use parking_lot::Mutex;
use weir_model::id::Name;
use weir_model::sign_in::{Step, Taken, Turn, Turns, Verdict};

#[derive(Debug, Default)]
pub struct Shared(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    turns: HashMap<(Name, String), Turns>,
    answers: HashMap<(Name, String), (u64, String)>,
    signed_out: Vec<Step>,
    away: bool,
    later: i64,
}

impl Shared {
    /// Nobody answers any more, or again.
    pub fn away(&self, away: bool) {
        self.0.lock().away = away;
    }

    /// Seconds pass.
    pub fn pass(&self, secs: i64) {
        self.0.lock().later += secs;
    }

    /// Who was said to have signed out.
    pub fn signed_out(&self) -> Vec<Step> {
        self.0.lock().signed_out.clone()
    }
}

#[async_trait]
impl Ledger for Shared {
    async fn step(&self, group: &Name, step: Step) -> Result<Verdict, Unreachable> {
        let mut kept = self.0.lock();
        if kept.away {
            return Err(Unreachable("away".to_owned()));
        }
        let now = jiff::Timestamp::now().as_second() + kept.later;
        let key = |turn: &Turn| (group.clone(), turn.session.clone());
        Ok(match step {
            Step::Take(turn) => match kept.turns.entry(key(&turn)).or_default().take(&turn, now) {
                Taken::Now => Verdict::Granted,
                Taken::MomentsAgo => {
                    let answer = kept.answers.get(&key(&turn));
                    let answer = answer.filter(|(number, _)| *number == turn.number);
                    Verdict::Again(answer.map(|(_, answer)| answer.clone()))
                }
                Taken::Over => Verdict::Over,
            },
            Step::Once(turn) => match kept.turns.entry(key(&turn)).or_default().take(&turn, now) {
                Taken::Now => Verdict::Granted,
                Taken::MomentsAgo | Taken::Over => Verdict::Over,
            },
            Step::GiveBack(turn) => {
                kept.turns.entry(key(&turn)).or_default().give_back(&turn);
                Verdict::Granted
            }
            Step::Keep(turn, answer) => {
                kept.answers.insert(key(&turn), (turn.number, answer));
                Verdict::Granted
            }
            out @ Step::SignedOut(_) => {
                kept.signed_out.push(out);
                Verdict::Granted
            }
        })
    }
}
