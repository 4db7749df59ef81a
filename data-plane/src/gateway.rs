//! What every call on this proxy shares. Built once, in [`crate::app`].

use std::sync::{Arc, Weak};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use http::request::Parts;
use weir_audit::Pipeline;
use weir_model::policy::Context;
use weir_model::principal::Principal;
use weir_model::reason::{Reason, Refusal};
use weir_model::seal::Sealer;
use weir_model::snapshot::{GroupView, Snapshot};
use weir_runtime::clock::SharedClock;
use weir_runtime::drain::Watch;

use crate::authorization::ledger::Ledger;
use crate::authorization::{Front, metadata};
use crate::call::authenticate;
use crate::call::bridge::park::Parking;
use crate::call::client::{Client, reported_name};
use crate::call::endpoint::{self, Endpoint};
use crate::call::inbound::Conn;
use crate::call::sight::Sight;
use crate::call::tasks::makers::Makers;
use crate::certificates::Certificates;
use crate::config::State;
use crate::decisions::Decisions;
use crate::hop::Hop;
use crate::keys::Keys;
use crate::levels::Levels;
use crate::limits::Limits;
use crate::lists::Lists;
use crate::metrics::CallMetrics;
use crate::neighbours::Neighbours;
use crate::replay::Replays;
use crate::sessions::{Ended, InFlight, Live, Streams, Subscriptions};
use crate::site::Site;
use crate::traces::Traces;
use crate::upstream::Upstreams;

/// What every call shares.
#[derive(Debug)]
pub struct Gateway {
    /// The configuration in force.
    pub config: Arc<State>,
    /// Verifies tokens.
    pub keys: Keys,
    /// Judges client certificates.
    pub certificates: Certificates,
    /// Signs people in, for clients of groups that want that.
    pub front: Front,
    /// Counts what is good once in a sign-in, over all proxies.
    pub ledger: Arc<dyn Ledger>,
    /// Decisions made before.
    pub decisions: Arc<Decisions>,
    /// Lists rendered before.
    pub lists: Lists,
    /// Rates and concurrency.
    pub limits: Arc<Limits>,
    /// The servers.
    pub upstreams: Upstreams,
    /// Records of calls.
    pub audit: Pipeline,
    /// Our own names.
    pub site: Site,
    /// Sessions that ended before their time.
    pub ended: Ended,
    /// Sessions in use, where groups bound that.
    pub live: Live,
    /// Calls that can be cancelled.
    pub in_flight: InFlight,
    /// Resources that sessions of older revisions are subscribed to.
    pub subscriptions: Subscriptions,
    /// Log levels of sessions of older revisions.
    pub levels: Levels,
    /// Tools that made tasks.
    pub makers: Makers,
    /// Open streams of each caller.
    pub streams: Streams,
    /// The way to other proxies, and what this one holds for them.
    pub hop: Hop,
    /// The other proxies, which are told what all must know of sessions.
    pub neighbours: Neighbours,
    /// Streams that clients may ask for again.
    pub replays: Replays,
    /// Calls that wait for their client's input.
    pub parking: Parking,
    /// The sealer of the snapshot in force.
    pub sealer: SealerCell,
    /// Counters of calls.
    pub metrics: CallMetrics,
    /// Traces of calls.
    pub traces: Traces,
    /// The time.
    pub clock: SharedClock,
    /// The end.
    pub drain: Watch,
}

/// Keeps the sealer of the snapshot that was last asked for.
#[derive(Debug, Default)]
pub struct SealerCell(ArcSwapOption<Made>);

#[derive(Debug)]
struct Made {
    /// Held weakly, which keeps the address from being given to another snapshot.
    of: Weak<Snapshot>,
    sealer: Option<Arc<Sealer>>,
}

impl Gateway {
    /// Seconds since the epoch.
    pub fn now_secs(&self) -> i64 {
        i64::try_from(self.clock.now_secs()).unwrap_or(i64::MAX)
    }

    /// Checks that the group can be served at all.
    ///
    /// # Errors
    /// [`Reason::Quarantined`] when a rule of it may be missing, [`Reason::SnapshotStale`] when
    /// nothing was heard of the control plane for longer than the group allows.
    pub fn serves(&self, group: &GroupView) -> Result<(), Refusal> {
        if let Some(why) = &group.quarantined {
            return Err(Refusal::new(Reason::Quarantined, format!("{}: {why}", group.name)));
        }
        match group.spec.stale_after_secs {
            Some(limit) if self.config.age().as_secs() > limit => Err(Reason::SnapshotStale.into()),
            _ => Ok(()),
        }
    }

    /// The sealer of a snapshot; none when it has no keys. Made once per snapshot.
    pub fn sealer(&self, snapshot: &Arc<Snapshot>) -> Option<Arc<Sealer>> {
        let made = self.sealer.0.load();
        if let Some(made) =
            made.as_ref().filter(|made| Weak::as_ptr(&made.of) == Arc::as_ptr(snapshot))
        {
            return made.sealer.clone();
        }
        let sealer = Sealer::new(&snapshot.sealing).ok().map(Arc::new);
        let of = Arc::downgrade(snapshot);
        self.sealer.0.store(Some(Arc::new(Made { of, sealer: sealer.clone() })));
        sealer
    }

    /// What a caller may see.
    pub fn sight(
        &self,
        endpoint: &Endpoint,
        who: &Arc<Principal>,
        client: &Client,
        (conn, now): (&Conn, i64),
    ) -> Sight {
        let context = Context {
            region: self.site.region.clone(),
            now,
            peer: Some(conn.peer.ip()),
            client: reported_name(client),
            revision: client.revision.to_string(),
        };
        Sight {
            group: Arc::clone(&endpoint.group),
            who: Arc::clone(who),
            identity: who.digest(),
            context: Arc::new(context),
            decisions: Arc::clone(&self.decisions),
        }
    }

    /// `WWW-Authenticate` for a refusal that calls for it. `missing` are scopes that this call
    /// needs and the token lacks.
    pub fn challenge(
        &self,
        conn: &Conn,
        head: &Parts,
        reason: Reason,
        missing: Option<&str>,
    ) -> Option<HeaderValue> {
        if !matches!(reason.status(), 401 | 403) {
            return None;
        }
        let endpoint = endpoint::find(head.uri.path(), &self.config.current()).ok()?;
        let scope = metadata::scopes(&endpoint.group, missing);
        let base = self.site.base_url(conn, head);
        let path = head.uri.path().trim_end_matches('/');
        authenticate::challenge(reason, &metadata::metadata_url(&base, path), scope.as_deref())
    }
}
