//! What a peer chose to write, made safe to keep: bounded, and without what looks like a
//! credential.

use std::borrow::Cow;

/// What stands in place of a secret.
const MASK: &str = "***";
/// Longest text that is kept of what a peer chose.
pub(super) const TEXT_CHARS_MAX: usize = 256;

/// A text of at most `max` characters; true when something was cut off.
pub(super) fn bounded(text: &str, max: usize) -> (&str, bool) {
    // No character is shorter than a byte.
    if text.len() <= max {
        return (text, false);
    }
    match text.char_indices().nth(max) {
        Some((at, _)) => (&text[..at], true),
        None => (text, false),
    }
}

/// Begins tokens that say so: our own, and those of services whose tokens are often pasted.
const TOKENS: [&str; 17] = [
    "weir_at_",
    "weir_en_",
    "weir_op_",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxa-",
    "xoxb-",
    "xoxp-",
    "sk-",
    "sk_live_",
    "AKIA",
    "AIza",
];
/// Such a token is longer than its beginning by at least this.
const TOKEN_REST_CHARS_MIN: usize = 12;
/// No token is shorter: neither those above, nor a JWT, whose first part alone takes nearly as much.
const SECRET_CHARS_MIN: usize = 15;
/// Within the name of a member whose value is masked whatever it is. Compared without case, `_`
/// and `-`.
const SECRET_NAMES: [&str; 11] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "authorization",
    "cookie",
    "credential",
    "privatekey",
];

/// The text with every word masked that looks like a token: a JWT, one that begins like those of
/// [`TOKENS`], what follows `Bearer` or `Basic`, and anything in the user part or the query of a
/// URI.
pub(super) fn scrubbed(text: &str) -> Cow<'_, str> {
    // Most texts are names: too short for a token, of one word, and no URI.
    let name = |text: &str| !text.bytes().any(|b| matches!(b, b' ' | b':'));
    if text.len() < SECRET_CHARS_MIN && name(text) {
        return text.into();
    }
    if parts_begin_plainly(text) {
        return text.into();
    }
    // Nearly every other text is plain words.
    let plain = |word: &str| !hides(word) && !announces(word);
    if !text.contains("://") && text.split(' ').all(plain) {
        return text.into();
    }
    let text = without_uri_secrets(text);
    let mut masked_next = false;
    let words = text.split(' ').map(|word| {
        let mask = std::mem::take(&mut masked_next) || hides(word);
        masked_next = announces(word);
        if mask { MASK } else { word }
    });
    words.collect::<Vec<_>>().join(" ").into()
}

/// True when no part of a text begins as anything does that is masked: [`TOKENS`], a JWT, `Bearer`
/// and `Basic`, and `//` behind the scheme of a URI. A glance that spares most texts the search.
fn parts_begin_plainly(text: &str) -> bool {
    static ENDS_PART: [bool; 256] = {
        let mut all = [false; 256];
        let mut byte = 0;
        while byte < 0x80 {
            all[byte as usize] = byte == b' ' || is_delimiter(byte as char);
            byte += 1;
        }
        all
    };
    let bytes = text.as_bytes();
    let begins = |at: usize| begins_secret(&bytes[at..]);
    let mut all = bytes.iter().enumerate();
    !begins(0) && !all.any(|(at, &byte)| ENDS_PART[usize::from(byte)] && begins(at + 1))
}

fn begins_secret(part: &[u8]) -> bool {
    let word = |word: &str| {
        part.get(..word.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(word.as_bytes()))
    };
    match part.first() {
        Some(b'/') => true,
        Some(b'e') => part.starts_with(b"eyJ"),
        Some(b'b' | b'B') => word("bearer") || word("basic"),
        Some(b'w' | b'g' | b'x' | b's' | b'A') => {
            TOKENS.iter().any(|begin| part.starts_with(begin.as_bytes()))
        }
        _ => false,
    }
}

