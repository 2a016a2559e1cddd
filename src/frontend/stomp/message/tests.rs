use proptest::prelude::*;

use super::*;
use crate::frontend::carried::{BARE, WEBSOCKET};
use crate::frontend::record::{Piece, Pieces};
use crate::relay::format::GapReason;

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

fn entry_of(fields: &[(&'static [u8], &'static [u8])]) -> Entry {
    let fields: Vec<(Bytes, Bytes)> = fields
        .iter()
        .map(|(name, value)| (Bytes::from_static(name), Bytes::from_static(value)))
        .collect();
    Entry::new(EntryId::new(5, 1), fields)
}

fn frames(version: Version, envelope: &'static Envelope) -> Frames {
    let mut frames = Frames::new(envelope);
    frames.agree(version, false);
    frames
}

fn finish(frames: &mut Frames, record: &Bytes) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in Pieces(record) {
        match piece.unwrap() {
            Piece::Record(record) => frames.finish(record, &mut out),
            Piece::Frame(frame) => out.extend_from_slice(frame),
        }
    }
    out
}

fn check(version: Version, fields: &[(&'static [u8], &'static [u8])], want: &[u8]) {
    let mut frames = frames(version, &BARE);
    let room = room("a");
    assert_eq!(
        frames.subscribe("s", "/topic/a", &room, false, None),
        Subscribed::First
    );
    let got = finish(
        &mut frames,
        &encode_entry(Coding::Bytes, &room, &entry_of(fields)),
    );
    let show = |bytes: &[u8]| bytes.escape_ascii().to_string();
    assert_eq!(show(&got), show(want), "{version:?}");
}

const HEAD: &str = "MESSAGE\nsubscription:s\ndestination:/topic/a\nmessage-id:5-1\ntimestamp:5\n";

fn want(rest: &str) -> Vec<u8> {
    [HEAD, rest].concat().into_bytes()
}

#[test]
fn entries_become_messages() {
    use Version::{V10, V11, V12};
    for version in [V10, V11, V12] {
        check(
            version,
            &[
                (b"message", b"hi"),
                (b"content-type", b"text/plain"),
                (b"user", b"bob"),
            ],
            &want("content-type:text/plain\nuser:bob\ncontent-length:2\n\nhi\0"),
        );
        check(
            version,
            &[(b"aaa", b"1234")],
            &want("content-length:4\n\n1234\0"),
        );
        check(
            version,
            &[(b"message", b"a\0b")],
            &want("content-transfer-encoding:base64\ncontent-length:4\n\nYQBi\0"),
        );
    }
    // The message is where it is; what the protocol says itself, and what is no text, is left out.
    check(
        V12,
        &[
            (b"x", b"1"),
            (b"message", b"m"),
            (b"message-id", b"9"),
            (b"b", b"\xff"),
            (b"x", b"2"),
        ],
        &want("x:1\nx:2\nx-omitted:2\ncontent-length:1\n\nm\0"),
    );
    let odd: [(&[u8], &[u8]); 4] = [
        (b"message", b"m"),
        (b"a:b", b"c"),
        (b"d", b"e\nf:\\"),
        (b"g", b"\rh"),
    ];
    check(
        V12,
        &odd,
        &want("d:e\\nf\\c\\\\\ng:\\rh\nx-omitted:1\ncontent-length:1\n\nm\0"),
    );
    check(
        V11,
        &odd,
        &want("d:e\\nf\\c\\\\\nx-omitted:2\ncontent-length:1\n\nm\0"),
    );
    check(V10, &odd, &want("x-omitted:3\ncontent-length:1\n\nm\0"));
    check(V12, &[], &want("content-length:0\n\n\0"));
}

