//! The gRPC service that proxies follow: enrolment, renewal, and the stream of configuration.
//!
//! One task per node around [`weir_model::sync::publisher::Publisher`]. Views are computed once
//! per region and change, shared by all its nodes; secrets are opened once and sealed per node.

mod claims;
mod listen;
mod records;
mod regions;
mod secrets;
mod sign_in;
mod stream;
mod verify;
mod ways;

use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures_util::Stream;
use parking_lot::Mutex;
use tonic::{Request, Response, Status, Streaming};
use weir_audit::Pipeline;
use weir_audit::merkle::Hash;
use weir_audit::witness::Answer;
use weir_model::bounds;
use weir_model::sync::identity::NodeId;
use weir_model::sync::statement::Signer;
use weir_model::sync::{Now, Timing};
use weir_proto::sync::v1;
use weir_proto::sync::v1::sync_server::{Sync as SyncService, SyncServer};
use weir_runtime::clock::SharedClock;
use weir_runtime::drain::Watch;

use crate::budget::{self, Budget, Settler};
use crate::ca::{Ca, CaError};
use crate::enrol::{EnrolError, Enrolled, Enrolment};
use crate::fleet::Fleet;
use crate::index::Newest;
use crate::neighbours::Neighbours;
use crate::observe::intake::Intake;
use crate::sign_ins::SignIns;
use crate::store::{Store, StoreError};
use crate::vault::Vault;
use crate::witness::{Shown, Witness, WitnessError};

pub use listen::{Peer, Pipe, pipe};

use regions::Regions;
use secrets::Opened;
use ways::Ways;

/// What publishing is made of.
#[derive(Debug, Clone)]
pub struct Parts {
    /// Names this replica to people.
    pub replica: String,
    /// The configuration.
    pub newest: Newest,
    /// The authority of all replicas.
    pub ca: Arc<Ca>,
    /// Takes enrolment tokens.
    pub enrolment: Enrolment,
    /// What nodes run.
    pub fleet: Fleet,
    /// What nodes see.
    pub intake: Intake,
    /// Keeps the checkpoints of nodes' audit logs.
    pub witness: Witness,
    /// The turns of people's sign-ins.
    pub sign_ins: SignIns,
    /// Where it is recorded who joins; nowhere without.
    pub audit: Option<Pipeline>,
    /// The time.
    pub clock: SharedClock,
    /// How long streams wait for what.
    pub timing: Timing,
}

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publish {
    shared: Arc<Shared>,
}

struct Shared {
    parts: Parts,
    signer: ArcSwap<Signer>,
    regions: Regions,
    opened: Opened,
    ways: Ways,
    began: Instant,
    budget: Budget,
    neighbours: Neighbours,
    settler: Mutex<Option<Settler>>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").field("replica", &self.parts.replica).finish_non_exhaustive()
    }
}

