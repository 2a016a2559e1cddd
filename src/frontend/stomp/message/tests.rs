use super::*;
use crate::frontend::carried::{BARE, WEBSOCKET};
use crate::frontend::record::{Piece, Pieces};
use crate::relay::entry::EntryId;
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
    frames.agree(version);
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
    assert_eq!(frames.subscribe("s", "/topic/a", &room, false), Some(true));
    let got = finish(&mut frames, &entry(&room, &entry_of(fields)));
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
            &want("content-length:3\n\na\0b\0"),
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
        &want("a\\cb:c\nd:e\\nf\\c\\\\\ng:\\rh\ncontent-length:1\n\nm\0"),
    );
    check(
        V11,
        &odd,
        &want("a\\cb:c\nd:e\\nf\\c\\\\\ncontent-length:1\n\nm\0"),
    );
    check(V10, &odd, &want("content-length:1\n\nm\0"));
    check(V12, &[], &want("content-length:0\n\n\0"));
}

#[test]
fn each_subscription_gets_its_own() {
    let mut frames = frames(Version::V12, &BARE);
    let (a, b) = (room("a"), room("b"));
    assert_eq!(frames.subscribe("1", "/topic/a", &a, true), Some(true));
    assert_eq!(
        frames.subscribe("2", "/user/queue/x", &a, false),
        Some(false)
    );
    assert_eq!(frames.subscribe("2", "/topic/b", &b, false), None);
    let hello = entry(&a, &entry_of(&[(b"message", b"hi")]));
    let rest = "message-id:5-1\ntimestamp:5\ncontent-length:2\n\nhi\0";
    let one = format!("MESSAGE\nsubscription:1\ndestination:/topic/a\nack:5-1\n{rest}");
    let two = format!("MESSAGE\nsubscription:2\ndestination:/user/queue/x\n{rest}");
    assert_eq!(
        finish(&mut frames, &hello),
        format!("{one}{two}").into_bytes()
    );
    let other = entry(&b, &entry_of(&[(b"message", b"hi")]));
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
    frames.subscribe("/topic/a", "/topic/a", &a, true);
    let got = finish(&mut frames, &entry(&a, &entry_of(&[(b"message", b"hi")])));
    let got = String::from_utf8(got).unwrap();
    assert!(
        got.starts_with("MESSAGE\ndestination:/topic/a\nmessage-id:5-1\n"),
        "{got}"
    );
}

#[test]
fn what_is_no_text_is_base64_where_only_text_passes() {
    static TEXT: Envelope = Envelope {
        text_only: true,
        ..BARE
    };
    let mut frames = frames(Version::V12, &TEXT);
    let a = room("a");
    frames.subscribe("s", "/topic/a", &a, false);
    let got = finish(
        &mut frames,
        &entry(&a, &entry_of(&[(b"message", b"\xff\0"), (b"b", b"c")])),
    );
    let want = want("b:c\ncontent-transfer-encoding:base64\ncontent-length:4\n\n/wA=\0");
    assert_eq!(String::from_utf8(got).unwrap().into_bytes(), want);
}

#[test]
fn gaps_are_told() {
    let mut frames = frames(Version::V12, &BARE);
    let a = room("a");
    frames.subscribe("s", "/topic/a", &a, true);
    let told = gap(
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
    assert_eq!(close(&mut bare, CloseReason::TooLarge), "");
    let mut socket = frames(Version::V12, &WEBSOCKET);
    socket.set_told();
    let closed = finish(
        &mut socket,
        &super::close(&CloseReason::Forbidden("no".into())),
    );
    assert_eq!(closed, b"\x88\x04\x11\x33no");
    assert!(super::close(&CloseReason::Gone).is_empty());
}
