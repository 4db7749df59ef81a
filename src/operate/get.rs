//! `get` and `delete`.

use anyhow::Context as _;
use serde_json::Value;
use weir_model::resource::Kind;

use crate::cli::{Delete, Format, Get, Target};
use crate::client::Client;
use crate::exit::{Ended, Exit};
use crate::table;

/// Documents asked for at a time.
const PAGE: usize = 1_000;

/// Where the API keeps documents of a kind; the group is part of the path where there is one.
fn path(target: &Target, name: Option<&str>) -> anyhow::Result<String> {
    let kind = target.kind;
    match (&target.group, kind.is_grouped(), name) {
        (Some(_), false, _) => {
            let message = format!("a {kind} belongs to no group: leave -g out");
            Err(Ended::new(Exit::Usage, message).into())
        }
        (None, true, Some(_)) => {
            let message = format!("a {kind} belongs to a group: say which with -g");
            Err(Ended::new(Exit::Usage, message).into())
        }
        (None, _, None) => Ok(format!("/v1/resources/{kind}")),
        (Some(group), true, None) => Ok(format!("/v1/resources/{kind}?group={}", part(group))),
        (Some(group), true, Some(name)) => {
            Ok(format!("/v1/resources/{kind}/{}/{}", part(group), part(name)))
        }
        (None, false, Some(name)) => Ok(format!("/v1/resources/{kind}/{}", part(name))),
    }
}

/// A part of a path: what is no letter of a name is escaped, so that it stays a part.
pub(super) fn part(text: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    text.bytes()
        .map(|b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

pub(super) async fn get(client: &Client, args: Get) -> anyhow::Result<String> {
    let path = path(&args.target, args.name.as_deref())?;
    let format = args.output.output;
    if args.name.is_none() {
        return show(args.target.kind, all(client, &path).await?, format);
    }
    let document = client.get(&path).await?;
    match format {
        Format::Json => render(&document, format),
        _ => show(args.target.kind, vec![document], format),
    }
}

/// Every page of a listing.
async fn all(client: &Client, path: &str) -> anyhow::Result<Vec<Value>> {
    let mut documents = Vec::new();
    let mut cursor = String::new();
    loop {
        let more = if path.contains('?') { '&' } else { '?' };
        let mut page = client.get(&format!("{path}{more}limit={PAGE}{cursor}")).await?;
        let items = page["items"].as_array_mut().context("the answer is no list of documents")?;
        documents.append(items);
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", part(next)),
            None => return Ok(documents),
        }
    }
}

fn show(kind: Kind, documents: Vec<Value>, format: Format) -> anyhow::Result<String> {
    let word = |document: &Value, member: &str| {
        document["metadata"][member].as_str().unwrap_or_default().to_owned()
    };
    match format {
        Format::Json => render(&Value::Array(documents), format),
        Format::Yaml => {
            let texts = documents.iter().map(|document| render(document, format));
            Ok(texts.collect::<anyhow::Result<Vec<_>>>()?.join("---\n"))
        }
        Format::Name => Ok(documents
            .iter()
            .map(|document| match document["metadata"]["group"].as_str() {
                Some(group) => format!("{kind}/{group}/{}\n", word(document, "name")),
                None => format!("{kind}/{}\n", word(document, "name")),
            })
            .collect()),
        Format::Table => {
            let row = |document: &Value| {
                vec![word(document, "group"), word(document, "name"), summary(kind, document)]
            };
            let rows = documents.iter().map(row).collect::<Vec<_>>();
            Ok(table::columns(&["GROUP", "NAME", "ABOUT"], &rows))
        }
    }
}

/// What a row of a table says beyond the name.
fn summary(kind: Kind, document: &Value) -> String {
    let spec = &document["spec"];
    let count = |member: &str| spec[member].as_array().map_or(0, Vec::len);
    match kind {
        Kind::Server => {
            let kinds = spec["versions"].as_array().into_iter().flatten().map(|version| {
                let name = version["name"].as_str().unwrap_or_default();
                let upstream = version["upstream"].as_object().and_then(|map| map.keys().next());
                format!("{name} over {}", upstream.map_or("?", String::as_str))
            });
            kinds.collect::<Vec<_>>().join(", ")
        }
        Kind::Catalog => format!("{} pinned, {} waiting", count("entries"), count("waiting")),
        Kind::ServiceAccount => format!("{} tokens", count("tokens")),
        Kind::Role => format!("{} rules", count("rules")),
        Kind::RoleBinding => {
            let role = spec["role"].as_str().unwrap_or_default();
            format!("{role} to {} subjects", count("subjects"))
        }
        Kind::IdentityProvider => spec["issuer"].as_str().unwrap_or_default().to_owned(),
        _ => spec["displayName"].as_str().unwrap_or_default().to_owned(),
    }
}

/// JSON or YAML of an answer.
pub(super) fn render(value: &Value, format: Format) -> anyhow::Result<String> {
    let mut text = match format {
        Format::Yaml => serde_saphyr::to_string(value)?,
        _ => serde_json::to_string_pretty(value)?,
    };
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

pub(super) async fn delete(client: &Client, args: Delete) -> anyhow::Result<String> {
    let path = path(&args.target, Some(&args.name))?;
    let path = format!("{path}?dryRun={}&cascade={}", args.dry_run, args.cascade);
    Ok(super::apply::plan(client.delete(&path).await?)?.told(args.dry_run))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(kind: Kind, group: Option<&str>) -> Target {
        Target { kind, group: group.map(str::to_owned) }
    }

    #[test]
    fn paths_hold_the_group_where_there_is_one() {
        for (kind, group, name, expected) in [
            (Kind::Server, Some("demo"), Some("orders"), "/v1/resources/Server/demo/orders"),
            (Kind::Server, Some("demo"), None, "/v1/resources/Server?group=demo"),
            (Kind::Server, None, None, "/v1/resources/Server"),
            (Kind::Region, None, Some("eu"), "/v1/resources/Region/eu"),
            (Kind::Region, None, Some("../x"), "/v1/resources/Region/..%2Fx"),
        ] {
            assert_eq!(path(&target(kind, group), name).unwrap(), expected);
        }
        assert!(path(&target(Kind::Server, None), Some("orders")).is_err());
        assert!(path(&target(Kind::Region, Some("demo")), None).is_err());
    }

    #[test]
    fn documents_are_shown_in_every_format() {
        let server = serde_json::json!({
            "metadata": { "group": "demo", "name": "orders" },
            "spec": { "versions": [{ "name": "v1", "upstream": { "stdio": {} } }] },
        });
        let shown = |format| show(Kind::Server, vec![server.clone()], format).unwrap();
        assert_eq!(shown(Format::Name), "Server/demo/orders\n");
        assert!(shown(Format::Table).ends_with("demo   orders  v1 over stdio\n"));
        assert!(shown(Format::Yaml).contains("group: demo"));
        assert!(shown(Format::Json).starts_with("[\n"));
    }
}
