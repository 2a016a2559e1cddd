use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::poll_fn;

use super::super::record::{bare, encode};
use super::*;
use crate::frontend::websocket::frame::{Opcode, frame};
use crate::relay::entry::{EntryId, RoomName};

/// A socket that takes so many bytes, until it's read.
#[derive(Default)]
struct Pipe {
    taken: Mutex<Vec<u8>>,
    room: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

impl Pipe {
    fn with_room(room: usize) -> Arc<Self> {
        let pipe = Arc::new(Pipe::default());
        pipe.room.store(room, Ordering::SeqCst);
        pipe
    }

    fn read(&self, room: usize) -> String {
        self.room.store(room, Ordering::SeqCst);
        let taken = std::mem::take(&mut *self.taken.lock().unwrap());
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
        String::from_utf8(taken).unwrap()
    }
}

impl Wire for Pipe {
    fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(self.room.load(Ordering::SeqCst));
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.taken
            .lock()
            .unwrap()
            .extend_from_slice(&bytes[..count]);
        self.room.fetch_sub(count, Ordering::SeqCst);
        Ok(count)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.room.load(Ordering::SeqCst) > 0 {
            return Poll::Ready(Ok(()));
        }
        *self.waker.lock().unwrap() = Some(cx.waker().clone());
        Poll::Pending
    }
}

