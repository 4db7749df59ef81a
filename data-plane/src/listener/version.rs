//! Which HTTP a connection speaks: HTTP/2 begins with a preface that no request of HTTP/1.1 begins
//! with.
//!
//! What was read to tell is read again from the [`Begun`] socket, together with what came behind
//! it: a buffer that got the first bytes alone would be made anew, twice as large, for the rest of
//! the head, and be kept for as long as the connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// What a connection of HTTP/2 begins with (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A socket of which the first bytes were read already.
#[derive(Debug)]
pub(super) struct Begun<I> {
    io: I,
    first: [u8; PREFACE.len()],
    /// Those of `first` that are still to be read.
    from: u8,
    to: u8,
}

/// Reads until it is clear; true for HTTP/2. A connection that ends before is none.
///
/// # Errors
/// Of the socket.
pub(super) async fn tell<I: AsyncRead + Unpin>(mut io: I) -> io::Result<(bool, Begun<I>)> {
    let mut first = [0; PREFACE.len()];
    let mut to = 0;
    while to < PREFACE.len() && first[..to] == PREFACE[..to] {
        match io.read(&mut first[to..]).await? {
            0 => break,
            read => to += read,
        }
    }
    let http2 = first == *PREFACE;
    // No more than the 24 of the preface.
    Ok((http2, Begun { io, first, from: 0, to: to as u8 }))
}

impl<I: AsyncRead + Unpin> AsyncRead for Begun<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let left = &this.first[usize::from(this.from)..usize::from(this.to)];
        let now = left.len().min(buffer.remaining());
        if now == 0 {
            return Pin::new(&mut this.io).poll_read(context, buffer);
        }
        buffer.put_slice(&left[..now]);
        this.from += now as u8;
        match Pin::new(&mut this.io).poll_read(context, buffer) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            // There is something in any case.
            Poll::Ready(Ok(())) | Poll::Pending => Poll::Ready(Ok(())),
        }
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Begun<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(context, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt as _;

    /// Sends the pieces one by one, then the end.
    async fn told(pieces: &[&[u8]]) -> (bool, Vec<u8>) {
        let (mut near, far) = tokio::io::duplex(64);
        let send = async move {
            for piece in pieces {
                near.write_all(piece).await.unwrap();
                tokio::task::yield_now().await;
            }
        };
        let tell = async {
            let (http2, mut begun) = tell(far).await.unwrap();
            let mut all = Vec::new();
            begun.read_to_end(&mut all).await.unwrap();
            (http2, all)
        };
        tokio::join!(send, tell).1
    }

    #[tokio::test]
    async fn http2_is_told_by_its_preface_and_nothing_is_lost() {
        let whole = [&PREFACE[..], b"\0\0\0\x04\0\0\0\0\0"].concat();
        let cases: [(bool, &[&[u8]]); 8] = [
            (true, &[&whole]),
            (true, &[&whole[..3], &whole[3..20], &whole[20..]]),
            (true, &[PREFACE]),
            (false, &[b"POST /mcp HTTP/1.1\r\nhost: weir.test\r\n\r\n"]),
            (false, &[b"P", b"OST /mcp HTTP/1.1\r\n\r\n"]),
            (false, &[b"PRI * HTTP/2.0\r\n\r\nSM\r\n", b"-\n and so on"]),
            (false, &[b"PRI * HT"]),
            (false, &[]),
        ];
        for (http2, pieces) in cases {
            assert_eq!(told(pieces).await, (http2, pieces.concat()), "{pieces:?}");
        }
    }

    #[tokio::test]
    async fn what_has_come_is_read_at_once() {
        let (mut near, far) = tokio::io::duplex(256);
        let head = b"POST /mcp HTTP/1.1\r\nhost: weir.test\r\ncontent-length: 0\r\n\r\n";
        near.write_all(head).await.unwrap();
        let (_, mut begun) = tell(far).await.unwrap();
        let mut buffer = [0; 256];
        assert_eq!(begun.read(&mut buffer).await.unwrap(), head.len());
        // A buffer that is shorter than what was read ahead gets the rest later.
        near.write_all(head).await.unwrap();
        let (_, mut begun) = tell(begun).await.unwrap();
        let mut all = Vec::new();
        for _ in 0..6 {
            let read = begun.read(&mut buffer[..10]).await.unwrap();
            all.extend_from_slice(&buffer[..read]);
        }
        assert_eq!(all, head[..all.len()]);
        assert!(all.len() > PREFACE.len());
    }
}