/// [`scrubbed`] for every text within a value, and for the names of its members. What a member
/// holds whose name says that it is secret is masked whole.
pub(super) fn scrub(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::String(text) => *text = scrubbed_text(text),
        serde_json::Value::Array(items) => items.iter_mut().for_each(scrub),
        serde_json::Value::Object(members) => {
            let old = std::mem::take(members);
            members.extend(old.into_iter().map(|(name, mut value)| {
                match is_secret_name(&name) && !value.is_null() && !value.is_boolean() {
                    true => value = MASK.into(),
                    false => scrub(&mut value),
                }
                (scrubbed(&name).into_owned(), value)
            }));
        }
        _ => {}
    }
}

/// A text that is JSON itself, as tools answer it, is scrubbed by its members.
fn scrubbed_text(text: &str) -> String {
    if text.trim_start().starts_with(['{', '['])
        && let Ok(mut inner) = serde_json::from_str::<serde_json::Value>(text)
    {
        let before = inner.clone();
        scrub(&mut inner);
        return if inner == before { text.to_owned() } else { inner.to_string() };
    }
    scrubbed(text).into_owned()
}

const fn is_delimiter(c: char) -> bool {
    matches!(c, '/' | '=' | ':' | ',' | ';' | '"' | '\'' | '(' | ')' | '&' | '?' | '#')
}

/// True for a word with a token in it.
fn hides(word: &str) -> bool {
    word.split(is_delimiter).any(|part| is_jwt(part) || is_token(part))
}

/// True for a word behind which a credential stands.
fn announces(word: &str) -> bool {
    word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic")
}

fn is_token(word: &str) -> bool {
    let long = word.len() > TOKEN_REST_CHARS_MIN;
    long && TOKENS.iter().any(|begin| {
        word.strip_prefix(begin).is_some_and(|rest| rest.len() >= TOKEN_REST_CHARS_MIN)
    })
}

fn is_secret_name(name: &str) -> bool {
    let plain: String =
        name.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect();
    SECRET_NAMES.iter().any(|secret| plain.contains(secret))
}

/// Three base64url parts of which the first is a JSON object.
fn is_jwt(word: &str) -> bool {
    if !word.starts_with("eyJ") {
        return false;
    }
    let base64url =
        |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    let parts: Vec<&str> = word.split('.').collect();
    parts.len() == 3 && parts.iter().all(|part| base64url(part))
}

