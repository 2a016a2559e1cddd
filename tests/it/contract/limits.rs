//! Limits on connections and handshakes.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::{setup_with, wait_for};
use crate::harness::clients::Ws;
use crate::harness::http;

#[tokio::test]
async fn sockets_beyond_the_most_are_turned_away() {
    let (_redis, node) = setup_with(&["--max-sockets", "2"]);
    let full = || Ws::try_open(&node, "/rooms/r", &[]);
    wait_for("what asked for readiness is gone", || {
        http::try_request(node.port(), "GET", "/metrics", &[], b"")
            .is_ok_and(|page| page.text().contains("tailcast_connections 1\n"))
    });
    let mut one = full().await;
    let mut two = full().await;
    // The place of a request that just ended may take a moment to be free.
    for socket in [&mut one, &mut two] {
        while socket.is_err() {
            *socket = full().await;
        }
    }
    let refused = full().await.err().unwrap();
    assert_eq!((refused.status, &*refused.code), (503, "too_many_sockets"));
    let answer = node.get("/rooms/r");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (503, "too_many_sockets")
    );
    assert!(answer.header("retry-after").is_some());
    drop(one);
    let mut three = full().await;
    let deadline = Instant::now() + crate::harness::PATIENCE;
    while three.is_err() {
        assert!(Instant::now() < deadline);
        three = full().await;
    }
}

#[test]
fn silent_and_dripping_clients_are_cut_off() {
    let (_redis, node) = setup_with(&["--handshake-timeout", "300ms"]);
    for start in ["", "G", "GET / HTTP/1.1\r\nhost: a\r\n"] {
        let mut stream = TcpStream::connect(("127.0.0.1", node.port())).unwrap();
        stream
            .set_read_timeout(Some(crate::harness::PATIENCE))
            .unwrap();
        stream.write_all(start.as_bytes()).unwrap();
        let began = Instant::now();
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        assert!(began.elapsed() >= Duration::from_millis(250), "{start:?}");
        assert!(
            rest.is_empty() || rest.starts_with(b"HTTP/1.1 408"),
            "{start:?}"
        );
    }
}

#[test]
fn a_connection_may_rest_between_requests() {
    let (_redis, node) =
        setup_with(&["--handshake-timeout", "300ms", "--keep-alive-timeout", "2s"]);
    let mut stream = TcpStream::connect(("127.0.0.1", node.port())).unwrap();
    stream
        .set_read_timeout(Some(crate::harness::PATIENCE))
        .unwrap();
    let began = Instant::now();
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(100));
        stream
            .write_all(b"GET /health/live HTTP/1.1\r\nhost: a\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        while !answer.ends_with("}\n") {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).unwrap();
            assert!(count > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
        assert!(answer.contains("keep-alive: timeout=2\r\n"), "{answer}");
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(stream.read(&mut [0; 16]).unwrap(), 0);
    assert!(began.elapsed() > Duration::from_millis(2_500));
}

#[test]
fn heads_that_are_too_large() {
    let (_redis, node) = setup_with(&[]);
    let large = "x".repeat(40_000);
    let answer = node.request("GET", "/rooms/r", &[("x-large", &*large)], "");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (431, "head_too_large")
    );
    assert!(answer.text().contains("--max-header-size"));
    let (_redis, roomy) = setup_with(&["--max-header-size", "64KiB", "--max-headers", "300"]);
    let answer = roomy.request("GET", "/rooms/r", &[("x-large", &*large)], "");
    assert_eq!(answer.status, 200);
    let many: Vec<(String, String)> = (0..200)
        .map(|number| (format!("x-{number}"), "y".to_owned()))
        .collect();
    let many: Vec<(&str, &str)> = many
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect();
    let answer = node.request("GET", "/rooms/r", &many, "");
    assert_eq!(
        (answer.status, &*answer.error_code()),
        (431, "head_too_large")
    );
    assert_eq!(roomy.request("GET", "/rooms/r", &many, "").status, 200);
    let answer = node.get(&format!("/rooms/r?x={large}"));
    assert!([414, 431].contains(&answer.status), "{answer:?}");
}
