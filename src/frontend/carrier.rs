//! What lies between the relay and the bytes of a client whose protocol wants more than the same
//! frame for everybody.
//!
//! A [`Lane`] is the relay's `Wire` of one connection: it takes [records](super::record) and makes
//! frames of them, as its [`Finish`] says. A [`Carrier`] is what they go out by: a socket, straight
//! from the fan-out, or a **mailbox** for a client that fetches them by HTTP requests, and it can
//! change from the one to the other without losing a byte's place. Several lanes may share one.
//!
//! Nothing queues up here beyond one write: while something is left of it, or the mailbox is full,
//! the lane says `WouldBlock` as a socket does, and the cursor waits.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};

use bytes::{Buf, Bytes, BytesMut};
use smallvec::SmallVec;
use tokio::sync::Notify;

use super::record::{Broken, Kind, Piece, Pieces, Record};
use crate::relay::outlet::Wire;

/// Bytes in a mailbox above which it takes no more.
const MAILBOX_BYTES: usize = 64 * 1024;

/// Frames are made until there is so much, as what is made of a record may be far larger than that. A
/// thread's scratch space is given back if it was more.
const SCRATCH_BYTES: usize = 256 * 1024;

thread_local! {
    /// Where frames are made. The fan-out writes to one socket after the other, so a thread needs
    /// one of these, and no connection does.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Makes a connection's frames of records. Never called for [`Kind::Own`].
pub(crate) trait Finish: Send + 'static {
    /// Appends what the client gets, which may be nothing.
    fn finish(&mut self, record: Record<'_>, out: &mut Vec<u8>);

    /// Whether the end of this lane's connection is the carrier's, so that no lane writes behind it.
    fn ends_carrier(&self) -> bool {
        true
    }
}

/// What several lanes' bytes go out by.
pub(crate) struct Carrier {
    state: Mutex<State>,
    arrived: Notify,
    itself: Weak<Carrier>,
}

struct State {
    under: Under,
    /// What the socket did not take yet, or what is to be fetched.
    left: BytesMut,
    /// Who waits to write, by the lane's number.
    waiting: SmallVec<[(usize, Waker); 1]>,
    lanes: usize,
    /// The end is written: no lane writes behind it, as nothing may follow a close frame.
    is_ended: bool,
}

enum Under {
    Socket(Arc<dyn Wire>),
    Mailbox,
    Closed,
}

/// Why nothing more can be fetched from a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Over {
    /// It all goes over a socket now.
    Moved,
    /// It's closed.
    Closed,
}

impl Carrier {
    /// One over a socket.
    pub(crate) fn over(wire: Arc<dyn Wire>) -> Arc<Self> {
        Carrier::new(Under::Socket(wire))
    }

    /// One whose bytes are fetched.
    pub(crate) fn mailbox() -> Arc<Self> {
        Carrier::new(Under::Mailbox)
    }

