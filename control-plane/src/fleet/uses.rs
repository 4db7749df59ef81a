//! When API tokens were last used, as nodes tell it: one small entry per token,
//! `state/token-use/{group}/{id}`, written at most once in [`WRITE_SECS`] and replica.

use std::collections::{BTreeMap, HashMap};

use weir_model::bounds;
use weir_model::id::Name;
use weir_model::sync::TokenUse;

use super::Fleet;
use crate::store::{Op, StoreError};

const PATH: &str = "state/token-use/";
/// How old what is written may be while a token is in use.
const WRITE_SECS: i64 = 60;
/// Tokens that one replica remembers having written.
const KNOWN_MAX: usize = 100_000;
/// Longest public part of a token.
const ID_BYTES_MAX: usize = 64;

/// What was written, by group and token.
pub(super) type Written = HashMap<(Name, String), i64>;

impl Fleet {
    /// Takes note of uses, in a task of its own: no node waits for it.
    pub fn tokens_used(&self, uses: Vec<TokenUse>) {
        let now = self.now();
        let mut written = self.shared.uses.lock();
        if written.len() > KNOWN_MAX {
            written.clear();
        }
        let news: Vec<(String, i64)> = uses
            .into_iter()
            // Names become parts of paths; times come from another clock.
            .filter(|u| {
                u.id.len() <= ID_BYTES_MAX && u.id.bytes().all(|b| b.is_ascii_alphanumeric())
            })
            .filter_map(|u| {
                let at = u.at.min(now);
                let path = format!("{PATH}{}/{}", u.group, u.id);
                let known = written.entry((u.group, u.id)).or_insert(0);
                (at >= *known + WRITE_SECS).then(|| {
                    *known = at;
                    (path, at)
                })
            })
            .collect();
        drop(written);
        if news.is_empty() {
            return;
        }
        let store = std::sync::Arc::clone(&self.shared.store);
        weir_runtime::task::spawn("token-uses", async move {
            for part in news.chunks(bounds::COMMIT_OPS_MAX) {
                let put = |(path, at): &(String, i64)| {
                    Op::Put(path.clone(), at.to_string().into_bytes().into())
                };
                if let Err(error) = store.commit(Vec::new(), part.iter().map(put).collect()).await {
                    tracing::warn!(%error, "uses of API tokens are not written");
                }
            }
        });
    }

    /// When tokens of a group were last used, by their public ids; within a minute or two.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn token_uses(&self, group: &Name) -> Result<BTreeMap<String, i64>, StoreError> {
        let prefix = format!("{PATH}{group}/");
        let entries = self.shared.store.list(&prefix).await?.entries;
        let read = |entry: crate::store::Entry| {
            let id = entry.key.strip_prefix(&prefix)?.to_owned();
            Some((id, std::str::from_utf8(&entry.value).ok()?.parse().ok()?))
        };
        Ok(entries.into_iter().filter_map(read).collect())
    }
}
