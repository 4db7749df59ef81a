//! Every method that clients may call, as data.
//!
//! What a method is called on, in which revisions it exists and what its answer looks like is
//! read here and nowhere else; a method that is not listed does not exist. Methods of extensions
//! that the gateway relays without knowing their meaning are `Relay`.

use super::envelope::{Params, Reference};
use super::revision::Revision;

/// What a method is about; decides how it is routed and authorised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `initialize`.
    Initialize,
    /// `ping`.
    Ping,
    /// `server/discover`.
    Discover,
    /// One of the four lists.
    List(List),
    /// `tools/call`.
    CallTool,
    /// `resources/read`, `resources/subscribe`, `resources/unsubscribe`.
    Resource,
    /// `prompts/get`.
    GetPrompt,
    /// `completion/complete`.
    Complete,
    /// `logging/setLevel`.
    LogLevel,
    /// `subscriptions/listen`: a stream.
    Listen,
    /// Passed on to the one server of a transparent endpoint.
    Relay,
}

/// The lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum List {
    Tools,
    Resources,
    Templates,
    Prompts,
}

impl List {
    /// The member of the result that holds the items.
    pub fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
            Self::Prompts => "prompts",
        }
    }
    /// The member of an item that names it.
    pub fn item_name(self) -> &'static str {
        match self {
            Self::Tools | Self::Prompts => "name",
            Self::Resources => "uri",
            Self::Templates => "uriTemplate",
        }
    }
}

/// One method.
#[derive(Debug, Clone, Copy)]
pub struct Method {
    /// On the wire.
    pub name: &'static str,
    /// What it is about.
    pub kind: Kind,
    /// Oldest revision that has it.
    pub since: Revision,
    /// Newest revision that has it.
    pub until: Revision,
    /// Stateless results carry `ttlMs` and `cacheScope`.
    pub cacheable: bool,
    /// The endpoint that joins all servers has it too.
    pub aggregated: bool,
    /// The extension that stateless clients have to declare for it.
    pub extension: Option<&'static str>,
}

const FIRST: Revision = Revision::V2024_11_05;
const LAST: Revision = Revision::V2026_07_28;
const LAST_LEGACY: Revision = Revision::V2025_11_25;

/// A method of every revision, on every endpoint.
const fn method(name: &'static str, kind: Kind) -> Method {
    Method {
        name,
        kind,
        since: FIRST,
        until: LAST,
        cacheable: false,
        aggregated: true,
        extension: None,
    }
}

const fn cacheable(mut method: Method) -> Method {
    method.cacheable = true;
    method
}

const fn within(mut method: Method, since: Revision, until: Revision) -> Method {
    method.since = since;
    method.until = until;
    method
}

/// A method that only endpoints of one server have.
const fn relayed(name: &'static str, since: Revision, until: Revision) -> Method {
    let mut method = within(method(name, Kind::Relay), since, until);
    method.aggregated = false;
    method
}

/// A method of the tasks extension, which took over some names of 2025-11-25.
const fn task(name: &'static str, since: Revision) -> Method {
    let mut method = relayed(name, since, LAST);
    method.extension = Some(super::extensions::TASKS);
    method
}

/// Any method of an extension that an operator has named; the message says which.
pub const NAMED: Method = relayed("", FIRST, LAST);

const fn subscription(name: &'static str) -> Method {
    within(method(name, Kind::Resource), FIRST, LAST_LEGACY)
}

/// The registry.
pub const METHODS: &[Method] = &[
    within(method("initialize", Kind::Initialize), FIRST, LAST_LEGACY),
    within(method("ping", Kind::Ping), FIRST, LAST_LEGACY),
    cacheable(within(method("server/discover", Kind::Discover), LAST, LAST)),
    cacheable(method("tools/list", Kind::List(List::Tools))),
    method("tools/call", Kind::CallTool),
    cacheable(method("resources/list", Kind::List(List::Resources))),
    cacheable(method("resources/templates/list", Kind::List(List::Templates))),
    cacheable(method("resources/read", Kind::Resource)),
    subscription("resources/subscribe"),
    subscription("resources/unsubscribe"),
    cacheable(method("prompts/list", Kind::List(List::Prompts))),
    method("prompts/get", Kind::GetPrompt),
    method("completion/complete", Kind::Complete),
    within(method("logging/setLevel", Kind::LogLevel), FIRST, LAST_LEGACY),
    within(method("subscriptions/listen", Kind::Listen), LAST, LAST),
    // Tasks of 2025-11-25, and the extension that replaced them.
    task("tasks/get", LAST_LEGACY),
    task("tasks/cancel", LAST_LEGACY),
    task("tasks/update", LAST),
    relayed("tasks/list", LAST_LEGACY, LAST_LEGACY),
    relayed("tasks/result", LAST_LEGACY, LAST_LEGACY),
    // The skills extension.
    relayed("skills/list", LAST_LEGACY, LAST),
    relayed("skills/get", LAST_LEGACY, LAST),
    relayed("resources/directory/read", LAST_LEGACY, LAST),
];