    fn new(under: Under) -> Arc<Self> {
        Arc::new_cyclic(|itself| Carrier {
            state: Mutex::new(State {
                under,
                left: BytesMut::new(),
                waiting: SmallVec::new(),
                lanes: 0,
                is_ended: false,
            }),
            arrived: Notify::new(),
            itself: itself.clone(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A way in for one of the relay's connections.
    pub(crate) fn lane<F: Finish>(self: &Arc<Self>, finish: F) -> Arc<Lane<F>> {
        let mut state = self.state();
        let number = state.lanes;
        state.lanes += 1;
        drop(state);
        Arc::new(Lane {
            carrier: self.clone(),
            number,
            inner: Mutex::new(Inner {
                finish,
                cork: Cork::Out,
            }),
        })
    }

    /// Waits until there is something in the mailbox, and takes all of it.
    pub(crate) async fn take(&self) -> Result<Bytes, Over> {
        self.take_part(|bytes| bytes.len()).await
    }

    /// Waits until there is something in the mailbox, and takes as many bytes of its beginning as `of`
    /// says. The rest stays.
    pub(crate) async fn take_part(&self, of: fn(&[u8]) -> usize) -> Result<Bytes, Over> {
        loop {
            let arrived = self.arrived.notified();
            match self.try_take_part(of)? {
                Some(bytes) => return Ok(bytes),
                None => {
                    arrived.await;
                    // What is written with it, as acknowledgements are, shares its response.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Takes what is in the mailbox, if there is something.
    #[cfg(test)]
    pub(crate) fn try_take(&self) -> Result<Option<Bytes>, Over> {
        self.try_take_part(|bytes| bytes.len())
    }

    fn try_take_part(&self, of: fn(&[u8]) -> usize) -> Result<Option<Bytes>, Over> {
        let mut state = self.state();
        match state.under {
            Under::Socket(_) => return Err(Over::Moved),
            Under::Closed if state.left.is_empty() => return Err(Over::Closed),
            Under::Mailbox | Under::Closed => {}
        }
        if state.left.is_empty() {
            return Ok(None);
        }
        let length = of(&state.left).min(state.left.len());
        let taken = match length == state.left.len() {
            true => std::mem::take(&mut state.left),
            false => state.left.split_to(length),
        };
        let taken = taken.freeze();
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        wake_all(waiting);
        Ok(Some(taken))
    }

    /// From now on all goes over a socket, what was not fetched before anything else. Whoever waits
    /// to fetch is told. The outlets of the lanes must be nudged then.
    pub(crate) fn move_to(&self, wire: Arc<dyn Wire>) {
        let mut state = self.state();
        state.under = Under::Socket(wire);
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        wake_all(waiting);
        self.arrived.notify_waiters();
    }

    /// Waits until the socket has taken what was left. Only for when nothing more is written:
    /// until then it's the lanes' outlets that wait for the socket, which wakes one at a time.
    pub(crate) async fn flushed(&self) -> io::Result<()> {
        loop {
            let wire = {
                let mut state = self.state();
                match (state.flush(), &state.under) {
                    (Err(error), Under::Socket(wire))
                        if error.kind() == io::ErrorKind::WouldBlock =>
                    {
                        wire.clone()
                    }
                    (outcome, _) => {
                        // This waited in the place of their bell.
                        let waiting = std::mem::take(&mut state.waiting);
                        drop(state);
                        wake_all(waiting);
                        return outcome;
                    }
                }
            };
            poll_fn(|cx| wire.poll_writable(cx)).await?;
        }
    }

    /// Takes nothing more; what is in the mailbox can still be fetched.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.under = Under::Closed;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        wake_all(waiting);
        self.arrived.notify_waiters();
    }
}

fn wake_all(waiting: SmallVec<[(usize, Waker); 1]>) {
    for (_, waker) in waiting {
        waker.wake();
    }
}

/// Wakes whoever waits for the socket. It keeps no carrier alive: the socket keeps it, and the
/// carrier keeps the socket.
struct Bell(Weak<Carrier>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        if let Some(carrier) = self.0.upgrade() {
            let waiting = std::mem::take(&mut carrier.state().waiting);
            wake_all(waiting);
        }
    }
}

impl State {
    /// Writes on what is left, to a socket.
    fn flush(&mut self) -> io::Result<()> {
        let Under::Socket(wire) = &self.under else {
            return Ok(());
        };
        while !self.left.is_empty() {
            match wire.try_write(&self.left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => self.left.advance(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if self.left.capacity() > 0 {
            self.left = BytesMut::new();
        }
        Ok(())
    }

    /// Whether something may be written now.
    fn clear(&mut self) -> io::Result<()> {
        match self.under {
            Under::Socket(_) => self.flush(),
            Under::Mailbox if self.left.len() < MAILBOX_BYTES => Ok(()),
            Under::Mailbox => Err(io::ErrorKind::WouldBlock.into()),
            Under::Closed => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Takes all of it; what the socket does not take is left. To be called when it's clear.
    fn write(&mut self, mut bytes: &[u8], arrived: &Notify) -> io::Result<()> {
        let Under::Socket(wire) = &self.under else {
            self.left.extend_from_slice(bytes);
            arrived.notify_waiters();
            return Ok(());
        };
        while !bytes.is_empty() {
            match wire.try_write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.left.extend_from_slice(bytes);
                    return Ok(());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&mut self, lane: usize, cx: &Context<'_>) {
        self.waiting.retain(|(number, _)| *number != lane);
        self.waiting.push((lane, cx.waker().clone()));
    }
}

/// One connection's way to its carrier.
pub(crate) struct Lane<F> {
    carrier: Arc<Carrier>,
    number: usize,
    inner: Mutex<Inner<F>>,
}

struct Inner<F> {
    finish: F,
    cork: Cork,
}

enum Cork {
    /// All passes.
    Out,
    /// Nothing does, and perhaps somebody waits.
    In(Option<Waker>),
}

impl<F: Finish> Lane<F> {
    fn inner(&self) -> MutexGuard<'_, Inner<F>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The carrier.
    pub(crate) fn carrier(&self) -> &Arc<Carrier> {
        &self.carrier
    }

    /// Reaches what makes the frames. It must not touch the connection's outlet.
    pub(crate) fn with<T>(&self, of: impl FnOnce(&mut F) -> T) -> T {
        of(&mut self.inner().finish)
    }

    /// Holds everything back, so that cursors wait, until [`Lane::uncork`].
    pub(crate) fn cork(&self) {
        let mut inner = self.inner();
        if matches!(inner.cork, Cork::Out) {
            inner.cork = Cork::In(None);
        }
    }

    /// Lets all pass again, after these bytes, which are ready frames. The outlet must be nudged
    /// then.
    pub(crate) fn uncork(&self, first: &[u8]) -> io::Result<()> {
        let mut inner = self.inner();
        let mut state = self.carrier.state();
        let written = match state.clear() {
            Ok(()) if state.is_ended => Ok(()),
            Ok(()) => state.write(first, &self.carrier.arrived),
            // Behind what is left already; it's little.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if !state.is_ended {
                    state.left.extend_from_slice(first);
                }
                Ok(())
            }
            Err(error) => Err(error),
        };
        drop(state);
        let cork = std::mem::replace(&mut inner.cork, Cork::Out);
        drop(inner);
        if let Cork::In(Some(waker)) = cork {
            waker.wake();
        }
        written
    }
}

impl<F: Finish> Wire for Lane<F> {
    /// Takes whole pieces or nothing.
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut inner = self.inner();
        if matches!(inner.cork, Cork::In(_)) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut state = self.carrier.state();
        state.clear()?;
        if state.is_ended {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        SCRATCH.with_borrow_mut(|out| {
            out.clear();
            let mut pieces = Pieces(bytes);
            while out.len() < SCRATCH_BYTES
                && !state.is_ended
                && let Some(piece) = pieces.next()
            {
                state.is_ended = inner.finish.ends_carrier() && piece.is_ok_and(Piece::is_end);
                match piece {
                    Ok(Piece::Frame(frame)) => out.extend_from_slice(frame),
                    Ok(Piece::Record(record)) if record.kind == Kind::Own => {
                        out.extend_from_slice(record.body);
                    }
                    Ok(Piece::Record(record)) => inner.finish.finish(record, out),
                    Err(Broken) => return Err(io::Error::new(io::ErrorKind::InvalidData, Broken)),
                }
            }
            let written = state.write(out, &self.carrier.arrived);
            if out.capacity() > SCRATCH_BYTES {
                *out = Vec::new();
            }
            written.map(|()| bytes.len() - pieces.0.len())
        })
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Cork::In(waker) = &mut self.inner().cork {
            *waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut state = self.carrier.state();
        loop {
            match state.clear() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
            state.wait(self.number, cx);
            let wire = match &state.under {
                Under::Socket(wire) => wire.clone(),
                Under::Mailbox | Under::Closed => return Poll::Pending,
            };
            let bell = Waker::from(Arc::new(Bell(self.carrier.itself.clone())));
            match wire.poll_writable(&mut Context::from_waker(&bell)) {
                Poll::Ready(Ok(())) => {}
                other => return other,
            }
        }
    }

    fn try_flush(&self) -> io::Result<()> {
        self.carrier.state().flush()
    }
}

#[cfg(test)]
mod tests;
