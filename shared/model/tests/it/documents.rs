//! Documents: what is accepted, and what is said about what is not.

use bytes::Bytes;
use weir_model::resource::{Document, FieldError, Resource, parse_documents};

fn parse(text: &str) -> Result<Vec<Document>, Vec<FieldError>> {
    let mut count = 0;
    parse_documents(text, &mut || {
        count += 1;
        format!("id-{count}")
    })
}

/// The text has exactly these errors: `document | path | beginning of the message`.
fn refused(text: &str, expected: &[&str]) {
    let errors = parse(text).expect_err("must be refused");
    let got: Vec<String> =
        errors.iter().map(|e| format!("{} | {} | {}", e.document, e.path, e.message)).collect();
    let fits = |g: &String, e: &&str| g.starts_with(*e);
    let same = got.len() == expected.len() && got.iter().zip(expected).all(|(g, e)| fits(g, e));
    assert!(same, "\ngot:\n  {}\nexpected:\n  {}", got.join("\n  "), expected.join("\n  "));
}

#[test]
fn a_server_in_yaml_becomes_a_resource_whose_canonical_form_reads_back() {
    let text = "apiVersion: weir/v1\nkind: Server\nmetadata: {name: billing, group: acme}\n\
                spec:\n  versions:\n  - name: v1\n    upstream: {http: {url: 'https://b.example/mcp'}}\n";
    let documents = parse(text).expect("is fine");
    let resource = &documents[0].resource;
    assert_eq!(resource.key.to_string(), "Server/acme/billing");
    assert_eq!(
        std::str::from_utf8(&resource.canonical).unwrap(),
        r#"{"apiVersion":"weir/v1","kind":"Server","metadata":{"name":"billing","group":"acme"},"spec":{"versions":[{"name":"v1","upstream":{"http":{"url":"https://b.example/mcp","allowPrivate":false}}}]}}"#
    );
    let again = Resource::from_canonical(resource.canonical.clone()).expect("reads back");
    assert_eq!(&again, resource);
    assert_eq!(again.spec, resource.spec);
}

#[test]
fn several_errors_of_several_documents_come_at_once() {
    refused(
        "apiVersion: weir/v2\nkind: Server\nmetadata: {name: Billing, group: acme, labels: {}}\n\
         spec:\n  displayNam: x\n  versions:\n  - upstream: {http: {url: 'ftp://x', allowPrivate: sure}}\n\
         \x20   timeoutMs: -1\n  - {name: v2, upstream: {carrier: {}}}\n  traffic: [{version: v2, percent: 300}]\n\
         ---\nkind: Regoin\nmetadata: {name: eu}\n---\n- 1\n",
        &[
            "document 1 (Server) | apiVersion | must be weir/v1",
            "document 1 (Server) | metadata.name | must be 1 to 40",
            "document 1 (Server) | metadata.labels | unknown field",
            "document 1 (Server) | spec.displayNam | unknown field; known are: displayName",
            "document 1 (Server) | spec.versions[0].upstream.http.allowPrivate | must be true or false, not text",
            "document 1 (Server) | spec.versions[0].timeoutMs | must be a whole number from 0",
            "document 1 (Server) | spec.versions[0].name | is missing",
            "document 1 (Server) | spec.versions[1].upstream.carrier | must be one of: http, stdio",
            "document 1 (Server) | spec.traffic[0].percent | must be a whole number from 0 to 255",
            "document 1 (Server) | spec.versions[0].upstream.http.url | must be a URL",
            "document 2 | apiVersion | is missing",
            "document 2 | kind | unknown kind Regoin",
            "document 2 | spec | is missing",
            "document 3 |  | must be a mapping",
        ],
    );
}

#[test]
fn bytes_that_are_no_document_are_refused() {
    assert!(Resource::from_canonical(Bytes::from_static(b"[]")).is_err());
}
