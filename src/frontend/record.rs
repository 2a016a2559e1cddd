//! Records: what a format makes of entries where clients' frames differ.
//!
//! Some protocols put into each frame what only its connection knows: a subscription's name, a
//! namespace, an offset over several rooms. Then the format encodes an entry once into a record, with
//! all of the frame that is the same for everybody, and the connection's [`Lane`](super::carrier::Lane)
//! makes its frame of that.
//!
//! ```text
//! 0      1             3                7             15            23
//! +------+-------------+----------------+-------------+-------------+------+------+
//! | kind | room length | length of body | ID, ms      | ID, seq     | room | body |
//! +------+-------------+----------------+-------------+-------------+------+------+
//! ```
//!
//! A byte of 0x80 or above where a record may begin is a server's WebSocket frame instead, whole.

use bytes::Bytes;

use crate::frontend::websocket::frame::{OPCODE, Opcode};
use crate::relay::entry::{EntryId, RoomName};

const HEAD: usize = 23;

/// What a record is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// An entry.
    Entry = 1,
    /// A gap; its ID is the first that may come next.
    Gap = 2,
    /// Something told beside the streams.
    Aside = 3,
    /// The connection's own, which goes out as it is.
    Own = 4,
    /// The end of the connection.
    Close = 5,
}

/// One record, as it lies in a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// What it's of.
    pub(crate) kind: Kind,
    /// The room, if it's of one.
    pub(crate) room: &'a str,
    /// The entry's ID, or the gap's end; zero for the rest.
    pub(crate) id: EntryId,
    /// What all connections' frames have in common.
    pub(crate) body: &'a [u8],
}

/// What one connection gets to write: its own frames, and records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A WebSocket frame of the server's, ready.
    Frame(&'a [u8]),
    /// To be made a frame of.
    Record(Record<'a>),
}

impl Piece<'_> {
    /// Whether nothing may follow it in its connection.
    pub(crate) fn is_end(self) -> bool {
        match self {
            Piece::Frame(frame) => frame
                .first()
                .is_some_and(|first| first & OPCODE == Opcode::Close as u8),
            Piece::Record(record) => record.kind == Kind::Close,
        }
    }
}

/// Bytes that are neither frames nor records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a whole record")]
pub(crate) struct Broken;

/// Encodes a record of a room.
pub(crate) fn encode(kind: Kind, room: &RoomName, id: EntryId, body: &[u8]) -> Bytes {
    encode_in(kind, room.as_str(), id, body)
}

/// Encodes a record of no room.
pub(crate) fn bare(kind: Kind, body: &[u8]) -> Bytes {
    encode_in(kind, "", EntryId::ZERO, body)
}

fn encode_in(kind: Kind, room: &str, id: EntryId, body: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(HEAD + room.len() + body.len());
    out.push(kind as u8);
    // A room's name has at most 256 bytes, and no body comes near 4 GiB.
    out.extend_from_slice(&(room.len() as u16).to_be_bytes());
    out.extend_from_slice(&(body.len() as u32).to_be_bytes());
    out.extend_from_slice(&id.ms.to_be_bytes());
    out.extend_from_slice(&id.seq.to_be_bytes());
    out.extend_from_slice(room.as_bytes());
    out.extend_from_slice(body);
    out.into()
}

/// Cuts bytes into what they were made of.
pub(crate) struct Pieces<'a>(pub(crate) &'a [u8]);

impl<'a> Pieces<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Broken> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Broken)?;
        self.0 = rest;
        Ok(taken)
    }

    fn piece(&mut self, first: u8) -> Result<Piece<'a>, Broken> {
        let kind = match first {
            0x80.. => return Ok(Piece::Frame(self.take(frame_length(self.0)?)?)),
            1 => Kind::Entry,
            2 => Kind::Gap,
            3 => Kind::Aside,
            4 => Kind::Own,
            5 => Kind::Close,
            _ => return Err(Broken),
        };
        let head: &[u8; HEAD] = self.take(HEAD)?.try_into().map_err(|_| Broken)?;
        let [_, r0, r1, b0, b1, b2, b3, id @ ..] = *head;
        let ms = u64::from_be_bytes([id[0], id[1], id[2], id[3], id[4], id[5], id[6], id[7]]);
        let seq =
            u64::from_be_bytes([id[8], id[9], id[10], id[11], id[12], id[13], id[14], id[15]]);
        let room = self.take(usize::from(u16::from_be_bytes([r0, r1])))?;
        Ok(Piece::Record(Record {
            kind,
            room: std::str::from_utf8(room).map_err(|_| Broken)?,
            id: EntryId::new(ms, seq),
            body: self.take(u32::from_be_bytes([b0, b1, b2, b3]) as usize)?,
        }))
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, Broken>;

    fn next(&mut self) -> Option<Self::Item> {
        let first = *self.0.first()?;
        let piece = self.piece(first);
        if piece.is_err() {
            self.0 = &[];
        }
        Some(piece)
    }
}

