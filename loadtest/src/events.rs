//! Server-sent events of a response, one by one as they come.

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// Reads the `data` of events.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    buffer: BytesMut,
}

/// One event may not be longer.
const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;

impl Events {
    /// Of a response's body.
    pub fn new(body: Incoming) -> Self {
        Self { body, buffer: BytesMut::new() }
    }

    /// The data of the next event that has any; none at the end.
    ///
    /// # Errors
    /// When the connection breaks or an event is too long.
    pub async fn next(&mut self) -> anyhow::Result<Option<Bytes>> {
        Ok(self.named().await?.map(|(_, data)| data))
    }

    /// The name and the data of the next event that has data; none at the end.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn named(&mut self) -> anyhow::Result<Option<(String, Bytes)>> {
        loop {
            while let Some(event) = take(&mut self.buffer) {
                if !event.1.is_empty() {
                    return Ok(Some(event));
                }
            }
            anyhow::ensure!(self.buffer.len() < EVENT_BYTES_MAX, "an event is too long");
            let Some(frame) = self.body.frame().await else { return Ok(None) };
            if let Ok(data) = frame?.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// Takes one event off the buffer when it is whole.
fn take(buffer: &mut BytesMut) -> Option<(String, Bytes)> {
    let end = |mark: &[u8]| {
        buffer.windows(mark.len()).position(|window| window == mark).map(|at| (at, mark.len()))
    };
    let (at, length) = end(b"\n\n").into_iter().chain(end(b"\r\n\r\n")).min()?;
    let event = buffer.split_to(at);
    buffer.advance(length);
    let text = String::from_utf8_lossy(&event);
    let (mut name, mut data) = (String::new(), String::new());
    for line in text.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut name),
            "data" => {
                if !data.is_empty() {
                    data.push('\n');
                }
                data.push_str(value);
            }
            _ => {}
        }
    }
    Some((name, data.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_whole() {
        let mut buffer = BytesMut::from(": quiet\n\nevent: endpoint\ndata: /x\n\ndata: {\r\n");
        assert_eq!(take(&mut buffer), Some((String::new(), Bytes::new())));
        assert_eq!(take(&mut buffer), Some(("endpoint".to_owned(), "/x".into())));
        assert_eq!(take(&mut buffer), None);
        buffer.extend_from_slice(b"data:}\r\n\r\n");
        assert_eq!(take(&mut buffer), Some((String::new(), "{\n}".into())));
    }
}