impl Publish {
    /// A service over a store whose secrets the vault opens.
    ///
    /// # Errors
    /// [`CaError::Make`] when no signer can be made.
    pub fn new(parts: Parts, store: Arc<dyn Store>, vault: Vault) -> Result<Self, CaError> {
        let now = i64::try_from(parts.clock.now_secs()).unwrap_or(i64::MAX);
        let signer = ArcSwap::from_pointee(parts.ca.signer(now, bounds::PLANE_CERTIFICATE_SECS)?);
        let regions = Regions::new(parts.newest.clone(), Arc::clone(&store));
        let replica = Some(parts.replica.clone());
        let (budget, settler) = budget::new(Arc::clone(&store), replica, Arc::clone(&parts.clock));
        let settler = Mutex::new(Some(settler));
        let neighbours = Neighbours::new(Arc::clone(&store), Arc::clone(&parts.clock));
        let opened = Opened::new(store, vault);
        let began = parts.clock.monotonic();
        let ways = Ways::default();
        let shared =
            Shared { parts, signer, regions, opened, ways, began, budget, neighbours, settler };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Serves on a socket and (or) an in-memory pipe until the drain.
    ///
    /// # Errors
    /// When the listener's certificate cannot be made, or serving fails as a whole.
    pub async fn serve(
        self,
        tcp: Option<tokio::net::TcpListener>,
        pipe: Option<Pipe>,
        drain: Watch,
    ) -> Result<(), ServeError> {
        let shared = Arc::clone(&self.shared);
        let service = Service { shared: Arc::downgrade(&shared), drain: drain.clone() };
        let service = SyncServer::new(service)
            .max_decoding_message_size(bounds::SYNC_MESSAGE_BYTES_MAX)
            .max_encoding_message_size(bounds::SYNC_MESSAGE_BYTES_MAX);
        let certificate = listen::Certificate::new(&shared.parts)?;
        let incoming = listen::incoming((tcp, pipe), &certificate, &shared.parts, drain.clone())?;
        let settler = shared.settler.lock().take();
        let settled = drain.clone();
        let settle = async {
            match settler {
                Some(settler) => settler.run(settled).await,
                None => std::future::pending().await,
            }
        };
        let housekeeping = async {
            let secrets = |indexed: &crate::index::Indexed| shared.opened.retain(&indexed.set);
            let sign_ins = shared.parts.sign_ins.clone().run(drain.clone());
            let fresh = shared.keep_fresh(&certificate);
            tokio::join!(shared.regions.run(secrets), fresh, settle, sign_ins)
        };
        let served = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(15)))
            .http2_keepalive_timeout(Some(Duration::from_secs(10)))
            .add_service(service)
            .serve_with_incoming_shutdown(incoming, async { drain.drained().await });
        tokio::select! {
            served = served => served.map_err(ServeError::Serve),
            _ = housekeeping => Ok(()),
            // Nodes that do not let go are let go.
            () = drain.immediate() => Ok(()),
        }
    }
}

/// Why the service cannot be offered.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener's certificate.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// TLS.
    #[error(transparent)]
    Tls(#[from] weir_runtime::tls::TlsError),
    /// gRPC.
    #[error("the sync service ended: {0}")]
    Serve(tonic::transport::Error),
}

impl Shared {
    fn unix(&self) -> i64 {
        i64::try_from(self.parts.clock.now_secs()).unwrap_or(i64::MAX)
    }

    fn now(&self) -> Now {
        let mono = self.parts.clock.monotonic().saturating_duration_since(self.began);
        Now { mono, unix: self.unix() }
    }

    /// Replaces the listener's certificate and the signer after two thirds of their lives.
    async fn keep_fresh(&self, certificate: &listen::Certificate) {
        let whole = bounds::PLANE_CERTIFICATE_SECS;
        let mut renew_at = self.unix() + whole * 2 / 3;
        loop {
            tokio::time::sleep(Duration::from_secs(60)).await;
            let now = self.unix();
            if now < renew_at {
                continue;
            }
            let signer = self.parts.ca.signer(now, whole);
            match (signer, certificate.renew(&self.parts)) {
                (Ok(signer), Ok(())) => {
                    self.signer.store(Arc::new(signer));
                    renew_at = now + whole * 2 / 3;
                }
                (Err(error), _) => tracing::error!(%error, "no new signer"),
                (_, Err(error)) => tracing::error!(%error, "no new certificate"),
            }
        }
    }
}

struct Service {
    /// Connections that outlive the service must not keep the store open.
    shared: Weak<Shared>,
    drain: Watch,
}

/// What a node is told that an operator has revoked.
const CUT_OFF: &str = "this node is cut off by an operator";

impl Service {
    fn not_cut_off(&self, peer: &Identity) -> Result<(), Status> {
        if self.shared()?.regions.revoked(&peer.id.node) {
            tracing::warn!(node = %peer.id, "a node that is cut off was turned away");
            return Err(Status::permission_denied(CUT_OFF));
        }
        Ok(())
    }

