//! The pages that people see: consent, and what went wrong. Plain HTML without scripts.

use std::sync::OnceLock;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Response, StatusCode};

use super::answer;
use crate::call::Body;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:34rem;margin:4rem auto;\
padding:0 1rem;color:#1b1f24;background:#fff}h1{font-size:1.3rem}dl{border:1px solid #d0d7de;\
border-radius:6px;padding:.5rem 1rem}dt{color:#57606a;font-size:.85rem;margin-top:.5rem}dd{margin:0;\
overflow-wrap:anywhere}button{font:inherit;padding:.5rem 1.2rem;margin:1rem .5rem 0 0;border-radius:6px;\
border:1px solid #d0d7de;background:#f6f8fa;cursor:pointer}button.yes{background:#1f6feb;color:#fff;\
border-color:#1f6feb}.warn{color:#9a6700}";

/// What the consent page says.
#[derive(Debug)]
pub(super) struct Consent<'a> {
    /// The client's own name for itself, or its id.
    pub client: &'a str,
    /// Where it can be verified: the host of its metadata document.
    pub verified: Option<&'a str>,
    /// Where the browser goes afterwards.
    pub redirect: &'a str,
    /// The endpoint.
    pub resource: &'a str,
    /// For people.
    pub group: &'a str,
    /// Words.
    pub scope: &'a str,
    /// Resource names of the identity providers to choose from.
    pub providers: &'a [String],
    /// Whether the person may say that it need not be asked again.
    pub remember: bool,
    /// Sealed.
    pub request: &'a str,
}

/// Asks for consent.
pub(super) fn consent(asked: &Consent<'_>) -> Response<Body> {
    let mut rows = row("Application", asked.client);
    match asked.verified {
        Some(host) => rows += &row("Described by", host),
        None => {
            rows += "<dt>Identity</dt><dd class=\"warn\">The application registered itself; its \
                     name is its own claim.</dd>";
        }
    }
    rows += &row("You will be sent to", asked.redirect);
    rows += &row("It will call", asked.resource);
    if !asked.scope.is_empty() {
        rows += &row("With the scopes", asked.scope);
    }
    let buttons: String = asked
        .providers
        .iter()
        .map(|name| {
            let name = escaped(name);
            let to =
                if asked.providers.len() > 1 { format!(" with {name}") } else { String::new() };
            format!(
                "<button class=\"yes\" name=\"provider\" value=\"{name}\">Continue{to}</button>"
            )
        })
        .collect();
    let remember = match asked.remember {
        true => {
            "<p><label><input type=\"checkbox\" name=\"remember\" value=\"yes\"> Do not ask \
             again for this application in this browser</label></p>"
        }
        false => "",
    };
    let body = format!(
        "<h1>Let an application act for you in {group}?</h1><dl>{rows}</dl>\
         <p>Continue only if you started this yourself and know the application.</p>\
         <form method=\"post\" action=\"/authorize/consent\">\
         <input type=\"hidden\" name=\"request\" value=\"{request}\">{remember}{buttons}\
         <button name=\"deny\" value=\"yes\">Cancel</button></form>",
        group = escaped(asked.group),
        request = escaped(asked.request),
    );
    render(StatusCode::OK, "Sign in", &body)
}

/// What need not be asked for again in this browser.
pub(super) fn consents(given: &[(&str, &str)]) -> Response<Body> {
    if given.is_empty() {
        let text = "<h1>Remembered applications</h1><p>Nothing is remembered in this browser: every \
                    application asks.</p>";
        return render(StatusCode::OK, "Remembered applications", text);
    }
    let rows: String = given.iter().map(|(client, resource)| row(client, resource)).collect();
    let body = format!(
        "<h1>Remembered applications</h1><p>These may act for you without asking again:</p>\
         <dl>{rows}</dl><form method=\"post\" action=\"/authorize/consents\">\
         <button class=\"yes\">Forget them all</button></form>"
    );
    render(StatusCode::OK, "Remembered applications", &body)
}

/// Says what went wrong, where sending the browser back to the client is not safe.
pub(super) fn problem(status: StatusCode, text: &str) -> Response<Body> {
    let body = format!("<h1>This sign-in cannot go on</h1><p>{}</p>", escaped(text));
    render(status, "Sign-in failed", &body)
}

/// Says what is wrong with an application's request, with a way back to it for whoever wants.
pub(super) fn way_back(text: &str, url: &str) -> Response<Body> {
    let body = format!(
        "<h1>This sign-in cannot go on</h1><p>The application asked for something that is not \
         possible: {}.</p><p class=\"warn\">You can go back to the application at</p><p><a href=\"{url}\" \
         rel=\"noreferrer\">{url}</a></p>",
        escaped(text),
        url = escaped(url),
    );
    render(StatusCode::BAD_REQUEST, "Sign-in failed", &body)
}

fn row(name: &str, value: &str) -> String {
    format!("<dt>{name}</dt><dd>{}</dd>", escaped(value))
}

fn render(status: StatusCode, title: &str, body: &str) -> Response<Body> {
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\"><title>{title}</title>\
         <style>{STYLE}</style><body>{body}</body></html>"
    );
    static HASH: OnceLock<String> = OnceLock::new();
    let hash = HASH.get_or_init(|| {
        format!("sha256-{}", STANDARD.encode(digest(&SHA256, STYLE.as_bytes()).as_ref()))
    });
    answer::page(status, html, hash)
}

/// Text that means nothing to HTML, without characters that turn its direction around.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' => {}
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_says_of_itself_is_text() {
        let response = consent(&Consent {
            client: "<script>alert(1)</script>\u{202e}\"",
            verified: None,
            redirect: "https://evil.example/?a=\"><b>",
            resource: "https://gw.example/acme/mcp",
            group: "Acme & Co",
            scope: "mcp",
            providers: &["okta".to_owned(), "entra".to_owned()],
            remember: true,
            request: "k1.abc",
        });
        let Body::Whole(Some(body)) = response.body() else { panic!("a stream") };
        let html = std::str::from_utf8(body).unwrap();
        assert!(!html.contains("<script>") && !html.contains("<b>") && !html.contains('\u{202e}'));
        assert!(html.contains("Acme &amp; Co") && html.contains("Continue with okta"));
        assert!(html.contains("its own claim") || html.contains("own claim"));
        let policy = response.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(response.headers()["x-frame-options"], "DENY");
        assert_eq!(response.headers()["cache-control"], "no-store");
    }
}
