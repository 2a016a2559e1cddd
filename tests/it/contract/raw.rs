//! The raw format.

use tokio_tungstenite::tungstenite::Message;

use super::{raw_joined, setup, setup_with};
use crate::harness::bare::{BINARY, Bare, PING, PONG};
use crate::harness::clients::Ws;

#[tokio::test]
async fn text_where_it_is_utf8_else_binary() {
    let (redis, node) = setup();
    let mut socket = raw_joined(&redis, &node, "r").await;
    let mut other = Ws::open(&node, "/rooms/r?from=last:1").await;
    assert_eq!(other.text().await, "joined?");
    for (sent, want) in [
        (Message::text("hällo 🙂"), Message::text("hällo 🙂")),
        (Message::text(""), Message::text("")),
        (Message::binary(Vec::new()), Message::text("")),
        (
            Message::binary("plain".as_bytes().to_vec()),
            Message::text("plain"),
        ),
        (
            Message::binary(vec![0xff, 0, 0xfe]),
            Message::binary(vec![0xff, 0, 0xfe]),
        ),
        (
            Message::text("{\"type\":\"ping\"}"),
            Message::text("{\"type\":\"ping\"}"),
        ),
        (Message::text("a\u{0}b\r\n"), Message::text("a\u{0}b\r\n")),
    ] {
        socket.send_message(sent).await;
        assert_eq!(socket.next().await, Some(want.clone()));
        assert_eq!(other.next().await, Some(want));
    }
    // As XADD key * message <bytes>, and nothing else.
    let stored = redis.cli(&["XREVRANGE", "r", "+", "-", "COUNT", "3"]);
    assert_eq!(stored.matches("message").count(), 3, "{stored}");
}

/// Who wants one kind of frame gets that, whatever was sent. A client that echoes sees what it sent, as in the
/// cases 1.2 and 9 of Autobahn's test suite: all lengths, whole and in fragments.
#[tokio::test]
async fn frames_of_the_readers_choice() {
    let (_redis, node) = setup_with(&["--max-frame", "4MiB"]);
    let mut text = Ws::open(&node, "/rooms/r?from=start&frames=text").await;
    let mut binary = Ws::open(&node, "/rooms/r?from=start&frames=binary").await;
    let mut auto = Ws::open(&node, "/rooms/r?from=start&frames=auto").await;
    for length in [0, 1, 125, 126, 127, 128, 65_535, 65_536, 1 << 20, 4 << 20] {
        let bytes = vec![b'*'; length];
        let words = "*".repeat(length);
        binary.send_message(Message::binary(bytes.clone())).await;
        assert_eq!(binary.next().await, Some(Message::binary(bytes)));
        assert_eq!(text.next().await, Some(Message::text(words.clone())));
        assert_eq!(auto.next().await, Some(Message::text(words)));
    }
    let bytes = b"a\xff\xfe".to_vec();
    text.send_message(Message::binary(bytes.clone())).await;
    assert_eq!(text.text().await, "a\u{fffd}\u{fffd}");
    assert_eq!(binary.next().await, Some(Message::binary(bytes.clone())));
    assert_eq!(auto.next().await, Some(Message::binary(bytes)));
    // In fragments, with a ping between them.
    let mut bare = Bare::open(&node, "/rooms/q?from=start&frames=binary");
    for size in [64, 256, 1_024, 65_536] {
        let whole = vec![b'*'; 1 << 17];
        let mut parts = whole.chunks(size);
        bare.send(0x02, parts.next().unwrap());
        bare.send(PING, b"p");
        parts.for_each(|part| bare.send(0x00, part));
        bare.send(0x80, b"");
        assert_eq!(bare.some_frame(), (PONG, b"p".to_vec()));
        assert_eq!(bare.some_frame(), (BINARY, whole));
    }
    let refused = Ws::try_open(&node, "/rooms/r?frames=both", &[]).await;
    assert_eq!(refused.err().map(|refused| refused.status), Some(400));
}

#[tokio::test]
async fn the_field_message_or_else_the_first() {
    let (redis, node) = setup();
    let mut socket = raw_joined(&redis, &node, "r").await;
    redis.cli(&["XADD", "r", "*", "aaa", "1234", "bbb", "5"]);
    redis.cli(&["XADD", "r", "*", "aaa", "1", "message", "2", "message", "3"]);
    redis.cli(&["XADD", "r", "*", "", ""]);
    redis.cli(&["XADD", "r", "*", "Message", "no", "other", "x"]);
    for want in ["1234", "2", "", "no"] {
        assert_eq!(socket.text().await, want);
    }
}

#[tokio::test]
async fn large_and_fragmented_messages() {
    let (redis, node) = setup();
    let mut socket = raw_joined(&redis, &node, "r").await;
    // Around every size at which a frame's header changes, up to --max-frame itself.
    for size in [1, 125, 126, 127, 65_535, 65_536] {
        let message = "x".repeat(size);
        socket.send(message.clone()).await;
        assert!(socket.text().await == message, "{size}");
    }
    // Larger entries than a client may send come out all the same.
    let large = "y".repeat(1 << 17);
    redis.cli(&["XADD", "r", "*", "message", &large[..100_000]]);
    assert_eq!(socket.text().await.len(), 100_000);
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    for (text, code, last) in [
        ("ab", Data::Text, false),
        ("cd", Data::Continue, false),
        ("ef", Data::Continue, true),
    ] {
        let mut frame = Frame::message(text, OpCode::Data(code), last);
        frame.header_mut().mask = Some([1, 2, 3, 4]);
        socket.send_message(Message::Frame(frame)).await;
        if !last {
            socket.send_message(Message::Ping("between".into())).await;
        }
    }
    assert_eq!(socket.text().await, "abcdef");
}

#[tokio::test]
async fn the_default_room_and_its_other_names() {
    let (redis, node) = super::setup_with(&["--default-room", "hall"]);
    for (path, room) in [
        ("/", "hall"),
        ("/?room=a", "a"),
        ("/?roomid=b%20c", "b c"),
        ("", "hall"),
        ("/?room=a&roomid=b", "a"),
    ] {
        let mut socket = Ws::open(&node, path).await;
        socket.send(path).await;
        super::wait_for("it's stored", || {
            redis
                .cli(&["XREVRANGE", room, "+", "-", "COUNT", "1"])
                .ends_with(path)
        });
        let _ = socket.stream.close(None).await;
    }
}

#[tokio::test]
async fn subprotocol_and_format() {
    let (_redis, node) = setup();
    for (query, offered, chosen, is_json) in [
        ("", "", None, false),
        ("?format=raw", "", None, false),
        ("?format=json", "", None, true),
        ("", "tailcast.json", Some("tailcast.json"), true),
        ("", "tailcast.raw", Some("tailcast.raw"), false),
        (
            "?format=json",
            "tailcast.raw, tailcast.json",
            Some("tailcast.json"),
            true,
        ),
    ] {
        let headers: &[(&'static str, &str)] = match offered {
            "" => &[],
            offered => &[("sec-websocket-protocol", offered)],
        };
        let path = format!("/rooms/r{query}");
        let mut socket = Ws::try_open(&node, &path, headers).await.unwrap();
        assert_eq!(socket.subprotocol.as_deref(), chosen, "{query} {offered}");
        if is_json {
            assert_eq!(socket.frame().await["type"], "joined");
        }
    }
    let refused = Ws::try_open(&node, "/rooms/r?format=xml", &[])
        .await
        .err()
        .unwrap();
    assert_eq!((refused.status, &*refused.code), (400, "bad_request"));
}
