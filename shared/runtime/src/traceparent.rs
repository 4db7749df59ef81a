//! W3C Trace Context, level 1: the `traceparent` that joins the spans of several processes.
//!
//! Shape: `00-<32 hex: trace id>-<16 hex: parent span id>-<2 hex: flags>`. A later version may
//! have more fields behind these; an all-zero id is none. What does not parse is treated as
//! absent, which is what the recommendation asks for.

use std::fmt;

/// Longest `tracestate` that is carried on (the recommendation asks for at least this).
pub const TRACESTATE_BYTES_MAX: usize = 512;

/// Sixteen bytes that name a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceId(pub [u8; 16]);

/// Eight bytes that name a span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SpanId(pub [u8; 8]);

/// A parsed `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The span that whoever gets this works under.
    pub span: SpanId,
    /// Whether the sender records the trace.
    pub sampled: bool,
}

impl TraceParent {
    /// Parses a header or member value.
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let dashes = bytes.len() >= 55 && [2, 35, 52].iter().all(|&at| bytes[at] == b'-');
        if !dashes {
            return None;
        }
        let mut version = [0];
        let mut flags = [0];
        let mut trace = [0; 16];
        let mut span = [0; 8];
        hex(&bytes[..2], &mut version)?;
        hex(&bytes[3..35], &mut trace)?;
        hex(&bytes[36..52], &mut span)?;
        hex(&bytes[53..55], &mut flags)?;
        let ended = bytes.len() == 55 || (version[0] > 0 && bytes[55] == b'-');
        let named = trace != [0; 16] && span != [0; 8];
        (version[0] != 0xff && ended && named).then_some(Self {
            trace: TraceId(trace),
            span: SpanId(span),
            sampled: flags[0] & 1 == 1,
        })
    }
}

/// Lower-case hexadecimal only.
fn hex(text: &[u8], out: &mut [u8]) -> Option<()> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    for (pair, byte) in text.chunks_exact(2).zip(out) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(())
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    // Of a trace's id; that of a span is shorter.
    let mut text = [0; 32];
    for (two, byte) in text.as_chunks_mut().0.iter_mut().zip(bytes) {
        *two = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
    }
    f.write_str(str::from_utf8(&text[..2 * bytes.len()]).expect("hexadecimal digits are ASCII"))
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn what_is_written_is_what_was_read() {
        let parent = TraceParent::parse(GOOD).unwrap();
        assert!(parent.sampled);
        assert_eq!(parent.to_string(), GOOD);
        let later = format!("cc{}-what-the-future-brings", &GOOD[2..]);
        assert_eq!(TraceParent::parse(&later), Some(parent));
    }

    #[test]
    fn everything_else_is_none() {
        let zero_trace = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        let zero_span = "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01";
        let upper = GOOD.to_uppercase();
        let longer = format!("{GOOD}-00");
        let forbidden = format!("ff{}", &GOOD[2..]);
        let cut = &GOOD[..54];
        for bad in ["", "00", zero_trace, zero_span, &upper, &longer, &forbidden, cut] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }
}
