//! What a tool wants mirrored into headers, asked again when the server says that it was wrong.
//!
//! What is pinned decides who may call a tool and with which arguments; which of them the server
//! wants to see in headers is its own business and may have changed since. A server that refuses a
//! call for its headers has not executed it: the definition is read anew and the call sent once
//! more.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use serde_json::value::RawValue;
use weir_model::bounds;
use weir_model::id::Digest;
use weir_model::reason::Refusal;
use weir_model::snapshot::{ParamHeader, param_headers};

use super::super::{Message, Outbound, raw, refuse};
use super::{Failure, Remote};

/// Tools of one server that are remembered to differ from what is pinned.
const TOOLS_MAX: usize = 1_024;

/// By tool: the digest of the definition that it replaces, and what it wants.
#[derive(Debug, Default)]
pub(super) struct Declared(Mutex<HashMap<String, Wanted>>);

type Wanted = (Option<Digest>, Arc<[ParamHeader]>);

impl Declared {
    /// What the called tool wants mirrored: as read anew, else as pinned.
    pub(super) fn of(&self, outbound: &Outbound) -> Arc<[ParamHeader]> {
        if outbound.method != "tools/call" {
            return Arc::default();
        }
        let pinned = outbound.tool.as_ref();
        let known = self.0.lock();
        if !known.is_empty()
            && let Some((replaces, headers)) = outbound.name.as_ref().and_then(|n| known.get(n))
            && *replaces == pinned.map(|tool| tool.digest)
        {
            return Arc::clone(headers);
        }
        pinned
            .and_then(|tool| tool.param_headers.as_ref().ok())
            .filter(|headers| !headers.is_empty())
            .map_or_else(Arc::default, |headers| headers.as_slice().into())
    }

    fn set(&self, outbound: &Outbound, headers: Vec<ParamHeader>) {
        let Some(name) = &outbound.name else { return };
        let mut known = self.0.lock();
        if known.len() >= TOOLS_MAX {
            known.clear();
        }
        let replaces = outbound.tool.as_ref().map(|tool| tool.digest);
        known.insert(name.clone(), (replaces, headers.into()));
    }
}

impl Remote {
    /// Reads the definition of the called tool; false when that cannot change anything.
    pub(super) async fn refresh(self: &Arc<Self>, outbound: &Outbound) -> Result<bool, Refusal> {
        if outbound.method != "tools/call" {
            return Ok(false);
        }
        // Whoever watches reports what else has changed.
        self.noticed("notifications/tools/list_changed");
        let Some(name) = &outbound.name else { return Ok(false) };
        let mut cursor: Option<Bytes> = None;
        for _ in 0..bounds::LIST_PAGES_MAX {
            let page = self.page(outbound, cursor.as_ref()).await?;
            if let Some(definition) = definition(&page, name) {
                let headers = param_headers(definition).map_err(|why| {
                    refuse::protocol(format!("the tool {name:?} cannot be called: {why}"))
                })?;
                tracing::info!(server = %self.key, tool = ?name, "mirrored headers were read anew");
                self.declared.set(outbound, headers);
                return Ok(true);
            }
            let next = raw::member(&page, "nextCursor").map(RawValue::get);
            let Some(next) = next.filter(|next| *next != "null") else { return Ok(false) };
            let next = Bytes::copy_from_slice(next.as_bytes());
            if cursor.as_ref() == Some(&next) {
                return Ok(false);
            }
            cursor = Some(next);
        }
        Ok(false)
    }

    async fn page(
        self: &Arc<Self>,
        outbound: &Outbound,
        cursor: Option<&Bytes>,
    ) -> Result<Bytes, Refusal> {
        let params = cursor.map(|cursor| {
            let mut params = b"{\"cursor\":".to_vec();
            params.extend_from_slice(cursor);
            params.push(b'}');
            params.into()
        });
        let question = Outbound {
            method: "tools/list".to_owned(),
            params,
            id: None,
            name: None,
            tool: None,
            param_headers: Vec::new(),
            ..outbound.clone()
        };
        let answer = self.call_modern(&question).await.map_err(Failure::into_refusal)?;
        match answer.last().await? {
            Message::Result(page) => Ok(page),
            _ => Err(refuse::protocol("the server refuses calls for their headers, and its list")),
        }
    }
}

/// The definition of a tool on a page of `tools/list`.
fn definition<'a>(page: &'a Bytes, name: &str) -> Option<&'a str> {
    let tools = raw::member(page, "tools")?;
    let tools: Vec<&RawValue> = serde_json::from_str(tools.get()).ok()?;
    let mut texts = tools.into_iter().map(RawValue::get);
    texts.find(|text| raw::text(text.as_bytes(), "name").as_deref() == Some(name))
}
