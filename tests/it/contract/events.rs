//! Server-sent events on the wire, and published clients whose connections break.

use std::io::{Read, Write};
use std::net::TcpStream;

use super::{add, setup, setup_with};
use crate::harness::clients::Program;

/// The position reaches published clients before the first entry does, so that a break loses nothing.
#[test]
fn a_break_before_the_first_event_loses_nothing() {
    let (redis, node) = setup();
    for client in [
        "eventsource",
        "eventsource-v2",
        "eventsource-v4",
        "event-source-polyfill",
    ] {
        for format in ["json", "raw"] {
            let room = format!("{client}-{format}");
            let head = add(&redis, &room, "before");
            let url = node.url(&format!("/rooms/{room}?format={format}"));
            let mut program = Program::node("sse-cut.mjs", &[client, &url]);
            let joined = program.event("joined");
            assert_eq!(joined["id"], *head, "{client}");
            program.say("cut");
            program.event("error");
            let ids = [add(&redis, &room, "one"), add(&redis, &room, "two")];
            program.say("mend");
            for id in &ids {
                assert_eq!(program.event("message")["id"], **id, "{client}");
            }
            // And from the last one on, as ever.
            program.say("cut");
            program.event("error");
            let last = add(&redis, &room, "three");
            program.say("mend");
            let message = program.event("message");
            assert_eq!(message["id"], *last, "{client}");
            assert_eq!(message["data"] == "three", format == "raw");
        }
    }
}

/// What goes over the wire: whole chunks, and an end that's told.
#[test]
fn events_come_in_chunks_to_who_knows_them() {
    let (redis, node) = setup_with(&["--sse-heartbeat", "1s"]);
    let ask = |version: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", node.port())).unwrap();
        stream
            .set_read_timeout(Some(crate::harness::PATIENCE))
            .unwrap();
        let request = format!(
            "GET /rooms/r?format=raw HTTP/{version}\r\nhost: a\r\naccept: text/event-stream\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        stream
    };
    let until = |stream: &mut TcpStream, part: &str| {
        let mut text = String::new();
        while !text.contains(part) {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{text:?} has no {part:?}");
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        text
    };
    let (mut chunked, mut plain) = (ask("1.1"), ask("1.0"));
    let head = until(&mut chunked, "\"head\":\"0-0\"}\n\n\r\n");
    assert!(
        head.contains("\r\ntransfer-encoding: chunked\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\n\r\nc\r\nretry: 2000\n\r\n"), "{head}");
    let head = until(&mut plain, "\"head\":\"0-0\"}\n\n");
    assert!(!head.contains("chunked") && head.contains("\r\nconnection: close\r\n"));
    assert!(
        head.contains("\r\n\r\nretry: 2000\nevent: joined\n"),
        "{head}"
    );
    until(&mut chunked, "2\r\n:\n\r\n");
    until(&mut plain, ":\n");
    let id = add(&redis, "r", "hi");
    let event = format!("id: {id}\ndata: hi\n\n");
    until(&mut plain, &event);
    until(&mut chunked, &format!("{:x}\r\n{event}\r\n", event.len()));
    node.sigterm();
    let rest = until(&mut chunked, "0\r\n\r\n");
    assert!(
        rest.contains("retry: ") && !rest.contains("\n\n\r\n"),
        "{rest:?}"
    );
    let mut rest = String::new();
    plain.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("retry: ") && rest.ends_with('\n'), "{rest:?}");
}
