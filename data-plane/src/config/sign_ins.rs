//! Asks the control plane for the turns of people's sign-ins. Any replica will do; each is asked
//! once before the proxy gives up.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use parking_lot::Mutex;
use weir_model::bounds;
use weir_model::id::Name;
use weir_model::sign_in::{Ended, Step, Turn, Verdict};
use weir_proto::sync::v1;
use weir_proto::sync::v1::sign_in_request::Step as Wire;
use weir_proto::sync::v1::sign_in_response::Verdict as Said;
use weir_proto::sync::v1::signed_out::What;

use super::{Identity, Options, link};
use crate::authorization::ledger::{Ledger, Unreachable};

/// See the module.
#[derive(Debug)]
pub(super) struct Remote {
    options: Options,
    identity: Arc<ArcSwap<Identity>>,
    /// The connection that answered last, and whose it is.
    client: Mutex<Option<link::Client>>,
    at: AtomicUsize,
}

impl Remote {
    pub(super) fn new(options: Options, identity: Arc<ArcSwap<Identity>>) -> Self {
        Self { options, identity, client: Mutex::default(), at: AtomicUsize::new(0) }
    }

    /// Asks the replica that answered last, or the next one.
    async fn ask(&self, request: v1::SignInRequest) -> Result<Verdict, tonic::Status> {
        let kept = self.client.lock().clone();
        let mut client = match kept {
            Some(client) => client,
            None => self.connect().await.map_err(tonic::Status::unavailable)?,
        };
        let mut request = tonic::Request::new(request);
        request.set_timeout(Duration::from_millis(bounds::SIGN_IN_CALL_MS));
        let answer = client.sign_in(request).await;
        *self.client.lock() = answer.is_ok().then_some(client);
        let v1::SignInResponse { verdict, answer } = answer?.into_inner();
        match Said::try_from(verdict) {
            Ok(Said::Granted) => Ok(Verdict::Granted),
            Ok(Said::Again) => Ok(Verdict::Again(Some(answer).filter(|text| !text.is_empty()))),
            // What a newer control plane says and we do not understand grants nothing.
            Ok(Said::Over | Said::Unspecified) | Err(_) => Ok(Verdict::Over),
        }
    }

    async fn connect(&self) -> Result<link::Client, String> {
        let next = self.at.fetch_add(1, Ordering::Relaxed);
        let endpoints = &self.options.endpoints;
        let endpoint = endpoints.get(next % endpoints.len().max(1)).ok_or("no control plane")?;
        let tls = self.identity.load().tls().map_err(|error| error.to_string())?;
        let limit = Duration::from_millis(bounds::SIGN_IN_CALL_MS);
        let connected = tokio::time::timeout(limit, link::connect(endpoint, tls)).await;
        connected.map_err(|_| format!("{endpoint} does not answer"))?
    }
}

#[async_trait]
impl Ledger for Remote {
    async fn step(&self, group: &Name, step: Step) -> Result<Verdict, Unreachable> {
        let request = v1::SignInRequest { group: group.to_string(), step: Some(wire(step)) };
        let mut why = String::new();
        // One time more than there are replicas: the connection that was kept may be dead.
        for _ in 0..=self.options.endpoints.len() {
            match self.ask(request.clone()).await {
                Ok(verdict) => return Ok(verdict),
                Err(status) => why = link::chain(&status),
            }
        }
        Err(Unreachable(why))
    }
}

fn wire(step: Step) -> Wire {
    let turn = |turn: Turn| {
        let Turn { session, number, attempt, until } = turn;
        v1::SignInTurn { session, number, attempt, until }
    };
    match step {
        Step::Take(of) => Wire::Take(turn(of)),
        Step::GiveBack(of) => Wire::GiveBack(turn(of)),
        Step::Once(of) => Wire::Once(turn(of)),
        Step::Keep(of, answer) => Wire::Keep(v1::SignInKept { turn: Some(turn(of)), answer }),
        Step::SignedOut(out) => Wire::SignedOut(v1::SignedOut {
            provider: out.provider.to_string(),
            what: Some(match out.what {
                Ended::Session(session) => What::Session(session),
                Ended::Subject { id, before } => What::Subject(v1::SignedOutSubject { id, before }),
            }),
        }),
    }
}
