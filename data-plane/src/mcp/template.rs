//! Which resource template a URI belongs to (RFC 6570, as far as routing and checking need it).
//!
//! `{var}` stands for a part without `/`, `?` and `#`, which an expansion would have escaped;
//! operators and `*` stand for any run. Matching is linear in template times URI and never builds
//! a pattern from what a server published.

/// True when expanding `template` can give `uri`.
pub fn matches(template: &str, uri: &str) -> bool {
    let Some(parts) = parse(template) else { return false };
    // Positions in the URI that the parts so far can end at.
    let mut ends = vec![false; uri.len() + 1];
    ends[0] = true;
    for part in parts {
        ends = match part {
            Part::Literal(text) => after_literal(&ends, uri, text),
            Part::Run(run) => after_run(&ends, uri, run),
        };
    }
    ends[uri.len()]
}

/// What the variables of a template take, in words, for a URI that begins like it and still is no
/// expansion of it.
pub fn near(template: &str, uri: &str) -> Option<String> {
    let parts = parse(template)?;
    let Some(Part::Literal(begin)) = parts.first() else { return None };
    if !uri.starts_with(begin) || matches(template, uri) {
        return None;
    }
    let mut told: Vec<String> = Vec::new();
    for part in &parts {
        let Part::Run(run) = part else { continue };
        let rule = match (run.any, run.empty) {
            (false, _) => "one part, at least one character, none of / ? # (escape them)",
            (true, false) => "at least one character",
            (true, true) => "any text, or nothing",
        };
        told.push(format!("{{{}}} takes {rule}", run.expression));
    }
    Some(format!("{template}: {}", told.join("; ")))
}

/// False for a URI that stands for another one: its path has a segment `.` or `..`, escaped or not,
/// or it escapes a letter, a digit or one of `-._~`, which need none (RFC 3986, sections 5.2.4 and
/// 6.2.2.2). Rules compare text and could be led astray.
pub fn is_plain(uri: &str) -> bool {
    let mut text = String::with_capacity(uri.len());
    let mut rest = uri;
    while let Some((before, after)) = rest.split_once('%') {
        text.push_str(before);
        let escaped = after.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => return false,
            Some(b'/' | b'\\') => text.push('/'),
            _ => text.push('%'),
        }
        rest = if escaped.is_some() { &after[2..] } else { after };
    }
    text.push_str(rest);
    let path = text.split(['?', '#']).next().unwrap_or_default();
    !path.split(['/', '\\']).any(|segment| segment == "." || segment == "..")
}

enum Part<'a> {
    Literal(&'a str),
    Run(Run<'a>),
}

/// An expression between braces.
#[derive(Clone, Copy)]
struct Run<'a> {
    expression: &'a str,
    /// Takes reserved characters too.
    any: bool,
    /// Takes nothing.
    empty: bool,
}

impl Run<'_> {
    fn takes(self, byte: u8) -> bool {
        // Never part of a URI; and nobody means a template by a URI.
        let foreign = byte.is_ascii_control() || matches!(byte, b'{' | b'}');
        !foreign && (self.any || !matches!(byte, b'/' | b'?' | b'#'))
    }
}

fn parse(template: &str) -> Option<Vec<Part<'_>>> {
    /// Expressions of one template; more make no sense and cost time.
    const EXPRESSIONS_MAX: usize = 32;
    let mut parts = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (expression, after) = after.split_once('}')?;
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        let operator = expression.starts_with(['+', '#', '/', '?', '&', ';', '.']);
        let any = operator || expression.contains('*');
        parts.push(Part::Run(Run { expression, any, empty: operator }));
        if parts.len() > 2 * EXPRESSIONS_MAX {
            return None;
        }
        rest = after;
    }
    if rest.contains('}') {
        return None;
    }
    if !rest.is_empty() {
        parts.push(Part::Literal(rest));
    }
    Some(parts)
}

