//! What a connection's bytes go out through.

use std::io;
use std::task::{Context, Poll};

/// The socket under a connection, as far as the relay needs it.
pub trait Wire: Send + Sync + 'static {
    /// Writes what can go out at once; `WouldBlock` if that is nothing.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize>;

    /// Ready once `try_write` may take something again. There is one waiter at a time.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Gets on with what `try_write` has taken and kept; `WouldBlock` while some of it is left. A
    /// wire that keeps nothing has nothing to do.
    fn try_flush(&self) -> io::Result<()> {
        Ok(())
    }
}
