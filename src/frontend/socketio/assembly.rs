//! [`Assembly`]: puts packets and the binary messages that follow them together.

use bytes::Bytes;
use smallvec::SmallVec;

use super::packet::{ATTACHMENTS_MAX, Kind, Malformed, Packet, parse};

/// A packet with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Whole {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) ack: Option<u64>,
    pub(super) json: String,
    pub(super) attachments: SmallVec<[Bytes; 1]>,
    /// What is wrong with its attachments, which are not kept then.
    pub(super) spoilt: Option<&'static str>,
}

/// Packets of one connection, as they become whole.
#[derive(Debug, Default)]
pub(super) struct Assembly(Option<Box<Partial>>);

#[derive(Debug)]
struct Partial {
    whole: Whole,
    /// Attachments still to come.
    missing: usize,
    /// Bytes that they may have together.
    room: usize,
}

impl Assembly {
    /// Takes a text message in; the packet comes out unless binary messages have to follow.
    pub(super) fn text(&mut self, text: &str, limit: usize) -> Result<Option<Whole>, Malformed> {
        if self.0.is_some() {
            return Err(Malformed("text came where an attachment was to come"));
        }
        let Packet {
            kind,
            namespace,
            ack,
            attachments,
            json,
        } = parse(text)?;
        let whole = Whole {
            kind,
            namespace: namespace.to_owned(),
            ack,
            json: json.to_owned(),
            attachments: SmallVec::new(),
            spoilt: (attachments > ATTACHMENTS_MAX)
                .then_some("a packet has at most 10 attachments"),
        };
        if attachments == 0 {
            return Ok(Some(whole));
        }
        self.0 = Some(Box::new(Partial {
            whole,
            missing: attachments,
            room: limit,
        }));
        Ok(None)
    }

    /// Takes a binary message in; with the last one the packet comes out.
    pub(super) fn binary(&mut self, bytes: &[u8]) -> Result<Option<Whole>, Malformed> {
        let Some(partial) = &mut self.0 else {
            return Err(Malformed("an attachment came that belongs to nothing"));
        };
        match partial.room.checked_sub(bytes.len()) {
            Some(room) => partial.room = room,
            None => {
                partial.whole.spoilt = Some("its attachments are too large together");
                partial.whole.attachments.clear();
            }
        }
        if partial.whole.spoilt.is_none() {
            let bytes = Bytes::copy_from_slice(bytes);
            partial.whole.attachments.push(bytes);
        }
        partial.missing -= 1;
        if partial.missing > 0 {
            return Ok(None);
        }
        Ok(self.0.take().map(|partial| partial.whole))
    }
}

/// Feeds messages, one per line; those that begin with `b` are binary.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    let mut assembly = Assembly::default();
    for line in text.split('\n') {
        let whole = match line.strip_prefix('b') {
            Some(bytes) => assembly.binary(bytes.as_bytes()),
            None => assembly.text(line, 100),
        };
        match whole {
            Ok(Some(whole)) => {
                let size: usize = whole.attachments.iter().map(Bytes::len).sum();
                assert!(size <= 100 && assembly.0.is_none());
            }
            Ok(None) => assert!(assembly.0.is_some()),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_waited_for() {
        let mut assembly = Assembly::default();
        assert!(assembly.text("2[\"a\"]", 10).unwrap().is_some());
        assert_eq!(assembly.text("52-/x,3[\"a\",{}]", 10), Ok(None));
        assert_eq!(assembly.binary(&[1, 2]), Ok(None));
        let whole = assembly.binary(&[3]).unwrap().unwrap();
        assert_eq!(whole.attachments.as_slice(), [&[1, 2][..], &[3]]);
        assert_eq!((whole.namespace.as_str(), whole.ack), ("/x", Some(3)));
        assert!(assembly.binary(&[1]).is_err());
        assert_eq!(
            assembly.text("50-[\"a\"]", 10).unwrap().unwrap().json,
            "[\"a\"]"
        );
    }

    #[test]
    fn limits() {
        let mut assembly = Assembly::default();
        assert_eq!(assembly.text("52-[\"a\"]", 3), Ok(None));
        assert!(assembly.text("2[\"b\"]", 3).is_err());
        assert_eq!(assembly.binary(&[1, 2]), Ok(None));
        // Too much; the packet is known for it, and the next one is read.
        let whole = assembly.binary(&[1, 2]).unwrap().unwrap();
        assert!(whole.spoilt.is_some() && whole.attachments.is_empty());
        assert_eq!(assembly.text("511-[\"a\"]", 30), Ok(None));
        for _ in 0..10 {
            assert_eq!(assembly.binary(&[1]), Ok(None));
        }
        let whole = assembly.binary(&[1]).unwrap().unwrap();
        assert!(whole.spoilt.is_some() && whole.attachments.is_empty());
        assert!(assembly.text("2[\"b\"]", 3).unwrap().is_some());
    }
}
