//! The socket under a long-lived connection, once it has left HTTP.
//!
//! It's shared: the front end reads, the relay writes, and neither needs a lock, because the kernel
//! has one buffer for each direction.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};
use tokio_util::either::Either;

use crate::relay::outlet::Wire;

/// A stream socket of either kind.
#[derive(Debug, Clone)]
pub(crate) struct Socket(Arc<Stream>);

#[derive(Debug)]
enum Stream {
    Tcp(TcpStream),
    /// Our end of a bridge, where somebody else's server keeps the real socket.
    Unix(UnixStream),
}

impl From<TcpStream> for Socket {
    fn from(stream: TcpStream) -> Self {
        Socket(Arc::new(Stream::Tcp(stream)))
    }
}

impl From<UnixStream> for Socket {
    fn from(stream: UnixStream) -> Self {
        Socket(Arc::new(Stream::Unix(stream)))
    }
}

impl Socket {
    /// Reads what is there; `WouldBlock` if nothing is, 0 at the end.
    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &*self.0 {
            Stream::Tcp(stream) => stream.try_read(buffer),
            Stream::Unix(stream) => stream.try_read(buffer),
        }
    }

    /// Waits until there may be something to read.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        match &*self.0 {
            Stream::Tcp(stream) => stream.readable().await,
            Stream::Unix(stream) => stream.readable().await,
        }
    }

    /// The socket as the relay writes to it.
    pub(crate) fn wire(&self) -> Arc<dyn Wire> {
        self.0.clone()
    }

    /// The stream itself, if nobody else holds it.
    pub(crate) fn into_stream(self) -> Option<Either<TcpStream, UnixStream>> {
        Some(match Arc::into_inner(self.0)? {
            Stream::Tcp(stream) => Either::Left(stream),
            Stream::Unix(stream) => Either::Right(stream),
        })
    }

    /// Ends one direction, or both. That it has ended already is no error worth telling.
    pub(crate) fn shutdown(&self, how: Shutdown) {
        let _ = match &*self.0 {
            Stream::Tcp(stream) => SockRef::from(stream).shutdown(how),
            Stream::Unix(stream) => SockRef::from(stream).shutdown(how),
        };
    }
}

impl Stream {
    /// Sends by `send`, which asks the kernel. Where the socket is full, tokio is told, so that it waits for room.
    fn write_by(&self, mut send: impl FnMut() -> rustix::io::Result<usize>) -> io::Result<usize> {
        match send() {
            Err(Errno::AGAIN) => {
                // The kernel tells only once that there is room, and that may have been between this answer and
                // the next line. tokio forgets what it was told before `try_io`, so the kernel has to be asked within.
                let again = || Ok(send()?);
                match self {
                    Stream::Tcp(stream) => stream.try_io(Interest::WRITABLE, again),
                    Stream::Unix(stream) => stream.try_io(Interest::WRITABLE, again),
                }
            }
            sent => Ok(sent?),
        }
    }
}

impl Wire for Stream {
    /// Asks the kernel at once. tokio's own `try_write` looks at its readiness first, which for a
    /// thousand sockets in turn is a cache miss or two each (measured: 0.4 µs of 5.5 per delivery).
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        self.write_by(|| match self {
            Stream::Tcp(stream) => send(stream, bytes, flags),
            Stream::Unix(stream) => send(stream, bytes, flags),
        })
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Stream::Tcp(stream) => stream.poll_write_ready(cx),
            Stream::Unix(stream) => stream.poll_write_ready(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use tokio::net::TcpListener;

    use super::*;

    /// The socket was full when the kernel was asked, and there was room before tokio heard of it. A writer that
    /// then waits for room would wait until `--slow-timeout` closes the connection.
    #[tokio::test]
    async fn room_that_comes_right_after_a_full_socket_is_not_missed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap());
        let near = near.await.unwrap();
        let (_far, _) = listener.accept().await.unwrap();
        near.writable().await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
        let stream = Stream::Tcp(near);
        let mut asked = 0;
        let sent = stream.write_by(|| {
            asked += 1;
            if asked == 1 {
                return Err(Errno::AGAIN);
            }
            let Stream::Tcp(stream) = &stream else {
                unreachable!()
            };
            send(stream, b"x", SendFlags::DONTWAIT)
        });
        match sent {
            Ok(written) => assert_eq!(written, 1),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                let room = poll_fn(|cx| stream.poll_writable(cx));
                let waited = tokio::time::timeout(Duration::from_secs(5), room).await;
                waited
                    .expect("it's not told that there is room")
                    .expect("the socket is open");
            }
        }
    }

    /// A socket that stays full is waited for.
    #[tokio::test]
    async fn room_that_comes_later_is_told() {
        let (near, far) = UnixStream::pair().unwrap();
        near.writable().await.unwrap();
        let stream = Stream::Unix(near);
        let error = loop {
            if let Err(error) = stream.try_write(&[0; 4096]) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let full = poll_fn(|cx| Poll::Ready(stream.poll_writable(cx).is_pending())).await;
        assert!(full, "a full socket passes for one with room");
        far.readable().await.unwrap();
        while far.try_read(&mut [0; 4096]).is_ok() {}
        let room = poll_fn(|cx| stream.poll_writable(cx));
        let waited = tokio::time::timeout(Duration::from_secs(5), room).await;
        waited
            .expect("it's not told that there is room")
            .expect("the socket is open");
        assert!(stream.try_write(b"x").is_ok());
    }
}
