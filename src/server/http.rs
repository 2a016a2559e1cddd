//! What stands between hyper and a connection's socket: when a request has to be there, and what hyper
//! says when it refuses one by itself.
//!
//! hyper has one deadline for a request's head, which it starts when the answer before is out. So a
//! connection that rests would have no longer than one that drips. [`HeadTimer`] tells them apart by
//! whether anything was read. And hyper's own refusals have no body: [`HttpStream`] puts the error that
//! all others have in their place.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant as StdInstant};

use hyper::rt::{Sleep, Timer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

/// What a connection's stream tells its timer.
#[derive(Debug, Default)]
struct Pulse {
    /// Reads that brought something.
    reads: AtomicU64,
    /// Whether a head has begun that is not complete.
    in_head: AtomicBool,
}

/// The deadlines of one connection.
#[derive(Debug, Clone)]
pub(super) struct HeadTimer {
    pulse: Arc<Pulse>,
    /// How long it may rest between two requests.
    keep_alive: Duration,
    /// How long a head may take from its first byte.
    head: Duration,
}

impl HeadTimer {
    /// Whether the client had begun a request when its time was over.
    pub(super) fn in_head(&self) -> bool {
        self.pulse.in_head.load(Ordering::Relaxed)
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, _: Duration) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.until_due())
    }

    /// hyper asks for nothing but the deadline of a head, and we know better when that is.
    fn sleep_until(&self, _: StdInstant) -> Pin<Box<dyn Sleep>> {
        Box::pin(self.until_due())
    }
}

impl HeadTimer {
    fn until_due(&self) -> HeadSleep {
        self.pulse.in_head.store(false, Ordering::Relaxed);
        HeadSleep {
            timer: self.clone(),
            reads: self.pulse.reads.load(Ordering::Relaxed),
            sleep: Box::pin(tokio::time::sleep(self.keep_alive)),
        }
    }
}

/// Ready when a head should have been complete. hyper polls it after every read.
struct HeadSleep {
    timer: HeadTimer,
    /// Reads when the wait began.
    reads: u64,
    sleep: Pin<Box<tokio::time::Sleep>>,
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let pulse = self.timer.pulse.clone();
        let has_begun = pulse.reads.load(Ordering::Relaxed) > self.reads;
        if has_begun && !pulse.in_head.swap(true, Ordering::Relaxed) {
            let due = Instant::now() + self.timer.head;
            self.sleep.as_mut().reset(due);
        }
        self.sleep.as_mut().poll(cx)
    }
}

impl Sleep for HeadSleep {}

/// What a request's head may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes, the request line included.
    pub(super) bytes: usize,
    /// Headers.
    pub(super) headers: usize,
}

/// A connection's socket, as hyper has it.
pub(super) struct HttpStream {
    stream: TcpStream,
    pulse: Arc<Pulse>,
    limits: Limits,
    /// A refusal on its way out instead of hyper's, and how much of it is written.
    refusal: Option<(Vec<u8>, usize)>,
}

impl HttpStream {
    /// A stream, and the timer that belongs to it.
    pub(super) fn new(
        stream: TcpStream,
        limits: Limits,
        keep_alive: Duration,
        head: Duration,
    ) -> (Self, HeadTimer) {
        let pulse = Arc::new(Pulse::default());
        let timer = HeadTimer {
            pulse: pulse.clone(),
            keep_alive,
            head,
        };
        let stream = HttpStream {
            stream,
            pulse,
            limits,
            refusal: None,
        };
        (stream, timer)
    }

    /// The socket itself.
    pub(super) fn into_inner(self) -> TcpStream {
        self.stream
    }

    /// Writes a refusal in the place of hyper's.
    fn poll_refuse(
        &mut self,
        cx: &mut Context<'_>,
        bytes: &[u8],
        status: u16,
    ) -> Poll<io::Result<usize>> {
        let limits = self.limits;
        let (text, written) = self
            .refusal
            .get_or_insert_with(|| (refusal(status, &limits).into_bytes(), 0));
        while *written < text.len() {
            let stream = Pin::new(&mut self.stream);
            match ready!(stream.poll_write(cx, &text[*written..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => *written += count,
            }
        }
        self.refusal = None;
        Poll::Ready(Ok(bytes.len()))
    }
}

impl AsyncRead for HttpStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.pulse.reads.fetch_add(1, Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for HttpStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match refused(bytes) {
            Some(status) => self.poll_refuse(cx, bytes, status),
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut filled = parts.iter().filter(|part| !part.is_empty());
        if let (Some(only), None) = (filled.next(), filled.next())
            && let Some(status) = refused(only)
        {
            return self.poll_refuse(cx, only, status);
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// The status, if this is an answer that hyper made by itself. Every answer of ours has more headers
/// than these: `vary`, for one.
fn refused(bytes: &[u8]) -> Option<u16> {
    if !bytes.starts_with(b"HTTP/1.") || !bytes.ends_with(b"\r\n\r\n") {
        return None;
    }
    let head = std::str::from_utf8(bytes).ok()?;
    let mut lines = head.trim_end().split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut is_empty = false;
    for line in lines {
        let (name, value) = line.split_once(':')?;
        match (name, value.trim()) {
            ("content-length", "0") => is_empty = true,
            ("connection" | "date", _) => {}
            _ => return None,
        }
    }
    Some(status).filter(|status| is_empty && matches!(status, 400 | 414 | 431))
}

/// A whole answer to a request that never became one.
pub(super) fn refusal(status: u16, limits: &Limits) -> String {
    let (reason, code, message) = match status {
        408 => (
            "Request Timeout",
            "timeout",
            "the request's head took too long; see --handshake-timeout".to_owned(),
        ),
        414 => (
            "URI Too Long",
            "uri_too_long",
            "a URL has at most 65,534 bytes; send what is long in a body or a header".to_owned(),
        ),
        431 => (
            "Request Header Fields Too Large",
            "head_too_large",
            format!(
                "a request's line and headers have at most {} bytes and {} headers; see --max-header-size and --max-headers",
                limits.bytes, limits.headers
            ),
        ),
        _ => (
            "Bad Request",
            "bad_request",
            "this is no request of HTTP/1.1, such as GET /rooms/lobby HTTP/1.1 and its headers"
                .to_owned(),
        ),
    };
    let body = serde_json::json!({"error": {"code": code, "message": message}}).to_string();
    format!(
        "HTTP/1.1 {status} {reason}\r\n\
         content-type: application/json\r\n\
         connection: close\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whose_answer_it_is() {
        let own = "HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: Tue, 01 Dec 2026 00:00:00 GMT\r\n\r\n";
        assert_eq!(refused(own.as_bytes()), Some(431));
        for other in [
            "HTTP/1.1 400 Bad Request\r\nvary: origin\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 5\r\n\r\n",
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\nmore",
            "data",
            "",
        ] {
            assert_eq!(refused(other.as_bytes()), None, "{other:?}");
        }
    }
}
