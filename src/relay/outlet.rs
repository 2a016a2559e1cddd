//! One connection's way out: its own frames, and the entries of the rooms it's in.

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use super::close::CloseReason;

/// The socket under a connection, as far as the relay needs it.
pub trait Wire: Send + Sync + 'static {
    /// Writes what the kernel takes at once; `WouldBlock` if that is nothing.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Ready once `try_write` may take something again. There is one waiter at a time.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
}

/// Where a connection's frames go out. Shared by its front end, its rooms and its publishes.
pub struct Outlet {}

impl Outlet {
    /// Sends a frame of the connection's own (an acknowledgement, a pong), after those sent
    /// before it and between entries, never inside one. Never waits.
    pub fn send(self: &Arc<Self>, _frame: Bytes) {
        todo!()
    }

    /// Ends the connection: the format's closing bytes go out after what has begun, then nothing.
    /// The first reason wins.
    pub fn close(self: &Arc<Self>, _reason: CloseReason) {
        todo!()
    }

    /// Whether it's closed, or about to be.
    pub fn is_closing(&self) -> bool {
        todo!()
    }

    /// Waits until somebody closed it and the closing bytes went out, or can't.
    pub async fn closed(&self) -> CloseReason {
        todo!()
    }
}
