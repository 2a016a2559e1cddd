//! Engine.IO packets, as they come in on both transports and go out by polling.
//!
//! ```text
//! WebSocket   a text frame is one packet: a digit, then its text
//!             a binary frame is one message
//! polling     packets with 0x1e between them; a binary one is `b` and base64
//! ```

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};

/// Stands between packets of a payload.
const SEPARATOR: u8 = 0x1e;

/// One packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// It goes.
    Close,
    /// A probe, with its text.
    Ping(&'a str),
    /// The answer to our ping.
    Pong,
    /// Text for the layer above.
    Text(&'a str),
    /// Bytes for the layer above.
    Binary(Cow<'a, [u8]>),
    /// From now on this transport is the one.
    Upgrade,
    /// Nothing.
    Noop,
}

/// The bytes are no packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an Engine.IO packet: a digit from 1 to 6 and its text, or b and base64")]
pub(super) struct Malformed;

/// Reads a text frame.
pub(super) fn text_packet(text: &str) -> Result<Packet<'_>, Malformed> {
    let Some((kind, rest)) = text.as_bytes().split_first() else {
        return Err(Malformed);
    };
    // A digit is one byte of UTF-8, so what follows it begins at a character.
    let rest = match kind {
        b'0'..=b'9' => std::str::from_utf8(rest).map_err(|_| Malformed)?,
        _ => return Err(Malformed),
    };
    match kind {
        b'1' if rest.is_empty() => Ok(Packet::Close),
        b'2' => Ok(Packet::Ping(rest)),
        b'3' => Ok(Packet::Pong),
        b'4' => Ok(Packet::Text(rest)),
        b'5' if rest.is_empty() => Ok(Packet::Upgrade),
        b'6' if rest.is_empty() => Ok(Packet::Noop),
        _ => Err(Malformed),
    }
}

/// The packets of a polling client's body, each read when it's asked for.
pub(super) fn packets(body: &str) -> impl Iterator<Item = Result<Packet<'_>, Malformed>> {
    body.split(char::from(SEPARATOR)).map(polled_packet)
}

fn polled_packet(text: &str) -> Result<Packet<'_>, Malformed> {
    match text.strip_prefix('b') {
        None => text_packet(text),
        Some(encoded) => {
            // With padding or without: clients differ.
            let encoded = encoded.trim_end_matches('=');
            let bytes = STANDARD_NO_PAD.decode(encoded).map_err(|_| Malformed)?;
            Ok(Packet::Binary(bytes.into()))
        }
    }
}

/// A payload that says nothing.
pub(super) const NOOP: &str = "6";

/// A payload that says that this is the end.
pub(super) const CLOSE: &str = "1";

/// Most packets of a payload. Clients in Python read sixteen, and lose a payload that has more.
const PACKETS_MAX: usize = 16;

/// Bytes of frames above which a payload takes no more of them.
const PAYLOAD_BYTES: usize = 64 * 1024;

/// How many bytes of these whole frames become the next payload. What follows is for the one after that.
pub(super) fn beginning(frames: &[u8]) -> usize {
    let (mut rest, mut packets) = (frames, 0);
    while let Some((opcode, _, after)) = next_frame(rest) {
        packets += usize::from(matches!(opcode, 1 | 2));
        let length = frames.len() - after.len();
        let is_first = rest.len() == frames.len();
        if packets > PACKETS_MAX || (length > PAYLOAD_BYTES && !is_first) {
            return frames.len() - rest.len();
        }
        rest = after;
    }
    frames.len()
}

/// Makes a payload of whole WebSocket frames, as they'd go out on the other transport, and says
/// whether a close frame was among them. That is not in the payload: a client that closes while it
/// reads one would keep the packets in front of it, and take them for new ones once it's back. A
/// WebSocket's own pings and pongs are left out.
pub(super) fn from_frames(mut frames: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(frames.len());
    let mut closes = false;
    while let Some((opcode, payload, rest)) = next_frame(frames) {
        frames = rest;
        closes |= opcode == 8;
        if !matches!(opcode, 1 | 2) {
            continue;
        }
        if !out.is_empty() {
            out.push(SEPARATOR);
        }
        if opcode == 1 {
            out.extend_from_slice(payload);
        } else {
            out.push(b'b');
            out.extend_from_slice(STANDARD.encode(payload).as_bytes());
        }
    }
    (out, closes)
}

/// The first of some server frames: its opcode, its payload, and what follows it.
fn next_frame(frames: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&first, rest) = frames.split_first()?;
    let (&short, rest) = rest.split_first()?;
    let (length, rest) = match short {
        0..=125 => (usize::from(short), rest),
        126 => {
            let (bytes, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*bytes)), rest)
        }
        _ => {
            let (bytes, rest) = rest.split_first_chunk::<8>()?;
            (usize::try_from(u64::from_be_bytes(*bytes)).ok()?, rest)
        }
    };
    let (payload, rest) = rest.split_at_checked(length)?;
    Some((first & 0x0f, payload, rest))
}

