//! Messages on stdin and stdout: one line each.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use weir_model::bounds;

/// Messages that wait for a slow host. Then streams of the gateway wait too.
const QUEUE: usize = 64;

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its end.
    Text(Bytes),
    /// Longer than any message may be; skipped.
    TooLong,
    /// The host has closed its side.
    End,
}

/// Reads lines of at most [`bounds::REQUEST_BODY_BYTES_MAX`] bytes.
#[derive(Debug)]
pub(super) struct Reader<R> {
    from: R,
}

impl<R: AsyncBufRead + Unpin> Reader<R> {
    pub(super) fn new(from: R) -> Self {
        Self { from }
    }

    /// The next line that is not blank. What ends without a line end counts as a line.
    pub(super) async fn next(&mut self) -> Line {
        loop {
            let mut line = BytesMut::new();
            let mut long = false;
            let ended = loop {
                let Ok(chunk) = self.from.fill_buf().await else { return Line::End };
                if chunk.is_empty() {
                    break true;
                }
                let end = chunk.iter().position(|b| *b == b'\n');
                let part = &chunk[..end.unwrap_or(chunk.len())];
                long |= line.len() + part.len() > bounds::REQUEST_BODY_BYTES_MAX;
                if !long {
                    line.extend_from_slice(part);
                }
                let used = end.map_or(chunk.len(), |at| at + 1);
                self.from.consume(used);
                if end.is_some() {
                    break false;
                }
            };
            let blank = line.iter().all(u8::is_ascii_whitespace);
            match (long, blank, ended) {
                (true, _, _) => return Line::TooLong,
                (_, true, true) => return Line::End,
                (_, true, false) => {}
                (_, false, _) => return Line::Text(line.freeze()),
            }
        }
    }
}

/// Writes what is sent to it, one line per message, until every sender is gone or the host has
/// closed its side.
pub(super) fn writer(
    mut to: impl AsyncWrite + Send + Unpin + 'static,
) -> (mpsc::Sender<Bytes>, JoinHandle<()>) {
    let (sender, mut messages) = mpsc::channel::<Bytes>(QUEUE);
    let task = tokio::spawn(async move {
        while let Some(message) = messages.recv().await {
            let mut line = BytesMut::with_capacity(message.len() + 1);
            line.extend_from_slice(&message);
            // Outside of strings JSON may have line ends; within them it has none.
            line.iter_mut().filter(|b| matches!(b, b'\n' | b'\r')).for_each(|b| *b = b' ');
            line.extend_from_slice(b"\n");
            if to.write_all(&line).await.is_err() || to.flush().await.is_err() {
                tracing::info!("the host has closed its side");
                return;
            }
        }
    });
    (sender, task)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(text: &[u8]) -> Vec<Line> {
        let mut reader = Reader::new(text);
        let mut lines = Vec::new();
        loop {
            match reader.next().await {
                Line::End => return lines,
                line => lines.push(line),
            }
        }
    }

    fn text(text: &'static str) -> Line {
        Line::Text(Bytes::from_static(text.as_bytes()))
    }

    #[tokio::test]
    async fn lines_are_messages_and_blank_ones_are_not() {
        let read = all(b"{\"a\":1}\n\n \r\n{\"b\":2}\r\n{\"c\":3}").await;
        assert_eq!(read, vec![text("{\"a\":1}"), text("{\"b\":2}\r"), text("{\"c\":3}")]);
        assert_eq!(all(b"").await, vec![]);
    }

    #[tokio::test]
    async fn a_line_without_end_does_not_fill_the_memory() {
        let mut long = vec![b'x'; bounds::REQUEST_BODY_BYTES_MAX + 1];
        long.extend_from_slice(b"\n{}\n");
        assert_eq!(all(&long).await, vec![Line::TooLong, text("{}")]);
    }

    #[tokio::test]
    async fn messages_with_line_ends_become_one_line() {
        let (mut host, out) = tokio::io::duplex(1024);
        let (sender, task) = writer(out);
        sender.send(Bytes::from_static(b"{\r\n\"a\":\"x\\n\"}")).await.unwrap();
        drop(sender);
        task.await.unwrap();
        let mut got = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut host, &mut got).await.unwrap();
        assert_eq!(got, "{  \"a\":\"x\\n\"}\n");
    }
}
