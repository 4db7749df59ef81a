//! Which resource template a URI belongs to (RFC 6570, as far as routing needs it).
//!
//! `{var}` stands for a run without `/`; operators and `*` stand for any run. Matching is linear
//! in template times URI and never builds a pattern from what a server published.

/// True when expanding `template` can give `uri`.
pub fn matches(template: &str, uri: &str) -> bool {
    let Some(parts) = parse(template) else { return false };
    // Positions in the URI that the parts so far can end at.
    let mut ends = vec![false; uri.len() + 1];
    ends[0] = true;
    for part in parts {
        ends = match part {
            Part::Literal(text) => after_literal(&ends, uri, text),
            Part::Run { slash, empty } => after_run(&ends, uri, slash, empty),
        };
    }
    ends[uri.len()]
}

enum Part<'a> {
    Literal(&'a str),
    Run { slash: bool, empty: bool },
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
        parts.push(Part::Run { slash: operator || expression.contains('*'), empty: operator });
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

fn after_run(ends: &[bool], uri: &str, slash: bool, empty: bool) -> Vec<bool> {
    let mut next = vec![false; ends.len()];
    let mut running = false;
    for (at, byte) in uri.bytes().enumerate() {
        next[at] |= empty && ends[at];
        running = (running || ends[at]) && (slash || byte != b'/');
        next[at + 1] |= running;
    }
    next[uri.len()] |= empty && ends[uri.len()];
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
            ("file:///{+path}", "file:///a/b/c.txt", true),
            ("file:///{path*}", "file:///a/b", true),
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
    fn hostile_templates_cost_little() {
        let template = "{a}x".repeat(32);
        assert!(!matches(&template, &"x".repeat(2048)) || template.len() > 1);
        assert!(!matches(&"{a}".repeat(1000), "x"));
    }
}
