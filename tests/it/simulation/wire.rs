//! The simulated socket and its wire formats.

use std::io;
use std::sync::{Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tailcast::relay::close::CloseReason;
use tailcast::relay::entry::{EntryId, RoomName};
use tailcast::relay::format::{Format, Gap, GapFrame, GapReason};
use tailcast::relay::outlet::Wire;

use crate::checker::Event;

/// A socket whose kernel buffer takes what the test says.
#[derive(Default)]
pub(super) struct MockWire(Mutex<Socket>);

#[derive(Default)]
struct Socket {
    /// All that was written, less what was parsed.
    received: Vec<u8>,
    room: usize,
    waker: Option<Waker>,
    broken: bool,
}

impl MockWire {
    fn socket(&self) -> MutexGuard<'_, Socket> {
        self.0.lock().unwrap()
    }

    /// Makes room for so many more bytes.
    pub(super) fn refill(&self, bytes: usize) {
        let mut socket = self.socket();
        socket.room = socket.room.saturating_add(bytes);
        if let Some(waker) = socket.waker.take_if(|_| bytes > 0) {
            waker.wake();
        }
    }

    /// From now on every write fails.
    pub(super) fn break_off(&self) {
        let mut socket = self.socket();
        socket.broken = true;
        if let Some(waker) = socket.waker.take() {
            waker.wake();
        }
    }

    /// Whether it was broken off; a client notices that by itself.
    pub(super) fn is_broken(&self) -> bool {
        self.socket().broken
    }

    /// Takes no more until the next refill.
    pub(super) fn stall(&self) {
        self.socket().room = 0;
    }

    /// Bytes that nobody has read yet.
    pub(super) fn unread(&self) -> usize {
        self.socket().received.len()
    }

    /// Loses all but so many of the unread bytes, as a reset does.
    pub(super) fn lose_all_but(&self, bytes: usize) {
        self.socket().received.truncate(bytes);
    }

    /// The next whole frame.
    pub(super) fn frame(&self) -> Option<Frame> {
        let received = &mut self.socket().received;
        let (&len, rest) = received.split_first()?;
        let body = rest.get(..usize::from(len))?;
        let frame = Frame::parse(body);
        received.drain(..=usize::from(len));
        Some(frame)
    }
}

impl Wire for MockWire {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut socket = self.socket();
        if socket.broken {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let taken = bytes.len().min(socket.room);
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        socket.received.extend_from_slice(&bytes[..taken]);
        socket.room -= taken;
        Ok(taken)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.socket();
        if socket.room > 0 || socket.broken {
            return Poll::Ready(Ok(()));
        }
        socket.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// What a client reads: one byte of length, one of kind, the room's number, the rest by kind.
#[derive(Debug)]
pub(super) enum Frame {
    /// A join has its cursor.
    Joined {
        room: usize,
        id: EntryId,
        /// How much of the room's history came before, if that can be known.
        began: Option<usize>,
    },
    /// A join failed.
    Failed { room: usize },
    /// An entry or a gap.
    Event { room: usize, event: Event },
    /// The connection is over.
    Closed,
}

const JOINED: u8 = b'J';
const FAILED: u8 = b'F';
const ENTRY: u8 = b'E';
const GAP: u8 = b'G';
const CLOSED: u8 = b'X';

impl Frame {
    fn parse(body: &[u8]) -> Frame {
        let (kind, room, mut rest) = (body[0], usize::from(body[1]), &body[2..]);
        let mut number = || {
            let (number, more) = rest.split_first_chunk().unwrap();
            rest = more;
            u64::from_be_bytes(*number)
        };
        let mut id = || EntryId::new(number(), number());
        match kind {
            JOINED => Frame::Joined {
                room,
                id: id(),
                began: usize::try_from(number())
                    .ok()
                    .filter(|at| *at != usize::MAX),
            },
            FAILED => Frame::Failed { room },
            ENTRY => {
                let (id, payload) = (id(), Bytes::copy_from_slice(rest));
                let event = Event::Entry { id, payload };
                Frame::Event { room, event }
            }
            GAP => {
                let (after, before) = (id(), id());
                let reason = match rest[0] {
                    0 => GapReason::Trimmed,
                    1 => GapReason::Deleted,
                    _ => GapReason::Rewound,
                };
                let event = Event::Gap {
                    after,
                    before,
                    reason,
                };
                Frame::Event { room, event }
            }
            CLOSED => Frame::Closed,
            other => panic!("no frame begins with {other}: the bytes are out of step"),
        }
    }
}

fn frame(kind: u8, room: u8, parts: &[&[u8]]) -> Bytes {
    let body = [&[kind, room], parts.concat().as_slice()].concat();
    [&[u8::try_from(body.len()).unwrap()], body.as_slice()]
        .concat()
        .into()
}

fn number(id: EntryId) -> [u8; 16] {
    ((u128::from(id.ms) << 64) | u128::from(id.seq)).to_be_bytes()
}

/// Rooms are named by their numbers.
fn room_number(room: &RoomName) -> u8 {
    room.as_str().parse().unwrap()
}

pub(super) fn joined(room: usize, id: EntryId, began: Option<usize>) -> Bytes {
    let began = began.map_or(u64::MAX, |at| at as u64).to_be_bytes();
    frame(JOINED, room as u8, &[&number(id), &began])
}

pub(super) fn failed(room: usize) -> Bytes {
    frame(FAILED, room as u8, &[])
}

fn entry(room: &RoomName, entry: &tailcast::relay::entry::Entry) -> Bytes {
    frame(
        ENTRY,
        room_number(room),
        &[&number(entry.id), entry.message()],
    )
}

fn gap(room: &RoomName, gap: &Gap) -> Bytes {
    let (after, before) = (number(gap.after), number(gap.before));
    frame(
        GAP,
        room_number(room),
        &[&after, &before, &[gap.reason as u8]],
    )
}

/// Tells of gaps and goes on, as JSON does.
pub(super) static TELLING: Format = Format {
    slot: 0,
    entry,
    gap: |room, lost| GapFrame::Frame(gap(room, lost)),
    aside: |_| None,
    close: |_| frame(CLOSED, 0, &[]),
};

/// Ends at a gap, as raw sockets do. These are in room 0 only, as the reason names no room.
pub(super) static CLOSING: Format = Format {
    slot: 1,
    entry,
    gap: |_, _| GapFrame::Close,
    aside: |_| None,
    close: |reason| match reason {
        CloseReason::Gap(lost) => {
            let room = RoomName::parse("0").unwrap();
            [gap(&room, lost), frame(CLOSED, 0, &[])].concat().into()
        }
        _ => frame(CLOSED, 0, &[]),
    },
};
