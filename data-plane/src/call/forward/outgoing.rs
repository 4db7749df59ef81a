//! What is allowed to go, in the terms of the back edge.

use std::sync::Arc;
use std::time::{Duration, Instant};

use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use super::{Scope, carried};
use crate::call::bridge::{self, Place};
use crate::call::credential::{self, Outgoing};
use crate::call::reserve::Held;
use crate::call::tasks::eras;
use crate::mcp::methods::{Kind, Method};
use crate::upstream::{Channel, Front, Outbound};

impl Outgoing {
    /// Which server version this goes to.
    pub(super) fn place(&self) -> Place {
        let target = self.target();
        Place {
            server: target.server.name.clone(),
            version: target.version.name.clone(),
            patience: credential::patience(&target.version),
        }
    }

    /// The server's session that the client sees through to.
    pub(super) fn channel(&self, scope: Scope<'_>) -> Result<Channel, Refusal> {
        let session = scope.client.session.as_ref().and_then(|s| s.upstream.clone());
        Ok(Channel {
            version: Arc::clone(&self.target().version),
            session: session.ok_or(Reason::SessionUnknown)?,
            revision: scope.client.revision.to_string(),
            credentials: self.headers().to_vec(),
            deadline: credential::deadline(&self.target().version),
        })
    }

    /// The request as the back edge takes it.
    pub(super) fn into_outbound(
        self,
        scope: Scope<'_>,
        method: &'static Method,
    ) -> (Outbound, Held) {
        let client = scope.client;
        let carried = carried(scope);
        let patience = credential::patience(&self.target().version);
        let deadline = match method.kind {
            // The front ends it in good order before the back gives up.
            Kind::Listen => Instant::now() + Duration::from_millis(2 * bounds::STREAM_MS),
            _ => bridge::deadline(scope, method, patience),
        };
        let params = scope.call.message().and_then(|m| m.params());
        // Nobody could follow the task: its methods need one server to go to, and are of older revisions.
        let alone = client.modern() || scope.endpoint.server.is_none();
        let plain = alone && method.kind == Kind::CallTool && params.is_some_and(|p| p.augmented);
        let name = params.and_then(|p| method.mirrored(p).ok().flatten().map(str::to_owned));
        let (target, credentials, held) = self.into_parts();
        let outbound = Outbound {
            front: Front {
                modern: client.modern(),
                revision: client.revision.to_string(),
                client_info: client.info.clone(),
                capabilities: carried.capabilities(&client.capabilities),
                isolation: client.isolation.clone(),
                log_level: None,
            },
            id: scope.call.message().and_then(|m| m.id()).map(|id| id.raw().clone()),
            method: scope.call.message().and_then(|m| m.method()).unwrap_or(method.name).to_owned(),
            params: target.params.map(|raw| {
                let raw = if plain { eras::plain(&raw) } else { raw };
                match method.kind {
                    Kind::Initialize => carried.handshake(&raw),
                    _ if client.modern() => carried.params(&raw),
                    _ => raw,
                }
            }),
            // What the server calls it, not what the client does.
            name: name.and(target.name.or(target.task.map(|task| task.id))),
            tool: target.tool,
            param_headers: crate::mcp::headers::params(scope.call.headers),
            credentials,
            session: client.session.as_ref().and_then(|s| s.upstream.clone()),
            deadline,
            traceparent: None,
            retries: Arc::default(),
            version: target.version,
        };
        (outbound, held)
    }
}
