//! Server-sent events, read incrementally.
//!
//! Bytes go in as they arrive, split anywhere; events come out. Lines end with CR, LF or CRLF;
//! comments and unknown fields are ignored; an event that carries only an id or a retry time (the
//! "priming" event of 2025-11-25) comes out without data. Every byte is looked at once, and an
//! event longer than the bound is an error, so that memory stays bounded whatever a peer sends.

use bytes::Bytes;

/// One event, or the bookkeeping of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// `event:`; none means `message`.
    pub name: Option<String>,
    /// `data:` lines joined by LF; none when there was no such field or it was empty.
    pub data: Option<Bytes>,
    /// `id:` of this event (not the last one of the stream).
    pub id: Option<String>,
    /// `retry:` in milliseconds.
    pub retry_ms: Option<u64>,
}

/// Why a stream is not read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SseError {
    /// One event is longer than the bound.
    #[error("an event is longer than {0} bytes")]
    TooLong(usize),
    /// An id or an event name is no UTF-8.
    #[error("an event is not UTF-8")]
    NotUtf8,
}

/// The parser. Feed it with [`Parser::push`].
#[derive(Debug)]
pub struct Parser {
    /// Bound on the bytes of one event, its lines and its data together.
    max: usize,
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    event: Event,
    /// The last byte was CR: a LF that follows belongs to it.
    after_cr: bool,
    /// No line was finished yet: a byte order mark may stand here.
    start: bool,
}

