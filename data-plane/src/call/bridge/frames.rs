//! The messages of a parked call on their way to the proxy at which its client came back.
//!
//! One byte says what comes, four bytes (big endian) how much of it.

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::sync::mpsc::{self, Receiver};
use weir_model::bounds;
use weir_model::reason::{Reason, Refusal};

use crate::hop::{self, Body};
use crate::upstream::Message;

const NOTIFICATION: u8 = b'n';
const RESULT: u8 = b'r';
const ERROR: u8 = b'e';
const REFUSAL: u8 = b'x';
const HEAD_BYTES: usize = 5;

/// Writes a message; none for those that no stateless client gets.
pub(super) fn write(message: &Result<Message, Refusal>) -> Option<Bytes> {
    let frame = |kind: u8, payload: &[u8]| {
        let length = u32::try_from(payload.len()).ok()?;
        let mut out = BytesMut::with_capacity(HEAD_BYTES + payload.len());
        out.put_u8(kind);
        out.put_u32(length);
        out.put_slice(payload);
        Some(out.freeze())
    };
    match message {
        Ok(Message::Notification(raw)) => frame(NOTIFICATION, raw),
        Ok(Message::Result(raw)) => frame(RESULT, raw),
        Ok(Message::Error(raw)) => frame(ERROR, raw),
        Ok(_) => None,
        Err(refusal) => frame(REFUSAL, &hop::tell(refusal)),
    }
}

/// Reads messages as they come. A body that ends too early ends in a refusal.
pub(super) fn read(mut body: Body) -> Receiver<Result<Message, Refusal>> {
    let (sender, messages) = mpsc::channel(bounds::STREAM_QUEUE_MESSAGES);
    tokio::spawn(async move {
        let lost =
            || Refusal::new(Reason::UpstreamClosed, "the proxy with the parked call is lost");
        let mut buffer = BytesMut::new();
        loop {
            let message = match next(&mut buffer) {
                Ok(Some(message)) => message,
                Err(refusal) => Err(refusal),
                Ok(None) => match tokio::select! {
                    frame = body.frame() => frame,
                    () = sender.closed() => return,
                } {
                    Some(Ok(frame)) => {
                        if let Some(data) = frame.data_ref() {
                            buffer.extend_from_slice(data);
                        }
                        continue;
                    }
                    Some(Err(_)) | None => Err(lost()),
                },
            };
            let last = matches!(message, Err(_) | Ok(Message::Result(_) | Message::Error(_)));
            if sender.send(message).await.is_err() || last {
                return;
            }
        }
    });
    messages
}

/// The next whole message of the buffer.
#[allow(clippy::type_complexity)] // the outer error is ours, the inner one the holder's
fn next(buffer: &mut BytesMut) -> Result<Option<Result<Message, Refusal>>, Refusal> {
    let broken =
        |what: &str| Refusal::new(Reason::Internal, format!("a frame between proxies: {what}"));
    if buffer.len() < HEAD_BYTES {
        return Ok(None);
    }
    let length = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
    if length > bounds::UPSTREAM_MESSAGE_BYTES_MAX {
        return Err(broken("too long"));
    }
    if buffer.len() < HEAD_BYTES + length {
        return Ok(None);
    }
    let kind = buffer[0];
    buffer.advance(HEAD_BYTES);
    let payload = buffer.split_to(length).freeze();
    Ok(Some(match kind {
        NOTIFICATION => Ok(Message::Notification(payload)),
        RESULT => Ok(Message::Result(payload)),
        ERROR => Ok(Message::Error(payload)),
        REFUSAL => Err(hop::told(&payload)),
        _ => return Err(broken("of an unknown kind")),
    }))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test]
    async fn messages_come_as_they_went_however_they_are_cut() {
        let sent = [
            Ok(Message::Notification(Bytes::from_static(b"{\"n\":1}"))),
            Ok(Message::Notification(Bytes::new())),
            Ok(Message::Result(Bytes::from(vec![b'x'; 70_000]))),
        ];
        let bytes: Vec<u8> = sent.iter().filter_map(write).flatten().collect();
        for size in [1, 3, 4_096, bytes.len()] {
            let parts: Vec<_> =
                bytes.chunks(size).map(|part| Ok(Bytes::copy_from_slice(part))).collect();
            let mut messages = read(hop::streamed(stream::iter(parts)));
            for expect in &sent {
                let got = messages.recv().await.unwrap();
                assert_eq!(format!("{got:?}"), format!("{expect:?}"), "{size}");
            }
            assert!(messages.recv().await.is_none());
        }
    }

    #[tokio::test]
    async fn what_is_broken_or_cut_off_ends_in_a_refusal() {
        let refusal = Refusal::new(Reason::RateLimited, "x").retry_after(3);
        let told = write(&Err(refusal)).unwrap();
        let whole = write(&Ok(Message::Result(Bytes::from_static(b"{}")))).unwrap();
        let cut = whole.slice(..whole.len() - 1);
        for (bytes, reason) in [
            (told, Reason::RateLimited),
            (cut, Reason::UpstreamClosed),
            (Bytes::new(), Reason::UpstreamClosed),
            (Bytes::from_static(b"?\0\0\0\0"), Reason::Internal),
            (Bytes::from_static(b"r\xff\xff\xff\xff"), Reason::Internal),
        ] {
            let mut messages = read(hop::whole(bytes.clone()));
            let got = messages.recv().await.unwrap().unwrap_err();
            assert_eq!(got.reason, reason, "{bytes:?}");
            assert!(messages.recv().await.is_none());
        }
        assert!(write(&Ok(Message::Request(Bytes::new()))).is_none());
    }
}