    /// The node behind a request, while it belongs to the fleet.
    fn member<T>(&self, request: &Request<T>, shared: &Shared) -> Result<Identity, Status> {
        let peer = peer(request)?;
        if peer.not_after <= shared.unix() {
            return Err(Status::unauthenticated("the certificate has ended: renew it"));
        }
        self.not_cut_off(&peer)?;
        Ok(peer)
    }

    fn shared(&self) -> Result<Arc<Shared>, Status> {
        self.shared.upgrade().ok_or_else(|| Status::unavailable("this replica is going away"))
    }
}

type Frames = Pin<Box<dyn Stream<Item = Result<v1::PlaneFrame, Status>> + Send>>;

#[tonic::async_trait]
impl SyncService for Service {
    type WatchStream = Frames;

    async fn enrol(
        &self,
        request: Request<v1::EnrolRequest>,
    ) -> Result<Response<v1::EnrolResponse>, Status> {
        let shared = self.shared()?;
        let peer = request.remote_addr().map(|address| address.to_string());
        let v1::EnrolRequest { token, node, certificate_request } = request.into_inner();
        let joining = shared.begins("node.enrol", peer)?;
        let enrolment = &shared.parts.enrolment;
        let enrolled = enrolment.enrol(&token, &node, &certificate_request).await;
        shared.joined(joining, (&token, &node), enrolled.as_ref()).await;
        let Enrolled { id, certificate } = enrolled
            .inspect_err(|error| tracing::warn!(%error, "a node was not enrolled"))
            .map_err(|e| refused(&e))?;
        tracing::info!(node = %id, "a node was enrolled");
        Ok(Response::new(v1::EnrolResponse {
            certificate: certificate.to_vec().into(),
            authority: shared.parts.ca.certificate().to_vec().into(),
            node: id.node.to_string(),
            region: id.region.to_string(),
        }))
    }

    async fn renew(
        &self,
        request: Request<v1::RenewRequest>,
    ) -> Result<Response<v1::RenewResponse>, Status> {
        let shared = self.shared()?;
        let peer = peer(&request)?;
        self.not_cut_off(&peer)?;
        let from = request.remote_addr().map(|address| address.to_string());
        let renewing = shared.begins("node.renew", from)?;
        let v1::RenewRequest { certificate_request } = request.into_inner();
        let renewed = shared.parts.enrolment.renew(&peer.id, &certificate_request);
        shared.renewed(renewing, &peer.id, renewed.as_ref().err()).await;
        let Enrolled { id, certificate } = renewed.map_err(|e| refused(&e))?;
        tracing::info!(node = %id, "a node's certificate was renewed");
        Ok(Response::new(v1::RenewResponse {
            certificate: certificate.to_vec().into(),
            authority: shared.parts.ca.certificate().to_vec().into(),
        }))
    }

    async fn witness(
        &self,
        request: Request<v1::WitnessRequest>,
    ) -> Result<Response<v1::WitnessResponse>, Status> {
        let shared = self.shared()?;
        let peer = self.member(&request, &shared)?;
        let request = request.into_inner();
        let v1::WitnessRequest { note, key, certificate, from, past_gone, .. } = &request;
        let key = key.as_ref().try_into();
        let key = key.map_err(|_| Status::invalid_argument("the key must be 32 bytes"))?;
        let (node, region) = (peer.id.node.as_str(), peer.id.region.as_str());
        let hash = |bytes: &Bytes| Some(Hash(bytes.as_ref().try_into().ok()?));
        let proof = request.proof.iter().map(hash).collect::<Option<Vec<_>>>();
        let proof = proof.ok_or_else(|| Status::invalid_argument("a hash must be 32 bytes"))?;
        let (from, past_gone) = (*from, *past_gone);
        let shown = Shown { node, region, key, note, certificate, from, proof: &proof, past_gone };
        let answer = shared.parts.witness.see(shown).await;
        let answer = answer.map_err(|error| match &error {
            WitnessError::Contradiction { .. } => {
                tracing::error!(%error, "an audit log is not what it was");
                Status::failed_precondition(error.to_string())
            }
            WitnessError::Bad(_) => Status::invalid_argument(error.to_string()),
            WitnessError::Store(_) | WitnessError::Vault(_) => {
                Status::unavailable("the control plane cannot witness at the moment")
            }
        })?;
        let (certificate, wants_epoch, wants_from) = match answer {
            Answer::Kept(certificate) => (certificate, 0, 0),
            Answer::Wants { epoch, from } => (String::new(), epoch, from),
        };
        Ok(Response::new(v1::WitnessResponse { certificate, wants_epoch, wants_from }))
    }

