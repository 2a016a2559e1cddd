//! A client's socket.

use std::io;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use serde_json::Value;
use tailcast::relay::format::{Format, GapFrame};
use tailcast::relay::outlet::Wire;

/// Asides as a line each, and nothing else.
pub(super) static ASIDES: Format = Format {
    slot: 0,
    entry: |_, _| Bytes::new(),
    gap: |_, _| GapFrame::Frame(Bytes::new()),
    aside: |aside| Some([aside.json().as_ref(), b"\n"].concat().into()),
    close: |_| Bytes::new(),
};

/// A socket that takes everything, or nothing.
#[derive(Default)]
pub(super) struct Socket(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    received: Vec<u8>,
    stalls: bool,
    waker: Option<Waker>,
}

impl Socket {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap()
    }

    pub(super) fn stall(&self, stalls: bool) {
        let mut inner = self.inner();
        inner.stalls = stalls;
        if let Some(waker) = inner.waker.take_if(|_| !stalls) {
            waker.wake();
        }
    }

    pub(super) fn lines(&self) -> Vec<Value> {
        let received = std::mem::take(&mut self.inner().received);
        let lines = received.split(|byte| *byte == b'\n');
        lines
            .filter(|line| !line.is_empty())
            .map(|line| serde_json::from_slice(line).unwrap())
            .collect()
    }
}

impl Wire for Socket {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.inner();
        if inner.stalls {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        inner.received.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        if !inner.stalls {
            return Poll::Ready(Ok(()));
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}
