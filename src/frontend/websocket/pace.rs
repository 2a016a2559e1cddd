//! How fast a client's frames are read. Nothing is refused: what comes faster waits, in the kernel's buffers and
//! then with the client.
//!
//! Frames are counted here, by their headers, as tungstenite shows none of the fragments of a message, and
//! an empty one costs as much as any. Only a close frame is free.

use tokio::time::Instant;

use super::frame::{OPCODE, Opcode};
use super::limits::Limiter;

/// The longest part of a header that says how long its frame is: two bytes, and a length of eight.
const LENGTH_END: usize = 10;

/// The mask behind it, which every frame of a client has.
const MASK: u64 = 4;

/// Where in a client's frames the reading stands, and when it may go on.
#[derive(Debug)]
pub(super) struct Pace {
    /// Frames per second; 0 is no limit.
    rate: u32,
    limiter: Limiter,
    /// What is there of a header.
    head: [u8; LENGTH_END],
    head_length: u8,
    /// What is left of the mask and payload of the current frame.
    left: u64,
    /// Whether the next frame is there, and comes too early.
    is_early: bool,
}

impl Pace {
    /// A client that has sent nothing yet, and may send `rate` frames per second; 0 is no limit.
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        Pace {
            rate,
            limiter: Limiter::new(now),
            head: [0; LENGTH_END],
            head_length: 0,
            left: 0,
            is_early: false,
        }
    }

    /// From now on everything passes.
    pub(super) fn end(&mut self) {
        self.rate = 0;
    }

    /// When reading may go on, if what was read last was held back.
    pub(super) fn take_pause(&mut self, now: Instant) -> Option<Instant> {
        if !std::mem::take(&mut self.is_early) {
            return None;
        }
        // Asked of a copy, as nothing is read yet.
        let mut limiter = self.limiter;
        let wait = limiter.take(self.rate, now).err();
        Some(now + wait.unwrap_or_default())
    }

    /// How many of these bytes, the next ones of the client, may be taken now. The rest begins with a frame
    /// that comes too early, and has to be brought again.
    pub(super) fn admit(&mut self, bytes: &[u8], now: impl Fn() -> Instant) -> usize {
        self.is_early = false;
        if self.rate == 0 {
            return bytes.len();
        }
        let mut at = 0;
        while at < bytes.len() {
            if self.left > 0 {
                let rest = bytes.len() - at;
                let part = usize::try_from(self.left).map_or(rest, |left| left.min(rest));
                self.left -= part as u64;
                at += part;
                continue;
            }
            let byte = bytes[at];
            if self.head_length == 0 && byte & OPCODE != Opcode::Close as u8 {
                self.is_early = self.limiter.take(self.rate, now()).is_err();
                if self.is_early {
                    return at;
                }
            }
            self.head[usize::from(self.head_length)] = byte;
            self.head_length += 1;
            at += 1;
            if let Some(length) = self.payload_length() {
                self.left = MASK.saturating_add(length);
                self.head_length = 0;
            }
        }
        at
    }

    /// The length of the payload, once the header says it.
    fn payload_length(&self) -> Option<u64> {
        let [_, short, medium @ ..] = self.head;
        let [m0, m1, ..] = medium;
        match (self.head_length, short & 0x7f) {
            (0 | 1, _) => None,
            (4, 126) => Some(u64::from(u16::from_be_bytes([m0, m1]))),
            (10, 127) => Some(u64::from_be_bytes(medium)),
            (_, 126 | 127) => None,
            (_, short) => Some(u64::from(short)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    /// A client's frame.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..=125 => frame.push(0x80 | length as u8),
            126..=0xffff => {
                frame.push(0x80 | 126);
                frame.extend_from_slice(&(length as u16).to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        // The mask and the payload look like headers.
        frame.extend_from_slice(&vec![0x81; 4 + length]);
        frame
    }

    #[test]
    fn every_header_counts_but_a_closes() {
        let check = |frames: &[(u8, usize)], rate: u32, want: usize| {
            let all: Vec<Vec<u8>> = frames.iter().map(|&(f, l)| frame(f, l)).collect();
            let want: usize = all[..want].iter().map(Vec::len).sum();
            let start = Instant::now();
            let mut pace = Pace::new(rate, start);
            assert_eq!(pace.admit(&all.concat(), || start), want, "{frames:?}");
        };
        check(&[(0x81, 1); 3], 2, 2);
        check(&[(0x81, 200), (0x82, 70_000), (0x81, 0)], 2, 2);
        // A text, its empty fragments, a ping among them, and its end.
        check(&[(0x01, 1), (0, 0), (0x89, 2), (0, 0), (0x80, 0)], 3, 3);
        check(&[(0x81, 1), (0x81, 1), (0x88, 2), (0x81, 1)], 2, 3);
        check(&[(0x81, 1); 5], 0, 5);
    }

    #[test]
    fn what_was_held_back_comes_in_time() {
        let start = Instant::now();
        let mut pace = Pace::new(2, start);
        let bytes = frame(0x81, 3).repeat(3);
        let one = bytes.len() / 3;
        assert_eq!(pace.admit(&bytes, || start), 2 * one);
        let until = pace.take_pause(start).unwrap();
        assert_eq!(until, start + Duration::from_millis(500));
        assert_eq!(pace.take_pause(start), None);
        assert_eq!(pace.admit(&bytes[2 * one..], || start), 0);
        assert_eq!(pace.admit(&bytes[2 * one..], || until), one);
        assert_eq!(pace.take_pause(until), None);
    }

    proptest! {
        /// However the bytes are split, the same frames pass.
        #[test]
        fn splits(
            lengths in prop::collection::vec(prop_oneof![0usize..4, 120usize..130, Just(300), Just(66_000)], 1..12),
            splits in prop::collection::vec(1usize..70_000, 1..40),
            rate in 1u32..8,
        ) {
            let all: Vec<Vec<u8>> = lengths.iter().map(|length| frame(0x81, *length)).collect();
            let most = all.len().min(rate as usize);
            let want: usize = all[..most].iter().map(Vec::len).sum();
            let bytes = all.concat();
            let start = Instant::now();
            let mut pace = Pace::new(rate, start);
            let (mut taken, mut splits) = (0, splits.iter().cycle());
            while taken < bytes.len() {
                let end = bytes.len().min(taken + splits.next().unwrap());
                let part = pace.admit(&bytes[taken..end], || start);
                taken += part;
                if pace.take_pause(start).is_some() {
                    break;
                }
            }
            prop_assert_eq!(taken, want);
        }
    }
}