/// `scheme://user:password@host/path?query#fragment` keeps scheme, host and path. A query is
/// replaced by the start of its digest, so that two URIs that differ in it still differ.
fn without_uri_secrets(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else { return text.to_owned() };
    let (rest, query) = match rest.find(['?', '#']) {
        Some(at) => (&rest[..at], Some(&rest[at..])),
        None => (rest, None),
    };
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = match authority.rfind('@') {
        Some(at) => &authority[at + 1..],
        None => authority,
    };
    let query = query.map(|query| weir_model::id::Digest::of(query.as_bytes()).short());
    let query = query.map_or(String::new(), |digest| format!("?sha256={digest}"));
    format!("{scheme}://{host}{path}{query}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_masked_and_the_rest_stays() {
        let jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhIn0.c2ln";
        for (text, expect) in [
            ("claude-code 1.2.3", "claude-code 1.2.3"),
            ("search", "search"),
            ("a.b.c", "a.b.c"),
            (jwt, "***"),
            (&format!("agent {jwt} x"), "agent *** x"),
            (&format!("agent token={jwt}"), "agent ***"),
            ("agent Bearer abc123", "agent Bearer ***"),
            ("authorization: basic dTpw", "authorization: basic ***"),
            ("weir_at_ab12_0123456789abcdef", "***"),
            ("pay ghp_0123456789abcdef now", "pay *** now"),
            ("agent/key=AKIA0123456789ABCDEF", "***"),
            ("sk-learn", "sk-learn"),
            ("weir_at_", "weir_at_"),
            ("file:///etc/hosts", "file:///etc/hosts"),
            ("https://h.test:8/p", "https://h.test:8/p"),
            ("https://u:pw@h.test/p", "https://h.test/p"),
            ("db://u@x:pw@h.test", "db://h.test"),
            ("a://u:p@h", "a://h"),
            ("basic dTpw", "basic ***"),
            ("sk-0123456789ab", "***"),
            ("eyJhbGciOiIifQ..", "***"),
        ] {
            assert_eq!(scrubbed(text), expect, "{text}");
        }
    }

    /// However short its beginning is: a shorter one needs a smaller [`SECRET_CHARS_MIN`].
    #[test]
    fn the_shortest_token_of_every_sort_is_masked() {
        for begin in TOKENS {
            let rest = "0".repeat(TOKEN_REST_CHARS_MIN);
            assert_eq!(scrubbed(&format!("{begin}{rest}")), MASK, "{begin}");
            assert_eq!(scrubbed(&format!("{begin}{}", &rest[1..])).len(), begin.len() + 11);
        }
    }

    /// A secret that the glance took for plain words would stay.
    #[test]
    fn whatever_is_masked_begins_as_no_plain_part_does() {
        let begins = TOKENS.into_iter().chain(["eyJ", "Bearer", "bearer", "Basic", "basic", "//"]);
        for begin in begins {
            assert!(!parts_begin_plainly(begin), "{begin}");
            for end in ('\0'..=char::MAX).filter(|c| *c == ' ' || is_delimiter(*c)) {
                assert!(!parts_begin_plainly(&format!("a{end}{begin}")), "a{end}{begin}");
            }
        }
        for plain in
            ["jwt:okta:alice", "claude-code 2.1.0", "mcp:tools", "tools/call", "0af765", ""]
        {
            assert!(parts_begin_plainly(plain), "{plain}");
        }
    }

    proptest::proptest! {
        #[test]
        fn texts_that_begin_plainly_hide_nothing(
            text in "((eyJ|//|://|[bB](earer|asic)|[wgxsA](eir_at_|hp_|oxb-|k-|KIA)|[a-z.]{0,3}|[0-9a-f]{12,16})[ /=:,;\"'()&?#]?){0,6}"
        ) {
            if parts_begin_plainly(&text) {
                let words = || text.split(' ');
                proptest::prop_assert!(!text.contains("://"));
                proptest::prop_assert!(!words().any(|word| hides(word) || announces(word)));
            }
        }
    }

    #[test]
    fn queries_become_digests_that_still_differ() {
        let one = scrubbed("https://h.test/p?token=hunter2");
        let two = scrubbed("https://h.test/p?token=hunter3");
        assert!(one.starts_with("https://h.test/p?sha256=") && !one.contains("hunter"), "{one}");
        assert_ne!(one, two);
        assert!(!scrubbed("x://h#hunter2").contains("hunter2"));
    }

    #[test]
    fn members_whose_names_say_so_are_masked_whole() {
        let mut value = serde_json::json!({
            "user": "a", "Password": "hunter2", "api-key": 17, "x": [{"clientSecret": {"a": ["b"]}}],
            "access_token": null, "is_token": true, "order": {"note": "ghp_0123456789abcdef"},
            "text": "{\"password\": \"hunter2\", \"a\": 1}", "same": "{ \"a\": 1 }",
        });
        scrub(&mut value);
        assert_eq!(
            value,
            serde_json::json!({
                "user": "a", "Password": "***", "api-key": "***", "x": [{"clientSecret": "***"}],
                "access_token": null, "is_token": true, "order": {"note": "***"},
                "text": "{\"password\":\"***\",\"a\":1}", "same": "{ \"a\": 1 }",
            })
        );
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        assert_eq!(bounded("äöü", 2), ("äö", true));
        assert_eq!(bounded("äöü", 3), ("äöü", false));
    }
}