/// The method of that name.
pub fn find(name: &str) -> Option<&'static Method> {
    METHODS.iter().find(|m| m.name == name)
}

impl Method {
    /// True when a revision has it.
    pub fn exists_in(&self, revision: Revision) -> bool {
        self.since <= revision && revision <= self.until
    }

    /// True when it is relayed and gives what a resource of its `uri` holds or says of itself:
    /// whoever may not read the resource may not call it either.
    pub fn reads_resource(&self) -> bool {
        matches!(self.name, "skills/get" | "resources/directory/read")
    }

    /// What `Mcp-Name` mirrors: `Err` names the parameter that is missing.
    ///
    /// # Errors
    /// The name of the parameter that the method needs.
    pub fn mirrored<'a>(&self, params: &'a Params) -> Result<Option<&'a str>, &'static str> {
        let need = |value: &'a Option<String>, name| value.as_deref().ok_or(name).map(Some);
        match (self.kind, self.name) {
            (Kind::CallTool | Kind::GetPrompt, _) => need(&params.name, "name"),
            (Kind::Resource, _) => need(&params.uri, "uri"),
            (Kind::Relay, "tasks/get" | "tasks/update" | "tasks/cancel" | "tasks/result") => {
                need(&params.task, "taskId")
            }
            (Kind::Complete, _) => match &params.reference {
                // Routed by the body alone: the specification gives it no header.
                Some(Reference::Prompt(_) | Reference::Resource(_)) => Ok(None),
                None => Err("ref"),
            },
            _ => Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_revisions_are_ordered() {
        for (at, method) in METHODS.iter().enumerate() {
            assert!(method.since <= method.until, "{}", method.name);
            assert!(METHODS[..at].iter().all(|m| m.name != method.name), "{}", method.name);
        }
    }

    /// The methods that clients may call, by revision, as the specification lists them.
    #[test]
    fn every_revision_has_exactly_its_methods() {
        let always = [
            "completion/complete",
            "prompts/get",
            "prompts/list",
            "resources/list",
            "resources/read",
            "resources/templates/list",
            "tools/call",
            "tools/list",
        ];
        let handshake = [
            "initialize",
            "logging/setLevel",
            "ping",
            "resources/subscribe",
            "resources/unsubscribe",
        ];
        let tasks = ["tasks/cancel", "tasks/get", "tasks/list", "tasks/result"];
        let skills = ["resources/directory/read", "skills/get", "skills/list"];
        let stateless = ["server/discover", "subscriptions/listen"];
        let extension = ["tasks/cancel", "tasks/get", "tasks/update"];
        let legacy = [&always[..], &handshake].concat();
        let table = [
            (Revision::V2024_11_05, legacy.clone()),
            (Revision::V2025_03_26, legacy.clone()),
            (Revision::V2025_06_18, legacy.clone()),
            (Revision::V2025_11_25, [&legacy[..], &tasks, &skills].concat()),
            (Revision::V2026_07_28, [&always[..], &stateless, &extension, &skills].concat()),
        ];
        for (revision, mut expected) in table {
            let has = METHODS.iter().filter(|m| m.exists_in(revision));
            let mut has: Vec<&str> = has.map(|m| m.name).collect();
            has.sort_unstable();
            expected.sort_unstable();
            assert_eq!(has, expected, "{revision}");
        }
        let mut cached: Vec<&str> =
            METHODS.iter().filter(|m| m.cacheable).map(|m| m.name).collect();
        cached.sort_unstable();
        assert_eq!(
            cached,
            [
                "prompts/list",
                "resources/list",
                "resources/read",
                "resources/templates/list",
                "server/discover",
                "tools/list"
            ]
        );
    }

    #[test]
    fn stateless_revisions_lack_what_they_removed() {
        for name in [
            "initialize",
            "ping",
            "logging/setLevel",
            "resources/subscribe",
            "resources/unsubscribe",
            "tasks/list",
            "tasks/result",
        ] {
            assert!(!find(name).unwrap().exists_in(Revision::V2026_07_28), "{name}");
            assert!(find(name).unwrap().exists_in(Revision::V2025_11_25), "{name}");
        }
        for name in ["server/discover", "subscriptions/listen", "tasks/update"] {
            assert!(!find(name).unwrap().exists_in(Revision::V2025_11_25), "{name}");
        }
        assert!(find("tools/destroy").is_none());
    }
}
