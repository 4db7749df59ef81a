//! Lists that the gateway answers itself, from pinned catalogs and without an upstream hop.
//!
//! A caller sees what it may call and nothing else. Definitions are the bytes that the server
//! published (on the joined endpoint with the exposed name in place of the server's). The order
//! is that of server names, then the server's own. A cursor is sealed and bound to its caller.

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use weir_model::bounds;
use weir_model::id::{Digest, Name};
use weir_model::policy::Action;
use weir_model::reason::{Reason, Refusal};
use weir_model::seal::Sealer;
use weir_model::snapshot::{CatalogView, Hints, param_headers};

use super::envelope::utf8;
use super::members::{self, Members};
use super::methods::List;
use super::session::Bond;

/// The `_meta` key of lists of the joined endpoint under which `[{"server", "reason"}]` says whose
/// part is missing (`quarantined`, `unobserved`) or cannot be called at the moment (`unreachable`).
pub const UNAVAILABLE: &str = "weir/unavailable";

/// The `_meta` key of stateless results under which a server says who it is.
const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";

/// One server's part of a list.
#[derive(Debug, Clone, Copy)]
pub struct Source<'a> {
    /// The server.
    pub server: &'a Name,
    /// What is pinned of it.
    pub catalog: &'a CatalogView,
}

/// One definition on a list, and what has to be asked before it is shown.
#[derive(Debug, Clone, Copy)]
pub struct Item<'a> {
    /// Server.
    pub server: &'a Name,
    /// The action that showing it stands for.
    pub action: Action,
    /// As the server has it.
    pub name: &'a str,
    /// Of a tool.
    pub hints: Hints,
    /// As the server published it.
    raw: &'a Bytes,
    /// With its name on the joined endpoint.
    raw_exposed: &'a Bytes,
}

/// Where the next page starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    #[serde(rename = "s")]
    server: String,
    #[serde(rename = "i")]
    index: usize,
}

/// One page.
#[derive(Debug, Default)]
pub struct Page<'a> {
    items: Vec<&'a Bytes>,
    /// Where the next one starts.
    pub next: Option<Position>,
    /// `_meta`, when there is something to say.
    meta: serde_json::Map<String, serde_json::Value>,
}

/// Which list, and how it is shown.
#[derive(Debug, Clone, Copy)]
pub struct View {
    /// Which.
    pub kind: List,
    /// On the endpoint that joins all servers: names are shown with their servers.
    pub joined: bool,
    /// Items on one page.
    pub page: usize,
}

impl View {
    /// Collects one page. `sources` come in the order of server names.
    pub fn page<'a>(
        &self,
        sources: &[Source<'a>],
        after: Option<&Position>,
        mut may_see: impl FnMut(&Item<'a>) -> bool,
    ) -> Page<'a> {
        let mut page = Page::default();
        for source in sources {
            let start = match after {
                Some(at) if source.server.as_str() < at.server.as_str() => continue,
                Some(at) if source.server.as_str() == at.server.as_str() => at.index,
                _ => 0,
            };
            for (index, item) in items(self.kind, source).enumerate().skip(start) {
                let Some(item) = item.filter(|i| may_see(i)) else { continue };
                if page.items.len() == self.page {
                    let server = source.server.to_string();
                    page.next = Some(Position { server, index });
                    return page;
                }
                page.items.push(if self.joined { item.raw_exposed } else { item.raw });
            }
        }
        page
    }
}

/// The items of one server; none in place of a tool that clients over HTTP must not be shown.
fn items<'a>(kind: List, source: &Source<'a>) -> Box<dyn Iterator<Item = Option<Item<'a>>> + 'a> {
    let server = source.server;
    let catalog = source.catalog;
    let (plain, action) = match kind {
        List::Tools => {
            return Box::new(catalog.tools.iter().map(move |tool| {
                tool.param_headers.is_ok().then(|| Item {
                    server,
                    action: Action::CallTool,
                    name: &tool.name,
                    hints: tool.hints,
                    raw: &tool.raw,
                    raw_exposed: &tool.raw_exposed,
                })
            }));
        }
        List::Resources => (&catalog.resources, Action::ReadResource),
        List::Templates => (&catalog.templates, Action::ReadResource),
        List::Prompts => (&catalog.prompts, Action::GetPrompt),
    };
    Box::new(plain.iter().map(move |view| {
        Some(Item {
            server,
            action,
            name: &view.name,
            hints: Hints::default(),
            raw: &view.raw,
            raw_exposed: &view.raw_exposed,
        })
    }))
}

