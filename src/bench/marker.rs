//! The marker that every measured payload begins with, and how it's found again.
//!
//! ```text
//! TC# 00000000000000a7 # 000000012a05f200 # xxxxxxxx…
//!     sequence, hex      sent at, ns, hex    filler up to the size asked for
//! ```
//!
//! A marker is looked for in the byte stream as it comes, whatever frames and envelopes lie around
//! it: servers don't mask, so every protocol is counted by the same few instructions.

use memchr::memmem::Finder;

const TAG: &[u8] = b"TC#";

/// Length of a marker, and so the smallest payload.
pub(super) const MARKER_LEN: usize = 37;

/// Most bytes that a reader must keep from one read to the next: the beginning of a marker, or of
/// an entry ID in a JSON frame with its name, whichever is longer.
pub(super) const CARRY: usize = 64;

/// One marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marker {
    /// Position among the entries of its room.
    pub(super) sequence: u64,
    /// Nanoseconds since the bench began.
    pub(super) sent: u64,
}

/// Writes one payload of `size` bytes, or of [`MARKER_LEN`] if that is more.
pub(super) fn payload(marker: Marker, size: usize) -> Vec<u8> {
    let mut bytes = format!("TC#{:016x}#{:016x}#", marker.sequence, marker.sent).into_bytes();
    bytes.resize(size.max(MARKER_LEN), b'x');
    bytes
}

/// Finds markers and entry IDs.
pub(super) struct Search {
    tag: Finder<'static>,
    id: Finder<'static>,
}

impl Search {
    pub(super) fn new() -> Self {
        Search {
            tag: Finder::new(TAG),
            id: Finder::new(b"\"id\":\""),
        }
    }

    /// Hands every whole marker to `found`; returns how many of the last bytes have to be put
    /// before the next read's.
    pub(super) fn markers(&self, bytes: &[u8], mut found: impl FnMut(Marker)) -> usize {
        let mut rest = bytes;
        while let Some(at) = self.tag.find(rest) {
            let from = &rest[at..];
            let Some(text) = from.get(..MARKER_LEN) else {
                break;
            };
            if let (Some(sequence), Some(sent)) = (hex(&text[3..19]), hex(&text[20..36])) {
                found(Marker { sequence, sent });
                rest = &from[MARKER_LEN..];
            } else {
                rest = &from[TAG.len()..];
            }
        }
        rest.len().min(CARRY)
    }

    /// The last whole entry ID in JSON frames.
    pub(super) fn last_id<'a>(&self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let mut last = None;
        for at in self.id.find_iter(bytes) {
            let from = &bytes[at + 6..];
            if let Some(end) = memchr::memchr(b'"', &from[..from.len().min(CARRY)]) {
                last = Some(&from[..end]);
            }
        }
        last
    }
}

/// Values of hexadecimal digits; 0x80 for what is none. A table, since at millions of deliveries
/// per second most of the client's own time goes into these digits.
const DIGITS: [u8; 256] = {
    let mut table = [0x80; 256];
    let mut digit = 0;
    while digit < 16 {
        table[b"0123456789abcdef"[digit] as usize] = digit as u8;
        digit += 1;
    }
    table
};

fn hex(digits: &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut wrong = 0;
    for digit in digits {
        let digit = DIGITS[usize::from(*digit)];
        wrong |= digit;
        value = value << 4 | u64::from(digit & 0xf);
    }
    (wrong & 0x80 == 0).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_finds_every_marker() {
        let mut stream = Vec::new();
        let want: Vec<Marker> = (0..3u64)
            .map(|n| Marker {
                sequence: n,
                sent: n << 40,
            })
            .collect();
        for marker in &want {
            stream.extend_from_slice(&[0x81, 0x7e, 0, 50]);
            stream.extend_from_slice(&payload(*marker, 50));
        }
        let search = Search::new();
        for first in 0..stream.len() {
            for second in first..stream.len() {
                let mut got = Vec::new();
                let mut carry = Vec::new();
                for part in [&stream[..first], &stream[first..second], &stream[second..]] {
                    carry.extend_from_slice(part);
                    let keep = search.markers(&carry, |marker| got.push(marker));
                    carry.drain(..carry.len() - keep);
                }
                assert_eq!(got, want, "split at {first} and {second}");
            }
        }
    }

    #[test]
    fn finds_the_last_id() {
        let search = Search::new();
        let text = br#"{"type":"entry","id":"5-0","x":1}{"id":"6-12","y"}{"id":"7-"#;
        assert_eq!(search.last_id(text), Some(&b"6-12"[..]));
        assert_eq!(search.last_id(b"none"), None);
    }
}
