//! Server frames, encoded once and shared: one WebSocket frame in one exactly sized `Bytes`.
//!
//! ```text
//! 0        1        2            (4 or 10)
//! +--------+--------+------------+------------------+
//! | FIN op | length | length, if | payload,         |
//! |        |  (7)   | 16 or 64 b | never masked     |
//! +--------+--------+------------+------------------+
//! ```

use bytes::Bytes;

use crate::relay::close::CloseReason;

const FIN: u8 = 0x80;

/// The part of a frame's first byte that is its opcode.
pub(crate) const OPCODE: u8 = 0x0f;

/// What a frame is (RFC 6455, 5.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Opcode {
    Text = 0x1,
    Binary = 0x2,
    Close = 0x8,
    Ping = 0x9,
}

/// One whole frame.
pub(crate) fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    // Exact, for windows hold thousands of these.
    let header = match payload.len() {
        0..=125 => 2,
        126..=65_535 => 4,
        _ => 10,
    };
    let mut out = Vec::with_capacity(header + payload.len());
    put_frame(&mut out, opcode, &[payload]);
    Bytes::from(out)
}

/// Appends one whole frame, whose payload is all of these parts.
pub(crate) fn put_frame(out: &mut Vec<u8>, opcode: Opcode, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let first = FIN | opcode as u8;
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short @ 0..=125), _) => out.extend_from_slice(&[first, short]),
        (_, Ok(medium)) => {
            out.extend_from_slice(&[first, 126]);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.extend_from_slice(&[first, 127]);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

/// Any bytes: text if they are UTF-8, so that a browser gets a string, else binary.
pub(crate) fn data(payload: &[u8]) -> Bytes {
    match std::str::from_utf8(payload) {
        Ok(_) => frame(Opcode::Text, payload),
        Err(_) => frame(Opcode::Binary, payload),
    }
}

/// The close frame; empty after the client closed, as the answer to its own frame is the last one.
pub(crate) fn close(reason: &CloseReason) -> Bytes {
    if *reason == CloseReason::Gone {
        return Bytes::new();
    }
    let mut payload = reason.code().to_be_bytes().to_vec();
    payload.extend_from_slice(reason.text().as_bytes());
    frame(Opcode::Close, &payload)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::tungstenite::protocol::{Role, WebSocket};

    fn decode(frame: &Bytes) -> Message {
        let stream = std::io::Cursor::new(frame.to_vec());
        WebSocket::from_raw_socket(stream, Role::Client, None)
            .read()
            .unwrap()
    }

    fn check(length: usize, header: &[u8]) {
        let payload = vec![b'x'; length];
        let frame = frame(Opcode::Text, &payload);
        assert_eq!(&frame[..header.len()], header, "{length}");
        assert_eq!(&frame[header.len()..], payload, "{length}");
    }

    #[test]
    fn headers_at_the_borders() {
        check(0, &[0x81, 0]);
        check(1, &[0x81, 1]);
        check(125, &[0x81, 125]);
        check(126, &[0x81, 126, 0, 126]);
        check(255, &[0x81, 126, 0, 255]);
        check(256, &[0x81, 126, 1, 0]);
        check(65_535, &[0x81, 126, 0xff, 0xff]);
        check(65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn closes() {
        let gone = close(&CloseReason::Gone);
        assert!(gone.is_empty());
        let Message::Close(Some(told)) = decode(&close(&CloseReason::TooLarge("--max-frame")))
        else {
            panic!("no close frame");
        };
        assert_eq!(u16::from(told.code), 1009);
        assert_eq!(
            told.reason.as_str(),
            CloseReason::TooLarge("--max-frame").text()
        );
        let long = CloseReason::Internal("é".repeat(100).into());
        assert!(matches!(decode(&close(&long)), Message::Close(Some(_))));
        assert!(close(&long).len() <= 127);
    }

    proptest! {
        #[test]
        fn another_decoder_reads_the_same(payload in prop::collection::vec(any::<u8>(), 0..70_000)) {
            let want = match String::from_utf8(payload.clone()) {
                Ok(text) => Message::text(text),
                Err(_) => Message::binary(payload.clone()),
            };
            prop_assert_eq!(decode(&data(&payload)), want);
        }

        #[test]
        fn text_stays_text(text in "\\PC{0,200}") {
            prop_assert_eq!(decode(&data(text.as_bytes())), Message::text(text));
        }
    }
}