impl Page<'_> {
    /// Says which servers' parts are missing or do not work at the moment, and why, under
    /// [`UNAVAILABLE`].
    #[must_use]
    pub fn noting(mut self, short: &[(Name, &'static str)]) -> Self {
        let parts: Vec<_> = short
            .iter()
            .map(|(server, reason)| serde_json::json!({ "server": server, "reason": reason }))
            .collect();
        if !parts.is_empty() {
            self.meta.insert(UNAVAILABLE.to_owned(), parts.into());
        }
        self
    }

    /// Says who lists, as stateless revisions want to be told with every result.
    #[must_use]
    pub fn told_by(mut self, info: serde_json::Value) -> Self {
        self.meta.insert(SERVER_INFO.to_owned(), info);
        self
    }

    /// The result: `{"tools":[…]}`, with cache hints for stateless revisions.
    pub fn render(&self, kind: List, modern: bool, cursor: Option<&str>) -> Bytes {
        let length: usize = self.items.iter().map(|raw| raw.len() + 1).sum();
        let mut out = BytesMut::with_capacity(length + 256 + cursor.map_or(0, str::len));
        out.put_u8(b'{');
        if modern {
            out.put_slice(br#""resultType":"complete","ttlMs":"#);
            out.put_slice(bounds::LIST_TTL_MS.to_string().as_bytes());
            // Filtered for one caller, even where the filter happened to remove nothing.
            out.put_slice(br#","cacheScope":"private","#);
        }
        out.put_u8(b'"');
        out.put_slice(kind.member().as_bytes());
        out.put_slice(b"\":[");
        for (at, raw) in self.items.iter().enumerate() {
            if at > 0 {
                out.put_u8(b',');
            }
            out.put_slice(raw);
        }
        out.put_u8(b']');
        if let Some(cursor) = cursor {
            // A sealed token has no character that JSON escapes.
            out.put_slice(b",\"nextCursor\":\"");
            out.put_slice(cursor.as_bytes());
            out.put_u8(b'"');
        }
        if !self.meta.is_empty() {
            out.put_slice(b",\"_meta\":");
            out.put_slice(serde_json::json!(self.meta).to_string().as_bytes());
        }
        out.put_u8(b'}');
        out.freeze()
    }
}

/// Seals positions into cursors and back.
#[derive(Debug, Clone, Copy)]
pub struct Cursors<'a> {
    /// With the snapshot's keys.
    pub sealer: &'a Sealer,
    /// Whose list it is.
    pub bond: Bond<'a>,
    /// Which list.
    pub kind: List,
    /// Of the rules that the list was filtered by: pages under other rules do not mix.
    pub rules: Digest,
}

impl Cursors<'_> {
    fn aad(&self) -> Vec<u8> {
        let mut aad = self.bond.bytes();
        aad.push(0);
        aad.extend_from_slice(self.kind.member().as_bytes());
        aad.push(0);
        aad.extend_from_slice(&self.rules.0);
        aad
    }

    /// The cursor for a position.
    ///
    /// # Errors
    /// [`Reason::SnapshotMissing`] when there is no key.
    pub fn seal(&self, position: &Position) -> Result<String, Refusal> {
        let plain = serde_json::to_vec(position)
            .map_err(|e| Refusal::new(Reason::Internal, format!("cursor to JSON: {e}")))?;
        self.sealer
            .seal("cursor", &self.aad(), &plain)
            .map_err(|e| Refusal::new(Reason::SnapshotMissing, e.to_string()))
    }

    /// The position of a cursor.
    ///
    /// # Errors
    /// [`Reason::InvalidParams`] for a cursor that was not made for this caller and list.
    pub fn open(&self, cursor: &str) -> Result<Position, Refusal> {
        let bad = || Refusal::new(Reason::InvalidParams, "cursor").hint("Unknown cursor.");
        let plain = self.sealer.open("cursor", &self.aad(), cursor).map_err(|_| bad())?;
        serde_json::from_slice(&plain).map_err(|_| bad())
    }
}

/// A list result of a server without the items that the caller may not see; every other byte as
/// the server sent it.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] when it is no such list.
pub fn filter(
    raw: &Bytes,
    kind: List,
    may_see: impl FnMut(&str, Hints) -> bool,
) -> Result<Bytes, Refusal> {
    filter_of(raw, (kind.member(), kind.item_name()), kind == List::Tools, may_see)
}

/// The same for the list of skills, each of which is a resource.
///
/// # Errors
/// [`Reason::UpstreamProtocol`] when it is no such list.
pub fn filter_skills(
    raw: &Bytes,
    mut may_read: impl FnMut(&str) -> bool,
) -> Result<Bytes, Refusal> {
    filter_of(raw, ("skills", "uri"), false, |uri, _| may_read(uri))
}

fn filter_of(
    raw: &Bytes,
    (member, item_name): (&str, &str),
    tools: bool,
    mut may_see: impl FnMut(&str, Hints) -> bool,
) -> Result<Bytes, Refusal> {
    let broken = || Refusal::new(Reason::UpstreamProtocol, "not a list result");
    let text = std::str::from_utf8(raw).map_err(|_| broken())?;
    let members = Members::parse(text).map_err(|_| broken())?;
    let array = members.get(member).ok_or_else(broken)?.get();
    let items: Vec<&serde_json::value::RawValue> =
        serde_json::from_str(array).map_err(|_| broken())?;
    let mut kept = String::with_capacity(array.len());
    let total = items.len();
    let mut count = 0;
    for item in items {
        let fields = Members::parse(item.get()).map_err(|_| broken())?;
        let name = fields.text(item_name).ok_or_else(broken)?;
        // A tool that asks for impossible headers must not be listed over HTTP.
        let listed = !tools || param_headers(item.get()).is_ok();
        if listed && may_see(&name, hints(&fields)) {
            kept.push_str(if count > 0 { "," } else { "" });
            kept.push_str(item.get());
            count += 1;
        }
    }
    if count == total {
        return Ok(raw.clone());
    }
    let range = members::position(text, array);
    let mut out = BytesMut::with_capacity(raw.len());
    out.put_slice(&raw[..range.start]);
    out.put_u8(b'[');
    out.put_slice(kept.as_bytes());
    out.put_u8(b']');
    out.put_slice(&raw[range.end..]);
    Ok(out.freeze())
}

/// `annotations` of a tool that is not pinned.
fn hints(fields: &Members<'_>) -> Hints {
    let mut hints = Hints::default();
    let Some(raw) = fields.get("annotations") else { return hints };
    let Ok(annotations) = Members::parse(raw.get()) else { return hints };
    let read = |name: &str, default: bool| match annotations.get(name).map(|raw| raw.get()) {
        Some("true") => true,
        Some("false") => false,
        _ => default,
    };
    hints.read_only = read("readOnlyHint", hints.read_only);
    hints.destructive = read("destructiveHint", hints.destructive);
    hints.idempotent = read("idempotentHint", hints.idempotent);
    hints.open_world = read("openWorldHint", hints.open_world);
    hints
}

/// For tests and logs.
impl std::fmt::Display for Position {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}#{}", self.server, self.index)
    }
}

