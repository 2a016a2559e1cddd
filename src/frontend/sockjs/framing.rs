//! What SockJS puts around messages: `o`, `h`, `a[…]` and `c[…]` on the way out, and JSON strings on the
//! way in.
//!
//! Messages are Unicode text. A lone half of a surrogate pair, which JavaScript can send and UTF-8
//! can't say, becomes U+FFFD.

use std::fmt;

use serde::Deserializer;
use serde::de::{Deserialize, Error, SeqAccess, Visitor};
use smallvec::SmallVec;

use crate::frontend::carried::{Coding, Envelope, quoted};
use crate::frontend::websocket::frame::{Opcode, put_frame};

/// The session is open.
pub(super) const OPEN: &str = "o";

/// Nothing happened.
pub(super) const HEARTBEAT: &str = "h";

/// Over a WebSocket each message is an array of its own.
pub(super) static SOCKET: Envelope = Envelope {
    coding: Coding::Quoted,
    wrap: |out, parts| {
        let mut array: SmallVec<[&[u8]; 6]> = SmallVec::new();
        array.push(b"a[\"");
        array.extend_from_slice(parts);
        array.push(b"\"]");
        put_frame(out, Opcode::Text, &array);
    },
    close: |out, code, text| {
        put_frame(out, Opcode::Text, &[close(code, text).as_bytes()]);
        put_frame(out, Opcode::Close, &[&code.to_be_bytes(), text.as_bytes()]);
    },
};

/// In a mailbox each message is a line with a JSON string, and the end a line with its frame.
/// Whoever fetches them makes arrays of them.
pub(super) static MAILBOX: Envelope = Envelope {
    coding: Coding::Quoted,
    wrap: |out, parts| {
        out.push(b'"');
        parts.iter().for_each(|part| out.extend_from_slice(part));
        out.extend_from_slice(b"\"\n");
    },
    close: |out, code, text| {
        out.extend_from_slice(close(code, text).as_bytes());
        out.push(b'\n');
    },
};

/// The end of a session.
pub(super) fn close(code: u16, reason: &str) -> String {
    let mut out = format!("c[{code},\"").into_bytes();
    quoted::put(&mut out, reason);
    out.extend_from_slice(b"\"]");
    String::from_utf8(out).unwrap_or_default()
}

/// What a mailbox held: an array of messages, if there are any, and the end, if it's there.
pub(super) fn fetched(lines: &[u8]) -> (Option<String>, Option<String>) {
    let mut array = String::new();
    let mut end = None;
    for line in lines
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line = String::from_utf8_lossy(line);
        if line.starts_with('c') {
            end = Some(line.into_owned());
            continue;
        }
        array.push_str(if array.is_empty() { "a[" } else { "," });
        array.push_str(&line);
    }
    if !array.is_empty() {
        array.push(']');
    }
    (Some(array).filter(|array| !array.is_empty()), end)
}

/// Messages that a client may send at once. Empty ones take more memory here than on their way, so
/// that bytes are no bound; a client that queues up while a request is under way comes with thousands.
const MESSAGES_MAX: usize = 65_536;

/// Messages from a client: an array of strings, or one string.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Messages(pub(super) Vec<String>);

impl Messages {
    /// Reads what a client sent; none if it's not what it should be.
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

impl<'de> Deserialize<'de> for Messages {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyMessages)
    }
}

struct AnyMessages;

impl<'de> Visitor<'de> for AnyMessages {
    type Value = Messages;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("strings")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Messages, E> {
        Ok(Messages(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Messages, A::Error> {
        let mut messages = Vec::new();
        while let Some(Lossy(text)) = items.next_element()? {
            if messages.len() >= MESSAGES_MAX {
                return Err(A::Error::custom("too many messages"));
            }
            messages.push(text);
        }
        Ok(Messages(messages))
    }
}

/// A string, with U+FFFD for halves of surrogate pairs.
struct Lossy(String);

impl<'de> Deserialize<'de> for Lossy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Lossy;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Lossy, E> {
                Ok(Lossy(lossy(bytes)))
            }
        }
        // As bytes, serde_json lets lone surrogates pass, in three bytes each.
        deserializer.deserialize_bytes(Bytes)
    }
}

fn lossy(bytes: &[u8]) -> String {
    if let Ok(text) = std::str::from_utf8(bytes) {
        return text.to_owned();
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        match rest {
            [0xed, 0xa0..=0xbf, _, behind @ ..] => {
                out.extend_from_slice("\u{fffd}".as_bytes());
                rest = behind;
            }
            _ => {
                out.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Reads anything, and writes what was read.
#[cfg(any(test, fuzzing))]
pub(super) fn fuzz(data: &[u8]) {
    let Some(Messages(messages)) = Messages::read(data) else {
        return;
    };
    let mut lines = Vec::new();
    for message in &messages {
        MAILBOX.put(&mut lines, message.as_bytes());
    }
    let (array, end) = fetched(&lines);
    assert_eq!((array.is_none(), end), (messages.is_empty(), None));
    if let Some(array) = array {
        assert_eq!(
            Messages::read(&array.as_bytes()[1..]),
            Some(Messages(messages))
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> Option<Vec<String>> {
        Messages::read(text.as_bytes()).map(|messages| messages.0)
    }

    #[test]
    fn messages_in() {
        let check = |text: &str, want: Option<&[&str]>| {
            let want = want.map(|want| want.iter().map(|&text| text.to_owned()).collect());
            assert_eq!(read(text), want, "{text}");
        };
        check(r#"["a"]"#, Some(&["a"]));
        check(r#"["a","b\n\u00e9"]"#, Some(&["a", "b\né"]));
        check(r#""a""#, Some(&["a"]));
        check("[]", Some(&[]));
        check(r#"["\ud83d\ude00"]"#, Some(&["😀"]));
        check(r#"["x\ud83dy"]"#, Some(&["x\u{fffd}y"]));
        check(r#"["\ude00\ud83d"]"#, Some(&["\u{fffd}\u{fffd}"]));
        for bad in ["", "[\"a", "[1]", "{}", "[[\"a\"]]", "null", "[\"a\"]x"] {
            check(bad, None);
        }
    }

    #[test]
    fn frames_out() {
        let mut out = Vec::new();
        SOCKET.put(&mut out, "a\"é\u{2028}\u{feff}\0".as_bytes());
        let want = "a[\"a\\\"é\\u2028\u{feff}\\u0000\"]";
        assert_eq!(&out[2..], want.as_bytes());
        assert_eq!(close(3000, "Go away!"), r#"c[3000,"Go away!"]"#);
        assert_eq!(close(1000, "\u{ffff}\u{200c}"), r#"c[1000,"\uffff\u200c"]"#);
        let mut lines = Vec::new();
        assert_eq!(fetched(&lines), (None, None));
        (MAILBOX.wrap)(&mut lines, &[b"c", b"1"]);
        MAILBOX.put(&mut lines, b"2\n");
        (MAILBOX.close)(&mut lines, 1000, "bye");
        let (array, end) = fetched(&lines);
        assert_eq!(array.as_deref(), Some(r#"a["c1","2\n"]"#));
        assert_eq!(end.as_deref(), Some(r#"c[1000,"bye"]"#));
    }

    proptest! {
        #[test]
        fn any_messages(messages in prop::collection::vec(any::<String>(), 0..5)) {
            fuzz(serde_json::to_string(&messages).unwrap().as_bytes());
        }

        #[test]
        fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..100)) {
            fuzz(&data);
        }
    }
}
