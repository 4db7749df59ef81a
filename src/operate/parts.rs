//! More documents than one change takes, cut into parts that can be put in force one after the other.
//!
//! Parts are ordered so that none refers to what a later one brings, and so that what forbids comes
//! before what grants: should one be refused, nobody may do more than with all of them.

use weir_model::bounds;
use weir_model::resource::{FieldError, Kind, ResourceKey, parse_documents};

use super::documents::{self, Documents};
use crate::exit::{Ended, Exit};

/// Text of one part; the rest of a request and some room is left.
const PART_BYTES_MAX: usize = bounds::APPLY_BODY_BYTES_MAX / 2;

/// What one change takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// To send.
    pub(super) text: String,
    /// How many documents.
    pub(super) count: usize,
    /// The first and the last of them, for people.
    pub(super) ends: (String, String),
}

/// A document of a file, or several that stand in one list.
struct Piece {
    text: String,
    keys: Vec<ResourceKey>,
}

/// Cuts what files say into parts. What fits into one change stays as it was written.
///
/// # Errors
/// With every error of every document.
pub(super) fn of(texts: &[(String, String)]) -> anyhow::Result<Vec<Part>> {
    let cut: Vec<(&String, Vec<String>)> =
        texts.iter().map(|(f, text)| (f, pieces(text))).collect();
    if cut.iter().map(|(_, pieces)| pieces.len()).sum::<usize>() <= bounds::APPLY_DOCUMENTS_MAX {
        let Documents { text, count } = Documents::check(texts)?;
        return Ok(vec![Part { text, count, ends: Default::default() }]);
    }
    let mut errors: Vec<(&String, FieldError)> = Vec::new();
    let mut all: Vec<Piece> = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (file, texts) in cut {
        for text in texts {
            match parse_documents(&text, &mut || "unsent".to_owned()) {
                Ok(found) => {
                    let keys: Vec<_> = found.into_iter().map(|d| d.resource.key).collect();
                    for key in keys.iter().filter(|key| !seen.insert((*key).clone())) {
                        let what = "the same document is given twice";
                        errors.push((file, FieldError::new(key, "metadata.name", what)));
                    }
                    all.push(Piece { text, keys });
                }
                Err(found) => errors.extend(found.into_iter().map(|error| (file, error))),
            }
            if errors.len() >= bounds::FIELD_ERRORS_MAX {
                break;
            }
        }
    }
    if !errors.is_empty() {
        return Err(Ended::new(Exit::Refused, documents::tell(&errors)).into());
    }
    all.sort_by_key(|piece| piece.keys.iter().map(|key| turn(key.kind)).max());
    Ok(gather(all))
}

fn gather(all: Vec<Piece>) -> Vec<Part> {
    let mut parts: Vec<Vec<Piece>> = Vec::new();
    let (mut count, mut bytes) = (0, 0);
    for piece in all {
        let more = (piece.keys.len(), piece.text.len() + 5);
        (count, bytes) = (count + more.0, bytes + more.1);
        let fits = count <= bounds::APPLY_DOCUMENTS_MAX && bytes <= PART_BYTES_MAX;
        match parts.last_mut().filter(|_| fits) {
            Some(part) => part.push(piece),
            None => {
                (count, bytes) = more;
                parts.push(vec![piece]);
            }
        }
    }
    let part = |pieces: Vec<Piece>| {
        let mut keys = pieces.iter().flat_map(|piece| &piece.keys);
        let count = keys.clone().count();
        let first = keys.next().map(ToString::to_string).unwrap_or_default();
        let last = keys.next_back().map_or_else(|| first.clone(), ToString::to_string);
        let text = documents::join(pieces.iter().map(|piece| piece.text.as_str()));
        Part { text, count, ends: (first, last) }
    };
    parts.into_iter().map(part).collect()
}

