//! Wherever the kernel cuts a batch, what goes out in all is its frames, one after the other.

use proptest::prelude::*;

use super::*;

static FORMAT: Format = Format {
    slot: 0,
    entry: |_, entry| entry.message().clone(),
    gap: |_, _| GapFrame::Frame(Bytes::from_static(b"<gap>")),
    aside: |_| None,
    close: |_| Bytes::new(),
};

fn entry(number: u64, size: usize) -> Entry {
    let message = vec![b'a' + (number % 26) as u8; size.max(1)];
    Entry::new(
        EntryId::new(number, 0),
        [(Bytes::from_static(b"message"), Bytes::from(message))],
    )
}

/// A window with entries of these sizes; a size of 0 is a hole.
fn window(sizes: &[usize]) -> (Window, Vec<u8>) {
    let mut window = Window::new(EntryId::ZERO, Vec::new(), Some(GapReason::Deleted));
    let mut want = Vec::new();
    for (number, size) in (1..).zip(sizes) {
        if *size == 0 {
            window.hole(EntryId::new(number, 0), GapReason::Trimmed);
            want.extend(b"<gap>");
        } else {
            let entry = entry(number, *size);
            want.extend_from_slice(entry.message());
            window.push(Arc::new(entry));
        }
    }
    (window, want)
}

/// Writes all, so many bytes at a time as `takes` says; with it, what that counts.
fn write(window: &Window, takes: &[usize]) -> (Vec<u8>, Tally) {
    let room = RoomName::parse("r").unwrap();
    let mut cursor = Cursor::nominal(EntryId::ZERO, 0);
    let (mut out, mut tally) = (Vec::new(), Tally::default());
    let mut takes = takes.iter().copied().cycle();
    while let Pending::Batch(batch) = from_window(window, &room, &FORMAT, &cursor) {
        let taken = takes.next().unwrap_or(1).min(batch.bytes.len());
        out.extend_from_slice(&batch.bytes[..taken]);
        if taken == batch.bytes.len() {
            cursor = batch.end;
            batch.count(batch.frames(), &mut tally);
        } else {
            let (rest, next, frames) = batch.cut(taken);
            assert!(frames <= batch.frames());
            out.extend_from_slice(&rest);
            cursor = next;
            batch.count(frames, &mut tally);
        }
    }
    (out, tally)
}

#[test]
fn a_cut_at_every_byte() {
    let (window, want) = window(&[3, 1, 0, 5, 2]);
    for cut in 1..=want.len() {
        let (out, tally) = write(&window, &[cut]);
        assert_eq!(out, want, "cut after {cut}");
        assert_eq!(
            (tally.frames, tally.gaps),
            (5, [1, 0, 0]),
            "cut after {cut}"
        );
    }
}

proptest! {
    #[test]
    fn cuts_anywhere(
        sizes in prop::collection::vec(prop_oneof![0..20usize, Just(70_000)], 0..30),
        takes in prop::collection::vec(prop_oneof![1..50usize, 1..200_000usize], 1..20),
    ) {
        let (window, want) = window(&sizes);
        let (out, tally) = write(&window, &takes);
        prop_assert!(out == want);
        let holes = sizes.iter().filter(|size| **size == 0).count() as u64;
        prop_assert_eq!(tally.frames, sizes.len() as u64);
        prop_assert_eq!(tally.gaps, [holes, 0, 0]);
    }
}