fn after_literal(ends: &[bool], uri: &str, literal: &str) -> Vec<bool> {
    let mut next = vec![false; ends.len()];
    for (at, _) in ends.iter().enumerate().filter(|(_, end)| **end) {
        if uri.as_bytes()[at..].starts_with(literal.as_bytes()) {
            next[at + literal.len()] = true;
        }
    }
    next
}

fn after_run(ends: &[bool], uri: &str, run: Run<'_>) -> Vec<bool> {
    let mut next = vec![false; ends.len()];
    let mut running = false;
    for (at, byte) in uri.bytes().enumerate() {
        next[at] |= run.empty && ends[at];
        running = (running || ends[at]) && run.takes(byte);
        next[at + 1] |= running;
    }
    next[uri.len()] |= run.empty && ends[uri.len()];
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_route() {
        let table = [
            ("test://template/{id}/data", "test://template/123/data", true),
            ("test://template/{id}/data", "test://template/1/2/data", false),
            ("test://template/{id}/data", "test://template//data", false),
            ("test://template/{id}", "test://template/1?x=2", false),
            ("test://template/{id}", "test://template/1#x", false),
            ("test://template/{id}", "test://template/1%3Fx", true),
            ("test://template/{id}", "test://template/{id}", false),
            ("test://template/{id}", "test://template/1\n2", false),
            ("file:///{+path}", "file:///a/b/c.txt", true),
            ("file:///{path*}", "file:///a/b", true),
            ("file:///{+path}", "file:///a\0b", false),
            ("db://{table}{?limit,offset}", "db://users", true),
            ("db://{table}{?limit,offset}", "db://users?limit=1", true),
            ("plain://x", "plain://x", true),
            ("plain://x", "plain://xy", false),
            ("broken://{x", "broken://1", false),
            ("{a}{b}", "xy", true),
            ("ü://{x}", "ü://é", true),
        ];
        for (template, uri, expected) in table {
            assert_eq!(matches(template, uri), expected, "{template} {uri}");
        }
    }

    #[test]
    fn a_near_miss_is_told_by_its_variables() {
        let said = near("test://t/{id}", "test://t/a/b").unwrap();
        assert!(said.starts_with("test://t/{id}: {id} takes one part"), "{said}");
        assert!(near("db://{t}{?limit}", "db://").unwrap().contains("{?limit} takes any text"));
        assert_eq!(near("test://t/{id}", "test://t/7"), None, "it fits");
        assert_eq!(near("test://t/{id}", "other://t/7"), None, "it is about something else");
        assert_eq!(near("{scheme}://x", "a://y"), None, "everything begins like it");
    }

    #[test]
    fn segments_that_lead_elsewhere_are_found() {
        let table = [
            ("wiki://public/start", true),
            ("wiki://public/..", false),
            ("wiki://public/../private", false),
            ("wiki://public/./start", false),
            ("wiki://public/%2e%2E/private", false),
            ("wiki://public/.%2e/private", false),
            ("wiki://public%2f..%2Fprivate", false),
            ("file:///c:\\a\\..\\b", false),
            ("wiki://public/%5c..%5Cprivate", false),
            ("wiki://public/%252e%252e/x", true),
            ("wiki://public/...", true),
            ("wiki://public/a..b/.hidden/c.", true),
            ("wiki://%70rivate/a", false),
            ("wiki://private/%61", false),
            ("wiki://x?q=%61", false),
            ("wiki://a%20b/%C3%A9%2Cc%3F", true),
            ("wiki://x/%+1/%-1", true),
            ("wiki://public/100%", true),
            ("wiki://public/100%2", true),
            ("wiki://public/%é", true),
            ("search://q?path=../x#../y", true),
            ("", true),
        ];
        for (uri, plain) in table {
            assert_eq!(is_plain(uri), plain, "{uri}");
        }
    }

    #[test]
    fn hostile_templates_cost_little() {
        let template = "{a}x".repeat(32);
        assert!(!matches(&template, &"x".repeat(2048)) || template.len() > 1);
        assert!(!matches(&"{a}".repeat(1000), "x"));
    }
}