/// The text of a rendered page.
pub fn text(page: &Bytes) -> &str {
    utf8(page)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use weir_model::id::Digest;
    use weir_model::resource::ObservedEra;
    use weir_model::secret::Secret;
    use weir_model::snapshot::PlainView;

    fn catalog(server: &str, names: &[&str]) -> CatalogView {
        let prompt = |name: &&str| {
            Arc::new(PlainView {
                name: (*name).to_owned(),
                exposed: format!("{server}__{name}"),
                raw: format!(r#"{{"name":"{name}","x":1.10}}"#).into(),
                raw_exposed: format!(r#"{{"name":"{server}__{name}","x":1.10}}"#).into(),
                digest: Digest::default(),
                arguments: None,
            })
        };
        let mut catalog = CatalogView::empty(ObservedEra::Legacy);
        catalog.prompts = names.iter().map(prompt).collect();
        catalog
    }

    #[test]
    fn pages_are_ordered_filtered_and_joined() {
        let (a, b) = (catalog("a", &["z", "hidden", "y"]), catalog("b", &["x"]));
        let names: Vec<Name> = vec!["a".parse().unwrap(), "b".parse().unwrap()];
        let sources =
            [Source { server: &names[0], catalog: &a }, Source { server: &names[1], catalog: &b }];
        let kind = List::Prompts;
        let all = View { kind, joined: true, page: 10 };
        let seen = |item: &Item<'_>| item.name != "hidden";
        let page = all.page(&sources, None, seen);
        assert_eq!(
            text(&page.render(kind, false, None)),
            r#"{"prompts":[{"name":"a__z","x":1.10},{"name":"a__y","x":1.10},{"name":"b__x","x":1.10}]}"#
        );
        let plain = View { kind, joined: false, page: 2 };
        let first = plain.page(&sources, None, seen);
        assert_eq!(
            text(&first.render(kind, true, Some("c"))),
            format!(
                r#"{{"resultType":"complete","ttlMs":{},"cacheScope":"private","prompts":[{{"name":"z","x":1.10}},{{"name":"y","x":1.10}}],"nextCursor":"c"}}"#,
                bounds::LIST_TTL_MS
            )
        );
        let second = plain.page(&sources, first.next.as_ref(), seen);
        assert_eq!(
            text(&second.render(kind, false, None)),
            r#"{"prompts":[{"name":"x","x":1.10}]}"#
        );
        assert_eq!(second.next, None);
    }

    #[test]
    fn cursors_belong_to_one_caller_and_list() {
        let key = ("k".to_owned(), Arc::new(Secret::new(vec![1; 32])));
        let sealer = Sealer::new(&[key]).unwrap();
        let bond = Bond { group: "dev", server: None, principal: "anonymous", epoch: 0 };
        let rules = Digest::default();
        let cursors = Cursors { sealer: &sealer, bond, kind: List::Tools, rules };
        let position = Position { server: "a".into(), index: 7 };
        let cursor = cursors.seal(&position).unwrap();
        assert_eq!(cursors.open(&cursor).unwrap(), position);
        let others = [
            Cursors { bond: Bond { principal: "account:ci", ..bond }, ..cursors },
            Cursors { bond: Bond { server: Some("a"), ..bond }, ..cursors },
            Cursors { kind: List::Prompts, ..cursors },
            Cursors { bond: Bond { epoch: 1, ..bond }, ..cursors },
            Cursors { rules: Digest([1; 32]), ..cursors },
        ];
        for other in others {
            assert_eq!(other.open(&cursor).unwrap_err().reason, Reason::InvalidParams);
        }
        assert_eq!(cursors.open("").unwrap_err().reason, Reason::InvalidParams);
    }

    #[test]
    fn lists_of_servers_are_filtered_on_their_bytes() {
        let raw = Bytes::from_static(
            br#"{ "tools" : [ {"name":"a","n":1.10}, {"name":"b","annotations":{"readOnlyHint":true}} ] , "x" : 1.0 }"#,
        );
        assert_eq!(filter(&raw, List::Tools, |_, _| true).unwrap(), raw);
        let only_reading = filter(&raw, List::Tools, |_, hints| hints.read_only).unwrap();
        assert_eq!(
            text(&only_reading),
            r#"{ "tools" : [{"name":"b","annotations":{"readOnlyHint":true}}] , "x" : 1.0 }"#
        );
        let none = filter(&raw, List::Tools, |_, _| false).unwrap();
        assert_eq!(text(&none), r#"{ "tools" : [] , "x" : 1.0 }"#);
        let bad = filter(&Bytes::from_static(b"{}"), List::Tools, |_, _| true);
        assert_eq!(bad.unwrap_err().reason, Reason::UpstreamProtocol);
    }
}