/// Shows who it's for, in front of every record.
struct For(&'static str);

impl Finish for For {
    fn finish(&mut self, record: Record<'_>, out: &mut Vec<u8>) {
        out.extend_from_slice(self.0.as_bytes());
        out.extend_from_slice(record.room.as_bytes());
        out.push(b':');
        out.extend_from_slice(record.body);
        out.push(b' ');
    }
}

fn entry(body: &str) -> Bytes {
    let room = RoomName::parse("r").unwrap();
    encode(Kind::Entry, &room, EntryId::new(1, 0), body.as_bytes())
}

fn is_full(written: io::Result<usize>) -> bool {
    written.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
}

#[test]
fn records_become_frames() {
    let pipe = Pipe::with_room(1000);
    let lane = Carrier::over(pipe.clone()).lane(For("me@"));
    let pong = frame(Opcode::Text, b"pong");
    let bytes = [
        entry("one"),
        bare(Kind::Own, b"own "),
        entry("two"),
        pong.clone(),
    ]
    .concat();
    assert_eq!(lane.try_write(&bytes).unwrap(), bytes.len());
    let taken = std::mem::take(&mut *pipe.taken.lock().unwrap());
    let want = [&b"me@r:one own me@r:two "[..], &pong].concat();
    assert_eq!(taken, want);
    assert_eq!(
        lane.try_write(b"\x07junk").unwrap_err().kind(),
        io::ErrorKind::InvalidData
    );
}

#[tokio::test]
async fn what_a_socket_does_not_take_goes_first_and_nothing_passes_it() {
    let pipe = Pipe::with_room(5);
    let carrier = Carrier::over(pipe.clone());
    let (one, two) = (carrier.lane(For("1")), carrier.lane(For("2")));
    one.try_write(&entry("hello")).unwrap();
    assert!(is_full(two.try_write(&entry("world"))));
    assert!(one.try_flush().is_err() && two.try_flush().is_err());
    let mut waits = [&one, &two].map(|lane| Box::pin(poll_fn(|cx| lane.poll_writable(cx))));
    assert!(
        waits
            .iter_mut()
            .all(|wait| wait.as_mut().now_or_never().is_none())
    );
    assert_eq!(pipe.read(100), "1r:he");
    for wait in waits {
        wait.await.unwrap();
    }
    two.try_write(&entry("world")).unwrap();
    assert_eq!(pipe.read(0), "llo 2r:world ");
    assert!(one.try_flush().is_ok());
}

#[tokio::test]
async fn a_bell_keeps_no_carrier_alive() {
    let pipe = Pipe::with_room(1);
    let lane = Carrier::over(pipe.clone()).lane(For(""));
    lane.try_write(&entry("long")).unwrap();
    assert!(
        poll_fn(|cx| lane.poll_writable(cx))
            .now_or_never()
            .is_none()
    );
    assert!(pipe.waker.lock().unwrap().is_some());
    let carrier = Arc::downgrade(lane.carrier());
    drop(lane);
    assert!(carrier.upgrade().is_none());
}

#[tokio::test]
async fn a_cork_holds_all_back() {
    let pipe = Pipe::with_room(100);
    let lane = Carrier::over(pipe.clone()).lane(For(""));
    lane.cork();
    assert!(is_full(lane.try_write(&entry("later"))));
    let mut wait = Box::pin(poll_fn(|cx| lane.poll_writable(cx)));
    assert!(wait.as_mut().now_or_never().is_none());
    lane.uncork(b"first ").unwrap();
    wait.await.unwrap();
    lane.try_write(&entry("later")).unwrap();
    assert_eq!(pipe.read(0), "first r:later ");
}

#[tokio::test]
async fn a_mailbox_is_bounded_and_empties() {
    let carrier = Carrier::mailbox();
    let lane = carrier.lane(For(""));
    let body = "x".repeat(1000);
    let mut written = 0;
    while lane.try_write(&entry(&body)).is_ok() {
        written += 1;
    }
    assert!((60..=70).contains(&written), "{written}");
    let mut wait = Box::pin(poll_fn(|cx| lane.poll_writable(cx)));
    assert!(wait.as_mut().now_or_never().is_none());
    assert_eq!(carrier.take().await.unwrap().len(), written * 1003);
    wait.await.unwrap();
    assert_eq!(carrier.try_take(), Ok(None));
    let fetcher = tokio::spawn({
        let carrier = carrier.clone();
        async move { carrier.take().await }
    });
    tokio::task::yield_now().await;
    lane.try_write(&entry("a")).unwrap();
    lane.try_write(&entry("b")).unwrap();
    assert_eq!(fetcher.await.unwrap().unwrap(), "r:a r:b ");
    lane.try_write(&entry("last")).unwrap();
    carrier.close();
    assert!(lane.try_write(&entry("never")).is_err());
    assert_eq!(carrier.take().await.unwrap(), "r:last ");
    assert_eq!(carrier.take().await, Err(Over::Closed));
}

#[tokio::test]
async fn what_was_not_fetched_moves_to_the_socket_first() {
    let carrier = Carrier::mailbox();
    let lane = carrier.lane(For(""));
    let fetcher = tokio::spawn({
        let carrier = carrier.clone();
        async move {
            let first = carrier.take().await;
            (first, carrier.take().await)
        }
    });
    tokio::task::yield_now().await;
    lane.try_write(&entry("fetched")).unwrap();
    for _ in 0..5 {
        tokio::task::yield_now().await;
    }
    let pipe = Pipe::with_room(4);
    // Between two polls.
    carrier.state().left.extend_from_slice(b"waiting ");
    carrier.move_to(pipe.clone());
    assert!(is_full(lane.try_write(&entry("new"))));
    assert!(lane.try_flush().is_err());
    assert_eq!(pipe.read(100), "wait");
    lane.try_write(&entry("new")).unwrap();
    assert_eq!(pipe.read(0), "ing r:new ");
    let (first, second) = fetcher.await.unwrap();
    assert_eq!(first.unwrap(), "r:fetched ");
    assert_eq!(second, Err(Over::Moved));
}

#[tokio::test]
async fn what_was_not_fetched_goes_by_the_socket_even_after_the_end() {
    let carrier = Carrier::mailbox();
    let lane = carrier.lane(For(""));
    lane.try_write(&entry("last words")).unwrap();
    carrier.close();
    assert!(lane.try_write(&entry("more")).is_err());
    let pipe = Pipe::with_room(6);
    carrier.move_to(pipe.clone());
    let mut flushed = Box::pin(carrier.flushed());
    assert!(flushed.as_mut().now_or_never().is_none());
    assert_eq!(pipe.read(100), "r:last");
    flushed.await.unwrap();
    assert_eq!(pipe.read(0), " words ");
}

#[tokio::test]
async fn who_waits_is_woken_once_all_is_flushed() {
    let pipe = Pipe::with_room(2);
    let carrier = Carrier::over(pipe.clone());
    let lane = carrier.lane(For(""));
    lane.try_write(&entry("long")).unwrap();
    let waiting = tokio::spawn(async move { poll_fn(|cx| lane.poll_writable(cx)).await });
    while carrier.state().waiting.is_empty() {
        tokio::task::yield_now().await;
    }
    let mut flushed = Box::pin(carrier.flushed());
    assert!(flushed.as_mut().now_or_never().is_none());
    assert_eq!(pipe.read(100), "r:");
    flushed.await.unwrap();
    let waited = tokio::time::timeout(Duration::from_secs(10), waiting).await;
    waited.unwrap().unwrap().unwrap();
}

#[test]
fn however_much_is_made_of_records_little_is_made_at_a_time() {
    let carrier = Carrier::mailbox();
    let lane = carrier.lane(For("x".repeat(100_000).leak()));
    let record = entry("");
    let batch = record.repeat(10);
    assert_eq!(lane.try_write(&batch).unwrap(), record.len() * 3);
    assert!(is_full(lane.try_write(&batch)));
    assert_eq!(carrier.try_take().unwrap().unwrap().len(), 3 * 100_003);
    assert_eq!(
        lane.try_write(&batch[record.len() * 9..]).unwrap(),
        record.len()
    );
}