    async fn sign_in(
        &self,
        request: Request<v1::SignInRequest>,
    ) -> Result<Response<v1::SignInResponse>, Status> {
        let shared = self.shared()?;
        let peer = self.member(&request, &shared)?;
        let answer = sign_in::step(&shared, &peer, request.into_inner()).await?;
        Ok(Response::new(answer))
    }

    async fn budget(
        &self,
        request: Request<v1::BudgetRequest>,
    ) -> Result<Response<v1::BudgetResponse>, Status> {
        let shared = self.shared()?;
        let peer = self.member(&request, &shared)?;
        let grants = claims::settle(&shared.budget, &peer.id, request.into_inner()).await?;
        Ok(Response::new(grants))
    }

    async fn neighbours(
        &self,
        request: Request<v1::NeighboursRequest>,
    ) -> Result<Response<v1::NeighboursResponse>, Status> {
        let shared = self.shared()?;
        let peer = self.member(&request, &shared)?;
        let address = request.into_inner().address;
        let others =
            shared.neighbours.meet(&peer.id, &address).await.map_err(|error| match error {
                StoreError::Malformed(why) => Status::invalid_argument(why),
                error => {
                    tracing::warn!(%error, "which proxies there are cannot be told");
                    Status::unavailable("the control plane cannot tell at the moment")
                }
            })?;
        let there = others.into_iter().filter(|(id, _)| !shared.regions.revoked(&id.node));
        let neighbours = there.map(|(id, address)| v1::Neighbour {
            node: id.node.to_string(),
            region: id.region.to_string(),
            address,
        });
        Ok(Response::new(v1::NeighboursResponse { neighbours: neighbours.collect() }))
    }

    async fn watch(
        &self,
        request: Request<Streaming<v1::NodeFrame>>,
    ) -> Result<Response<Frames>, Status> {
        let shared = self.shared()?;
        let peer = self.member(&request, &shared)?;
        let stream = stream::open(&shared, peer, request.into_inner(), self.drain.clone());
        Ok(Response::new(Box::pin(stream)))
    }
}

/// The node behind a request; its certificate was verified in the handshake.
fn peer<T>(request: &Request<T>) -> Result<Identity, Status> {
    let peer = request.extensions().get::<Peer>();
    let identity = peer.and_then(|peer| peer.identity.clone());
    identity.ok_or_else(|| Status::unauthenticated("a node's certificate is needed: enrol first"))
}

/// A node and the end of its certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Who.
    pub id: NodeId,
    /// Seconds since the epoch.
    pub not_after: i64,
}

fn refused(error: &EnrolError) -> Status {
    match error {
        EnrolError::Token => Status::permission_denied(error.to_string()),
        EnrolError::Node(_) | EnrolError::Lifetime | EnrolError::Ca(CaError::BadRequest(_)) => {
            Status::invalid_argument(error.to_string())
        }
        EnrolError::Ca(_) | EnrolError::Store(_) | EnrolError::Random(_) => {
            Status::unavailable("the control plane cannot enrol nodes at the moment")
        }
    }
}

#[cfg(test)]
mod tests;