#[test]
fn each_subscription_gets_its_own() {
    let mut frames = frames(Version::V12, &BARE);
    let (a, b) = (room("a"), room("b"));
    assert_eq!(
        frames.subscribe("1", "/topic/a", &a, true, None),
        Subscribed::First
    );
    assert_eq!(
        frames.subscribe("2", "/user/queue/x", &a, false, Some("r")),
        Subscribed::Waits
    );
    let subscribed = frames.subscribe("2", "/topic/b", &b, false, None);
    assert_eq!(subscribed, Subscribed::Exists);
    let again = frames.subscribe("2", "/user/queue/x", &a, false, Some("s"));
    assert_eq!(again, Subscribed::Waits);
    assert_eq!(frames.joined(&a), ["r", "s"].map(Box::<str>::from));
    let again = frames.subscribe("2", "/user/queue/x", &a, false, None);
    assert_eq!(again, Subscribed::Shares);
    assert!(frames.joined(&a).is_empty());
    let hello = encode_entry(Coding::Bytes, &a, &entry_of(&[(b"message", b"hi")]));
    let rest = "message-id:5-1\ntimestamp:5\ncontent-length:2\n\nhi\0";
    let one = format!("MESSAGE\nsubscription:1\ndestination:/topic/a\nack:5-1\n{rest}");
    let two = format!("MESSAGE\nsubscription:2\ndestination:/user/queue/x\n{rest}");
    assert_eq!(
        finish(&mut frames, &hello),
        format!("{one}{two}").into_bytes()
    );
    let other = encode_entry(Coding::Bytes, &b, &entry_of(&[(b"message", b"hi")]));
    assert!(finish(&mut frames, &other).is_empty());
    assert_eq!(frames.unsubscribe("1"), Some((a.clone(), false)));
    assert_eq!(finish(&mut frames, &hello), two.into_bytes());
    assert_eq!(frames.unsubscribe("2"), Some((a, true)));
    assert_eq!(frames.unsubscribe("2"), None);
    assert!(finish(&mut frames, &hello).is_empty());
}

#[test]
fn clients_of_1_0_go_by_the_destination() {
    let mut frames = frames(Version::V10, &BARE);
    let a = room("a");
    frames.subscribe("/topic/a", "/topic/a", &a, true, None);
    let got = finish(
        &mut frames,
        &encode_entry(Coding::Bytes, &a, &entry_of(&[(b"message", b"hi")])),
    );
    let got = String::from_utf8(got).unwrap();
    assert!(
        got.starts_with("MESSAGE\ndestination:/topic/a\nmessage-id:5-1\n"),
        "{got}"
    );
}

/// A carrier of text, with nothing around it.
static TEXT: Envelope = Envelope {
    coding: Coding::Quoted,
    ..BARE
};

#[test]
fn what_is_no_text_is_base64_where_only_text_passes() {
    let mut frames = frames(Version::V12, &TEXT);
    let a = room("a");
    frames.subscribe("s", "/topic/a", &a, false, None);
    let fields: [(&[u8], &[u8]); 3] = [
        (b"message", b"\xff\0"),
        (b"b", b"c"),
        // Some clients take the first, some the last.
        (b"content-transfer-encoding", b"binary"),
    ];
    let got = finish(
        &mut frames,
        &encode_entry(Coding::Quoted, &a, &entry_of(&fields)),
    );
    let want =
        want("content-transfer-encoding:base64\nb:c\nx-omitted:1\ncontent-length:4\n\n/wA=\0");
    assert_eq!(quoted::read(&got).unwrap().into_bytes(), want);
}

#[test]
fn only_the_node_says_how_a_body_is_written() {
    let a = room("a");
    for name in ["content-transfer-encoding", "Content-Transfer-Encoding"] {
        let mut frames = Frames::new(&BARE);
        frames.subscribe("s", "/topic/a", &a, false, None);
        let fields: [(&[u8], &[u8]); 2] = [(b"message", b"hello"), (name.as_bytes(), b"base64")];
        let bytes = encode_entry(BARE.coding, &a, &entry_of(&fields));
        let got = String::from_utf8(finish(&mut frames, &bytes)).unwrap();
        assert!(
            got.ends_with("\nx-omitted:1\ncontent-length:5\n\nhello\0"),
            "{got}"
        );
        assert!(!got.to_lowercase().contains("encoding"), "{got}");
    }
}

