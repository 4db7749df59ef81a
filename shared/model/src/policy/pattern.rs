//! Names with `*` for any run of characters; matching never backtracks.

use crate::bounds;

/// A name pattern, compiled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(Form);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Form {
    Any,
    Exact(Box<str>),
    /// Text before the first `*`, texts between, text after the last.
    Parts(Box<str>, Box<[Box<str>]>, Box<str>),
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// A sentence that says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("an empty pattern matches nothing; write '*' for everything".to_owned());
        }
        if text.len() > bounds::URI_BYTES_MAX {
            return Err(format!("a pattern has at most {} bytes", bounds::URI_BYTES_MAX));
        }
        if text.chars().any(char::is_control) {
            return Err("a pattern has no control characters".to_owned());
        }
        let stars = text.bytes().filter(|b| *b == b'*').count();
        if stars > bounds::PATTERN_WILDCARDS_MAX {
            return Err(format!("a pattern has at most {} '*'", bounds::PATTERN_WILDCARDS_MAX));
        }
        if stars == 0 {
            return Ok(Self(Form::Exact(text.into())));
        }
        if text.bytes().all(|b| b == b'*') {
            return Ok(Self(Form::Any));
        }
        let mut parts: Vec<Box<str>> = text.split('*').map(Into::into).collect();
        let last = parts.pop().unwrap_or_default();
        let first = parts.remove(0);
        parts.retain(|part| !part.is_empty());
        Ok(Self(Form::Parts(first, parts.into(), last)))
    }

    /// From the texts between the wildcards; without a wildcard there is one text.
    pub(super) fn of_segments(mut segments: Vec<String>) -> Self {
        let last: Box<str> = segments.pop().unwrap_or_default().into();
        if segments.is_empty() {
            return Self(Form::Exact(last));
        }
        let first: Box<str> = segments.remove(0).into();
        segments.retain(|part| !part.is_empty());
        Self(Form::Parts(first, segments.into_iter().map(Into::into).collect(), last))
    }

    /// True when `text` fits.
    pub fn matches(&self, text: &str) -> bool {
        match &self.0 {
            Form::Any => true,
            Form::Exact(exact) => **exact == *text,
            Form::Parts(first, middle, last) => {
                let Some(rest) = text.strip_prefix(&**first) else { return false };
                let Some(mut rest) = rest.strip_suffix(&**last) else { return false };
                // Taking the leftmost place for each part leaves the most for the next one.
                middle.iter().all(|part| match rest.find(&**part) {
                    Some(at) => {
                        rest = &rest[at + part.len()..];
                        true
                    }
                    None => false,
                })
            }
        }
    }
}

/// A list of patterns of which one has to match: exact names by binary search, the rest in turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patterns {
    any: bool,
    exact: Vec<Box<str>>,
    globs: Vec<Pattern>,
}

impl Patterns {
    /// Reads a list.
    ///
    /// # Errors
    /// Which pattern is wrong, and why.
    pub fn parse(texts: &[String]) -> Result<Self, String> {
        let mut all = Self::default();
        for text in texts {
            let pattern = Pattern::parse(text).map_err(|why| format!("pattern {text:?}: {why}"))?;
            match pattern.0 {
                Form::Any => all.any = true,
                Form::Exact(exact) => all.exact.push(exact),
                Form::Parts(..) => all.globs.push(pattern),
            }
        }
        all.exact.sort_unstable();
        all.exact.dedup();
        Ok(all)
    }

    /// True when there is no pattern: nothing matches.
    pub fn is_empty(&self) -> bool {
        !self.any && self.exact.is_empty() && self.globs.is_empty()
    }

    /// True when one of the patterns matches.
    pub fn matches(&self, text: &str) -> bool {
        self.any
            || self.exact.binary_search_by(|probe| (**probe).cmp(text)).is_ok()
            || self.globs.iter().any(|glob| glob.matches(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_run() {
        let cases = [
            ("*", "", true),
            ("**", "abc", true),
            ("abc", "abc", true),
            ("abc", "abcd", false),
            ("a*", "a", true),
            ("*a", "ba", true),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("ab*ba", "aba", false),
            ("a*b*c", "axxbyybzzc", true),
            ("a*b*c", "axxc", false),
            ("a**c", "abc", true),
            ("*.pdf", "file:///x.pdf", true),
            ("é*", "éa", true),
        ];
        for (pattern, text, expect) in cases {
            let got = Pattern::parse(pattern).unwrap().matches(text);
            assert_eq!(got, expect, "{pattern} on {text}");
            let list = Patterns::parse(&[pattern.to_owned()]).unwrap();
            assert_eq!(list.matches(text), expect, "{pattern} on {text}, in a list");
        }
    }

    #[test]
    fn bad_patterns_say_why() {
        for (bad, part) in [
            ("", "empty"),
            ("a*b*c*d*e*f*g*h*i*j", "at most 8"),
            ("a\nb", "control"),
            (&"x".repeat(3000), "2048"),
        ] {
            assert!(Pattern::parse(bad).unwrap_err().contains(part), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn agrees_with_the_definition(pattern in "[ab*]{1,7}", text in "[ab]{0,8}") {
            fn slow(p: &[u8], t: &[u8]) -> bool {
                match (p.first(), t.first()) {
                    (None, None) => true,
                    (Some(b'*'), _) => slow(&p[1..], t) || (!t.is_empty() && slow(p, &t[1..])),
                    (Some(a), Some(b)) if a == b => slow(&p[1..], &t[1..]),
                    _ => false,
                }
            }
            let fast = Pattern::parse(&pattern).unwrap().matches(&text);
            proptest::prop_assert_eq!(fast, slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
