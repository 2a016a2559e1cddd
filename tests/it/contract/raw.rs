//! The raw format.

use tokio_tungstenite::tungstenite::Message;

use super::{raw_joined, setup};
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
