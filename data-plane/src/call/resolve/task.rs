//! Requests that name tasks: of whom they are asked, and by which id.

use std::sync::Arc;

use bytes::Bytes;
use weir_model::reason::{Reason, Refusal};
use weir_model::snapshot::{ServerView, VersionView};

use super::Scene;
use crate::call::client::bond;
use crate::call::tasks::{self, Given};
use crate::mcp::envelope::Params;
use crate::mcp::methods::Method;

/// What goes to the server.
pub(super) struct Own {
    /// `params` with the server's own ids of tasks.
    pub(super) params: Option<Bytes>,
    /// The id of the task that the request is about.
    pub(super) id: Option<String>,
}

impl Scene<'_> {
    /// The version that a request goes to, which for one about a task is where it was made.
    pub(super) fn placed(
        &self,
        server: &ServerView,
        method: &Method,
        params: &Params,
    ) -> Result<(Arc<VersionView>, Own), Refusal> {
        let Some(given) = self.given(server, method, params)? else {
            let params = params.raw.clone();
            return Ok((self.version(server), Own { params, id: None }));
        };
        let version = server.versions.iter().find(|version| version.name == given.version);
        let version = version.ok_or_else(tasks::unknown)?;
        Ok((Arc::clone(version), Own { params: given.params, id: Some(given.id) }))
    }

    fn given(
        &self,
        server: &ServerView,
        method: &Method,
        params: &Params,
    ) -> Result<Option<Given>, Refusal> {
        if params.task.is_none() {
            return Ok(None);
        }
        let principal = self.who.id();
        let aad = bond(self.endpoint, &principal).bytes();
        tasks::given((self.sealing.sealer()?, &aad), method, params).map_err(|unknown| {
            let version = self.version(server);
            match version.catalog.as_deref().is_none_or(tasks::has) {
                true => unknown,
                // A server that has no tasks has no methods for them.
                false => Refusal::new(Reason::MethodUnknown, "tasks").hint("Method not found."),
            }
        })
    }

    /// `params`, with the server's own ids of tasks that the client wants to hear of.
    pub(super) fn listened(&self, params: Option<Bytes>) -> Option<Bytes> {
        let raw = params?;
        let Some(sealer) = self.sealing.sealer else { return Some(raw) };
        let principal = self.who.id();
        let aad = bond(self.endpoint, &principal).bytes();
        Some(tasks::listened((sealer, &aad), &raw))
    }
}