#[test]
fn nul_bytes_are_for_clients_that_ask_for_them() {
    let a = room("a");
    let get = |envelope: &'static Envelope, version, is_binary, body: &'static [u8]| {
        let mut frames = Frames::new(envelope);
        frames.agree(version, is_binary);
        frames.subscribe("s", "/topic/a", &a, false, None);
        let entry = entry_of(&[
            (b"message", body),
            (b"x", b"\\"),
            (b"Content-Transfer-Encoding", b"base64"),
        ]);
        finish(&mut frames, &encode_entry(envelope.coding, &a, &entry))
    };
    for version in Version::ALL {
        let x = if version == Version::V10 {
            "\\"
        } else {
            "\\\\"
        };
        let any = format!(
            "content-transfer-encoding:base64\nx:{x}\nx-omitted:1\ncontent-length:8\n\nYQBFUlI=\0"
        );
        let raw = format!("x:{x}\nx-omitted:1\ncontent-length:5\n\na\0ERR\0");
        for (is_binary, rest) in [(false, any), (true, raw)] {
            let bytes = get(&BARE, version, is_binary, b"a\0ERR");
            assert_eq!(String::from_utf8(bytes).unwrap(), HEAD.to_owned() + &rest);
            let text = get(&TEXT, version, is_binary, b"a\0ERR");
            assert_eq!(quoted::read(&text).unwrap(), HEAD.to_owned() + &rest);
        }
        // What is no text is no text where only that passes, whatever the client said.
        let text = get(&TEXT, version, true, b"\xff\0");
        assert!(quoted::read(&text).unwrap().ends_with("\n\n/wA=\0"));
        let bytes = get(&BARE, version, true, b"\xff\0");
        assert!(bytes.ends_with(b"\n\n\xff\0\0"));
    }
}

#[test]
fn who_published_it_is_a_header_however_many_fields_there_are() {
    let mut fields: Vec<(Bytes, Bytes)> = (0..60)
        .map(|at| (format!("f{at}").into(), Bytes::from("v")))
        .collect();
    fields.insert(0, (Bytes::from("message"), Bytes::from("m")));
    fields.push((Bytes::from("user"), Bytes::from("bob")));
    let entry = Entry::new(EntryId::new(5, 1), fields);
    let a = room("a");
    let mut frames = frames(Version::V12, &BARE);
    frames.subscribe("s", "/topic/a", &a, true, None);
    let got = finish(&mut frames, &encode_entry(Coding::Bytes, &a, &entry));
    let got = String::from_utf8(got).unwrap();
    assert!(got.contains("\nf47:v\nuser:bob\nx-omitted:12\n"), "{got}");
    let (lines, _) = got.split_once("\n\n").unwrap();
    assert!(lines.lines().count() <= 64, "{lines}");
}

/// A message as it comes over a carrier of bytes, for one of text: what is no text is base64, and then
/// all of it is coded at once.
fn slowly(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if std::str::from_utf8(bytes).is_ok() {
        TEXT.put(&mut out, bytes);
        return out;
    }
    let (lines, rest) = split(bytes);
    let mut text = Vec::new();
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b"content-length:") {
            text.extend_from_slice(line);
        }
        // Nothing of the entry's own comes before it.
        if line.starts_with(b"timestamp:") {
            put_header(&mut text, "content-transfer-encoding", "base64");
        }
    }
    let body = &rest[1..rest.len() - 1];
    put_body(&mut text, STANDARD.encode(body).as_bytes());
    TEXT.put(&mut out, &text);
    out
}

fn any_field() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let name = prop_oneof![
        Just(b"message".to_vec()),
        r#"[a-c:\\\n\r"é]{0,4}"#.prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    let value = prop_oneof![
        any::<String>().prop_map(String::into_bytes),
        r#"[a:\\\n\rnc"\x{2028}\x{ffff}]{0,8}"#.prop_map(String::into_bytes),
        prop::collection::vec(any::<u8>(), 0..12),
    ];
    (name, value)
}