/// Reads a body, and holds what came of it against the rules.
#[cfg(fuzzing)]
pub(crate) fn fuzz(text: &str) {
    use crate::frontend::websocket::frame::{Opcode, frame};
    let mut frames = Vec::new();
    let mut all = Vec::new();
    for packet in packets(text) {
        let frame = match packet {
            Ok(Packet::Text(text)) => frame(Opcode::Text, format!("4{text}").as_bytes()),
            Ok(Packet::Binary(bytes)) => frame(Opcode::Binary, &bytes),
            Ok(_) => continue,
            Err(Malformed) => return,
        };
        frames.extend_from_slice(&frame);
        all.push(frame);
    }
    let payload = String::from_utf8(from_frames(&frames).0);
    let again = payload.as_deref().map_or(0, |text| packets(text).count());
    assert_eq!(again, all.len().max(1));
    // What is cut short is not read past its end.
    let _ = from_frames(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::websocket::frame::{Opcode, frame};
    use bytes::Bytes;
    use proptest::prelude::*;

    fn check(text: &str, want: Result<Packet<'_>, Malformed>) {
        assert_eq!(text_packet(text), want, "{text:?}");
    }

    #[test]
    fn frames_of_text() {
        check("1", Ok(Packet::Close));
        check("2probe", Ok(Packet::Ping("probe")));
        check("3", Ok(Packet::Pong));
        check("4", Ok(Packet::Text("")));
        check("4h\u{e9}llo", Ok(Packet::Text("h\u{e9}llo")));
        check("5", Ok(Packet::Upgrade));
        check("6", Ok(Packet::Noop));
        for bad in ["", "0", "0{}", "7", "abc", "\u{e9}", "1x", "bAQ==", "5x"] {
            check(bad, Err(Malformed));
        }
    }

    #[test]
    fn payloads() {
        let read = |body| packets(body).collect::<Result<Vec<_>, _>>();
        assert_eq!(
            read("4a\u{1e}3\u{1e}bAQIDBA=="),
            Ok(vec![
                Packet::Text("a"),
                Packet::Pong,
                Packet::Binary(vec![1, 2, 3, 4].into())
            ])
        );
        assert_eq!(read("bAQIDBA"), read("bAQIDBA=="));
        assert_eq!(read("b"), Ok(vec![Packet::Binary(vec![].into())]));
        for bad in ["", "4a\u{1e}", "\u{1e}4a", "b!", "abc", "4a\u{1e}b\u{e9}"] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn frames_become_payloads() {
        let frames = [
            frame(Opcode::Text, b"4hello"),
            frame(Opcode::Ping, b""),
            frame(Opcode::Binary, &[1, 2, 3, 4]),
            frame(Opcode::Text, b"2"),
            frame(Opcode::Close, &[3, 232]),
        ];
        let payload = b"4hello\x1ebAQIDBA==\x1e2".to_vec();
        assert_eq!(from_frames(&frames.concat()), (payload, true));
        for cut in [&[][..], &[0x81], &[0x81, 5, b'4']] {
            assert_eq!(from_frames(cut), (Vec::new(), false));
        }
    }

    #[test]
    fn a_payload_has_so_much() {
        let check = |frames: &[Bytes], want: usize| {
            let all = frames.concat();
            assert_eq!(beginning(&all), frames[..want].concat().len());
        };
        let small = frame(Opcode::Text, b"4a");
        check(&vec![small.clone(); 16], 16);
        check(&vec![small.clone(); 200], 16);
        let ping = frame(Opcode::Ping, b"");
        check(&[vec![small.clone(); 16], vec![ping; 3]].concat(), 19);
        let large = frame(Opcode::Binary, &[0; 40_000]);
        check(&[small.clone(), large.clone(), large], 2);
        let huge = frame(Opcode::Binary, &[0; 200_000]);
        check(&[huge.clone(), small.clone()], 1);
        check(&[small, huge], 1);
    }

    proptest! {
        #[test]
        fn what_goes_out_is_read_back(
            messages in prop::collection::vec(
                prop_oneof![
                    "[^\u{1e}]{0,200}".prop_map(Ok),
                    prop::collection::vec(any::<u8>(), 0..70_000).prop_map(Err),
                ],
                1..6,
            ),
        ) {
            let frames: Vec<_> = messages
                .iter()
                .map(|message| match message {
                    Ok(text) => frame(Opcode::Text, format!("4{text}").as_bytes()),
                    Err(bytes) => frame(Opcode::Binary, bytes),
                })
                .collect();
            let payload = String::from_utf8(from_frames(&frames.concat()).0).unwrap();
            let back: Vec<_> = packets(&payload).map(|packet| packet.unwrap()).collect();
            prop_assert_eq!(back.len(), messages.len());
            for (packet, message) in back.iter().zip(&messages) {
                match message {
                    Ok(text) => prop_assert_eq!(packet, &Packet::Text(text)),
                    Err(bytes) => prop_assert_eq!(packet, &Packet::Binary(bytes.into())),
                }
            }
        }
    }
}
