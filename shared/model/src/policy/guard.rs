//! Bounds on Cedar text, checked byte by byte before a parser sees it: what a recursive parser
//! would follow, brackets as well as chains of operators, can abort a process.

use crate::bounds;

/// # Errors
/// A sentence that says which bound the text breaks, and where.
pub(super) fn check(text: &str) -> Result<(), String> {
    if text.len() > bounds::CEDAR_BYTES_MAX {
        let (have, most) = (text.len(), bounds::CEDAR_BYTES_MAX);
        return Err(format!("the text has {have} bytes, at most {most} are allowed; split it"));
    }
    if let Some(at) = text.find(is_reordering) {
        let place = position(text, at);
        return Err(format!("{place}: a control character makes the text look other than it is"));
    }
    let bytes = text.as_bytes();
    let (mut depth, mut conditionals, mut operators, mut at) = (0_usize, 0_usize, 0_usize, 0_usize);
    while let Some(byte) = bytes.get(at) {
        let start = at;
        at += 1;
        match byte {
            b'"' => at = after_string(bytes, at),
            b'/' if bytes.get(at) == Some(&b'/') => {
                while bytes.get(at).is_some_and(|b| !matches!(b, b'\n' | b'\r')) {
                    at += 1;
                }
            }
            b'(' | b'[' | b'{' => (depth, operators) = (depth + 1, operators + 1),
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b';' => (conditionals, operators) = (0, 0),
            b'.' | b'&' | b'|' | b'+' | b'-' | b'*' | b'!' => operators += 1,
            b if is_word(*b) => {
                while bytes.get(at).is_some_and(|b| is_word(*b)) {
                    at += 1;
                }
                conditionals += usize::from(&bytes[start..at] == b"if");
            }
            _ => {}
        }
        if depth.max(conditionals) > bounds::CEDAR_DEPTH_MAX {
            return Err(format!(
                "{}: brackets and 'if' nest deeper than {}; write simpler rules",
                position(text, start),
                bounds::CEDAR_DEPTH_MAX
            ));
        }
        if operators > bounds::CEDAR_OPERATORS_MAX {
            return Err(format!(
                "{}: more than {} operators in one policy; split it",
                position(text, start),
                bounds::CEDAR_OPERATORS_MAX
            ));
        }
    }
    Ok(())
}

/// Characters that reorder text where it is shown: a reviewer would not see what is evaluated.
fn is_reordering(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{200e}' | '\u{200f}' | '\u{61c}')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn after_string(bytes: &[u8], mut at: usize) -> usize {
    while let Some(byte) = bytes.get(at) {
        at += match byte {
            b'\\' => 2,
            b'"' => return at + 1,
            _ => 1,
        };
    }
    bytes.len()
}

/// `line 3, column 14` of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> String {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let before = &text[..end];
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    format!("line {line}, column {column}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_hold_before_parsing() {
        let nested = |n: usize| {
            format!(
                "permit(principal,action,resource) when {{ {}true{} }};",
                "(".repeat(n),
                ")".repeat(n)
            )
        };
        assert!(check(&nested(49)).is_ok());
        let why = check(&nested(300)).unwrap_err();
        assert!(why.contains("line 1, column") && why.contains("50"), "{why}");
        assert!(check(&"[".repeat(60)).is_err());
        assert!(check(&"if true then ".repeat(51)).is_err());
        assert!(check(&"if true then 1 else 2;".repeat(60)).is_ok(), "counted per policy");
        assert!(check(&" ".repeat(70_000)).unwrap_err().contains("65536"));
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_count() {
        let many = "(".repeat(100);
        assert!(check(&format!("\"{many}\"")).is_ok());
        assert!(check(&format!("\"\\\"{many}\"")).is_ok());
        assert!(check(&format!("// {many}\n")).is_ok());
        assert!(check(&format!("// \"\n{many}")).is_err(), "a quote in a comment opens nothing");
        assert!(check(&format!("\"//\" {many}")).is_err(), "slashes in a string open nothing");
        assert!(check("\"unfinished \\").is_ok(), "the parser's business");
    }

    #[test]
    fn positions_count_lines_and_characters() {
        assert_eq!(position("ab\ncd", 4), "line 2, column 2");
        assert_eq!(position("é", 2), "line 1, column 2");
        assert_eq!(position("é", 99), "line 1, column 2");
    }
}