/// When a document's turn comes: after what it names, and what forbids before what grants.
fn turn(kind: Kind) -> usize {
    const TURNS: [Kind; 12] = [
        Kind::Region,
        Kind::Group,
        Kind::Credential,
        Kind::IdentityProvider,
        Kind::ServiceAccount,
        Kind::Policy,
        Kind::NodeRevocation,
        Kind::Server,
        Kind::Limit,
        Kind::Revocation,
        Kind::Role,
        Kind::RoleBinding,
    ];
    TURNS.iter().position(|known| *known == kind).unwrap_or(TURNS.len())
}

/// The documents of a YAML stream, each as it was written and at the line where it stood, so that
/// errors name that line. JSON is one piece.
fn pieces(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['{', '[']) {
        return vec![text.to_owned()];
    }
    let mut pieces = Vec::new();
    let mut piece = String::new();
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let bare = line.trim_end();
        let begins = bare == "---" || bare.starts_with("--- ") || bare.starts_with("---\t");
        if begins || bare == "..." {
            pieces.push(std::mem::replace(&mut piece, "\n".repeat(number)));
        }
        match (begins, bare) {
            (false, "...") => piece.push('\n'),
            _ => piece += line,
        }
    }
    pieces.push(piece);
    let said = |line: &str| {
        let line = line.trim();
        !line.is_empty() && !line.starts_with('#') && line != "---"
    };
    pieces.retain(|piece| piece.lines().any(said));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(kind: &str, name: &str) -> String {
        let (group, spec) = match kind {
            "Group" => ("", "{}"),
            "ServiceAccount" => (", group: g", "{}"),
            "Policy" => (", group: g", "{cedar: 'forbid (principal, action, resource);'}"),
            "RoleBinding" => (", group: g", "{role: r, subjects: [{serviceAccount: a0}]}"),
            other => panic!("{other}"),
        };
        format!(
            "apiVersion: weir/v1\nkind: {kind}\nmetadata: {{name: {name}{group}}}\nspec: {spec}\n"
        )
    }

    fn many(kind: &str, count: usize) -> String {
        let texts: Vec<_> = (0..count).map(|n| document(kind, &format!("a{n}"))).collect();
        texts.join("---\n")
    }

    #[test]
    fn what_fits_is_one_part_as_written() {
        let text = many("Group", 100);
        let parts = of(&[("f".to_owned(), text.clone())]).unwrap();
        assert_eq!((parts.len(), parts[0].count, &parts[0].text), (1, 100, &text));
    }

    #[test]
    fn more_is_cut_with_what_is_named_first_and_grants_last() {
        let files = [
            ("bindings".to_owned(), many("RoleBinding", 130)),
            (
                "rest".to_owned(),
                format!(
                    "# all\n---\n{}---\n{}...\n{}",
                    many("ServiceAccount", 3),
                    many("Policy", 90),
                    document("Group", "g")
                ),
            ),
        ];
        let parts = of(&files).unwrap();
        let counts: Vec<_> = parts.iter().map(|part| part.count).collect();
        assert_eq!(counts, [100, 100, 24]);
        assert_eq!(parts[0].ends, ("Group/g".to_owned(), "RoleBinding/g/a5".to_owned()));
        let mut kinds = Vec::new();
        for part in &parts {
            let again = parse_documents(&part.text, &mut || "unsent".to_owned()).unwrap();
            assert_eq!(again.len(), part.count);
            kinds.extend(again.into_iter().map(|d| turn(d.resource.key.kind)));
        }
        assert!(kinds.is_sorted(), "{kinds:?}");
    }

    #[test]
    fn errors_name_the_line_in_the_file_and_repeats_are_seen_over_parts() {
        let broken =
            many("Group", 120).replacen("kind: Group\nmetadata: {name: a110}", "kind: [\nx: {", 1);
        let error = of(&[("f".to_owned(), broken)]).unwrap_err().to_string();
        // Five lines to a document, and the break shows some lines after its beginning.
        assert!(error.contains("at line 55"), "{error}");
        let twice = format!("{}---\n{}", many("Group", 120), document("Group", "a3"));
        let error = of(&[("f".to_owned(), twice)]).unwrap_err().to_string();
        assert!(error.contains("given twice"), "{error}");
    }
}