impl Parser {
    /// A parser that refuses events longer than `max` bytes.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            line: Vec::new(),
            data: Vec::new(),
            has_data: false,
            event: Event::default(),
            after_cr: false,
            start: true,
        }
    }

    /// Takes the next bytes and hands each finished event to `found`.
    ///
    /// # Errors
    /// When an event is too long or broken; the parser must not be used afterwards.
    pub fn push(&mut self, mut bytes: &[u8], found: &mut dyn FnMut(Event)) -> Result<(), SseError> {
        while !bytes.is_empty() {
            if self.after_cr {
                self.after_cr = false;
                if bytes[0] == b'\n' {
                    bytes = &bytes[1..];
                    continue;
                }
            }
            let end = bytes.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let (part, rest) = match end {
                Some(at) => (&bytes[..at], &bytes[at + 1..]),
                None => (bytes, &bytes[bytes.len()..]),
            };
            if self.line.len() + self.data.len() + part.len() > self.max {
                return Err(SseError::TooLong(self.max));
            }
            self.line.extend_from_slice(part);
            if let Some(at) = end {
                self.after_cr = bytes[at] == b'\r';
                self.end_line(found)?;
            }
            bytes = rest;
        }
        Ok(())
    }

    fn end_line(&mut self, found: &mut dyn FnMut(Event)) -> Result<(), SseError> {
        let mut line = std::mem::take(&mut self.line);
        let mut text = line.as_slice();
        if std::mem::take(&mut self.start) {
            text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        }
        if text.is_empty() {
            self.end_event(found);
        } else {
            self.field(text)?;
        }
        line.clear();
        self.line = line;
        Ok(())
    }

    fn field(&mut self, line: &[u8]) -> Result<(), SseError> {
        let (name, value) = match line.iter().position(|b| *b == b':') {
            Some(0) => return Ok(()),
            Some(at) => (&line[..at], &line[at + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        let text = || String::from_utf8(value.to_vec()).map_err(|_| SseError::NotUtf8);
        match name {
            b"data" => {
                if self.has_data {
                    self.data.push(b'\n');
                }
                self.has_data = true;
                self.data.extend_from_slice(value);
            }
            b"event" => self.event.name = Some(text()?).filter(|name| !name.is_empty()),
            b"id" if !value.contains(&0) => self.event.id = Some(text()?),
            b"retry" if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
                self.event.retry_ms = text()?.parse().ok();
            }
            _ => {}
        }
        Ok(())
    }

    fn end_event(&mut self, found: &mut dyn FnMut(Event)) {
        let mut event = std::mem::take(&mut self.event);
        let data = std::mem::take(&mut self.data);
        self.has_data = false;
        if !data.is_empty() {
            event.data = Some(Bytes::from(data));
        }
        // A name alone dispatches nothing, as in the standard.
        if event.data.is_some() || event.id.is_some() || event.retry_ms.is_some() {
            found(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parsed(chunks: &[&[u8]]) -> Result<Vec<Event>, SseError> {
        let mut parser = Parser::new(4096);
        let mut events = Vec::new();
        for chunk in chunks {
            parser.push(chunk, &mut |event| events.push(event))?;
        }
        Ok(events)
    }

    fn one(text: &str) -> Event {
        let mut events = parsed(&[text.as_bytes()]).expect("parses");
        assert_eq!(events.len(), 1, "{text:?}: {events:?}");
        events.remove(0)
    }

    fn data(text: &'static str) -> Option<Bytes> {
        Some(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn fields_are_read_as_the_standard_says() {
        assert_eq!(one("data: {}\n\n").data, data("{}"));
        assert_eq!(one("data:{}\r\r").data, data("{}"));
        assert_eq!(one("data:  {}\r\n\r\n").data, data(" {}"));
        assert_eq!(one("\u{feff}data: a\ndata: b\ndata\n\n").data, data("a\nb\n"));
        assert_eq!(one(": hi\n:\n\nevent: x\ndata: a\n\n").name.as_deref(), Some("x"));
        let primed = one("id: 7\ndata:\n\n");
        assert_eq!((primed.id.as_deref(), primed.data), (Some("7"), None));
        assert_eq!(one("retry: 1500\n\n").retry_ms, Some(1500));
        assert_eq!(one("retry: 1s\nid: a\n\n").retry_ms, None);
        assert_eq!(one("id: a\u{0}b\ndata: x\n\n").id, None);
        assert_eq!(parsed(&[b"event: x\n\n\n\n:c\n\n"]).expect("parses"), vec![]);
        assert_eq!(parsed(&[b"data: never finished\n"]).expect("parses"), vec![]);
    }

    #[test]
    fn an_event_is_bounded_however_it_grows() {
        let long_line = vec![b'x'; 5000];
        assert_eq!(parsed(&[&long_line]), Err(SseError::TooLong(4096)));
        let lines = "data: 0123456789\n".repeat(500);
        assert_eq!(parsed(&[lines.as_bytes()]), Err(SseError::TooLong(4096)));
        let events = "data: 0123456789\n\n".repeat(500);
        assert_eq!(parsed(&[events.as_bytes()]).expect("parses").len(), 500);
    }

    #[test]
    fn time_grows_with_the_bytes_only() {
        let mut parser = Parser::new(8 << 20);
        let mut count = 0;
        parser.push(b"data: ", &mut |_| count += 1).expect("parses");
        for _ in 0..(4 << 20) {
            parser.push(b"x", &mut |_| count += 1).expect("parses");
        }
        parser.push(b"\n\n", &mut |_| count += 1).expect("parses");
        assert_eq!(count, 1);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just("data: {\"a\":1}".to_owned()),
            Just("data".to_owned()),
            Just("data:".to_owned()),
            Just("id: 5".to_owned()),
            Just("retry: 9".to_owned()),
            Just("event: message".to_owned()),
            Just(": keep-alive".to_owned()),
            Just(String::new()),
            "[a-z:ä ]{0,12}",
        ];
        let end = prop_oneof![Just("\n"), Just("\r"), Just("\r\n")];
        proptest::collection::vec((piece, end), 0..40).prop_map(|lines| {
            lines.into_iter().flat_map(|(line, end)| (line + end).into_bytes()).collect()
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_events(
            bytes in stream(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let whole = parsed(&[&bytes]);
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for cut in cuts {
                chunks.push(&bytes[from..cut]);
                from = cut;
            }
            chunks.push(&bytes[from..]);
            prop_assert_eq!(&parsed(&chunks), &whole);
            let single: Vec<&[u8]> = bytes.chunks(1).collect();
            prop_assert_eq!(&parsed(&single), &whole);
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..5000)) {
            let _ = parsed(&[&bytes]);
        }

        #[test]
        fn line_ends_are_alike(bytes in stream()) {
            let text = String::from_utf8(bytes).expect("text").replace("\r\n", "\n").replace('\r', "\n");
            let lf = parsed(&[text.as_bytes()]);
            prop_assert_eq!(&parsed(&[text.replace('\n', "\r\n").as_bytes()]), &lf);
            prop_assert_eq!(&parsed(&[text.replace('\n', "\r").as_bytes()]), &lf);
        }
    }
}