/// The length of the WebSocket frame, header included, that bytes begin with. A server's are not
/// masked (RFC 6455, 5.2).
pub(crate) fn frame_length(bytes: &[u8]) -> Result<usize, Broken> {
    Ok(header_length(bytes)? + payload_length(bytes)?)
}

/// The bytes before its payload.
pub(crate) fn header_length(bytes: &[u8]) -> Result<usize, Broken> {
    Ok(match bytes.get(1).ok_or(Broken)? & 0x7f {
        126 => 4,
        127 => 10,
        _ => 2,
    })
}

fn payload_length(bytes: &[u8]) -> Result<usize, Broken> {
    let length = bytes.get(1).ok_or(Broken)? & 0x7f;
    match (length, bytes.get(2..10), bytes.get(2..4)) {
        (127, Some(long), _) => {
            let long = u64::from_be_bytes(long.try_into().map_err(|_| Broken)?);
            usize::try_from(long).map_err(|_| Broken)
        }
        (126, _, Some(medium)) => {
            let medium = medium.try_into().map_err(|_| Broken)?;
            Ok(usize::from(u16::from_be_bytes(medium)))
        }
        (126 | 127, ..) => Err(Broken),
        (short, ..) => Ok(usize::from(short)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::frontend::websocket::frame::{Opcode, frame};

    fn kinds() -> impl Strategy<Value = Kind> {
        prop::sample::select(vec![
            Kind::Entry,
            Kind::Gap,
            Kind::Aside,
            Kind::Own,
            Kind::Close,
        ])
    }

    proptest! {
        #[test]
        fn records_and_frames_come_back(
            records in prop::collection::vec(
                (kinds(), "[a-zé]{1,40}", any::<(u64, u64)>(), prop::collection::vec(any::<u8>(), 0..300), any::<bool>()),
                0..8,
            )
        ) {
            let mut bytes = Vec::new();
            let mut want = Vec::new();
            let mut kept = Vec::new();
            for (kind, room, (ms, seq), body, is_frame) in &records {
                let room = RoomName::parse(room).unwrap();
                kept.push((room, frame(Opcode::Binary, body)));
                let (room, framed) = kept.last().unwrap();
                let id = EntryId::new(*ms, *seq);
                bytes.extend_from_slice(&match is_frame {
                    true => framed.clone(),
                    false => encode(*kind, room, id, body),
                });
            }
            for ((kind, _, (ms, seq), body, is_frame), (room, framed)) in records.iter().zip(&kept) {
                want.push(Ok(match is_frame {
                    true => Piece::Frame(framed),
                    false => Piece::Record(Record {
                        kind: *kind,
                        room: room.as_str(),
                        id: EntryId::new(*ms, *seq),
                        body,
                    }),
                }));
            }
            let got: Vec<_> = Pieces(&bytes).collect();
            prop_assert_eq!(got, want);
        }

        #[test]
        fn anything_else_is_broken_and_ends(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(Pieces(&bytes).count() <= bytes.len());
        }
    }

    #[test]
    fn what_is_cut_is_broken() {
        let record = bare(Kind::Own, b"hello");
        for cut in 1..record.len() {
            let got: Vec<_> = Pieces(&record[..cut]).collect();
            assert_eq!(got, [Err(Broken)], "{cut}");
        }
        for payload in [0, 125, 126, 65_535, 65_536] {
            let frame = frame(Opcode::Text, &vec![b'x'; payload]);
            assert_eq!(frame_length(&frame), Ok(frame.len()));
            assert_eq!(Pieces(&frame[..frame.len() - 1]).last(), Some(Err(Broken)));
        }
    }
}