proptest! {
    #[test]
    fn coded_once_is_as_coded_for_each(
        fields in prop::collection::vec(any_field(), 0..5),
        id in r#"[a-z:\\"\n]{1,6}"#,
        version in prop::sample::select(Version::ALL.to_vec()),
        acks in any::<bool>(),
    ) {
        let fields: Vec<(Bytes, Bytes)> = fields
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let entry = Entry::new(EntryId::new(5, 1), fields);
        let a = room("a");
        let of = |envelope: &'static Envelope| {
            let mut frames = frames(version, envelope);
            frames.subscribe(&id, "/topic/a", &a, acks, None);
            finish(&mut frames, &encode_entry(envelope.coding, &a, &entry))
        };
        prop_assert_eq!(of(&TEXT), slowly(&of(&BARE)));
    }

    /// Where a record says that a version needs nothing else, it's so.
    #[test]
    fn as_it_stands_is_as_written_anew(
        fields in prop::collection::vec(any_field(), 0..5),
        version in prop::sample::select(Version::ALL.to_vec()),
    ) {
        let fields: Vec<(Bytes, Bytes)> = fields
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect();
        let entry = Entry::new(EntryId::new(5, 1), fields);
        for envelope in [&BARE, &TEXT] {
            let record = encode_entry(envelope.coding, &room("a"), &entry);
            let Some(Ok(Piece::Record(record))) = Pieces(&record).next() else {
                panic!("a record");
            };
            let (oldest, shared) = record.body.split_first().unwrap();
            let anew = frames(version, envelope).adapted(shared);
            let is_older = (version as u8) < *oldest;
            prop_assert!(is_older || anew == shared);
        }
    }
}

#[test]
fn gaps_are_told() {
    let mut frames = frames(Version::V12, &BARE);
    let a = room("a");
    frames.subscribe("s", "/topic/a", &a, true, None);
    let told = encode_gap(
        Coding::Bytes,
        &a,
        &Gap {
            after: EntryId::new(1, 0),
            before: EntryId::new(5, 1),
            reason: GapReason::Trimmed,
        },
    );
    let GapFrame::Frame(record) = told else {
        panic!("a frame");
    };
    let body = r#"{"type":"gap","room":"a","after":"1-0","before":"5-1","reason":"trimmed"}"#;
    let want = format!(
        "MESSAGE\nsubscription:s\ndestination:/topic/a\nx-gap-after:1-0\nx-gap-before:5-1\nx-gap-reason:trimmed\ncontent-type:application/json\ncontent-length:{}\n\n{body}\0",
        body.len()
    );
    assert_eq!(finish(&mut frames, &record), want.into_bytes());
}

#[test]
fn ends() {
    let close = |frames: &mut Frames, reason: CloseReason| {
        let out = finish(frames, &super::close(&reason));
        String::from_utf8_lossy(&out).into_owned()
    };
    let mut bare = frames(Version::V12, &BARE);
    let told = close(&mut bare, CloseReason::Timeout("no heart-beat".into()));
    assert_eq!(
        told,
        "ERROR\nmessage:no heart-beat\ncode:timeout\ncontent-length:13\n\nno heart-beat\0"
    );
    assert_eq!(close(&mut bare, CloseReason::Drain), "");
    bare.set_told();
    assert_eq!(
        close(&mut bare, CloseReason::TooLarge("--stomp-max-frame")),
        ""
    );
    let mut socket = frames(Version::V12, &WEBSOCKET);
    socket.set_told();
    let closed = finish(
        &mut socket,
        &super::close(&CloseReason::Forbidden("no".into())),
    );
    assert_eq!(closed, b"\x88\x04\x11\x33no");
    assert!(super::close(&CloseReason::Gone).is_empty());
}
