//! The server over real sockets, with handlers of its own instead of the front ends.

use std::net::SocketAddr;

use axum::extract::Request;
use axum::response::Response;
use axum::routing::get;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::task::JoinHandle;

use super::*;
use crate::drain::StopTrigger;
use crate::frontend::{Run, Taken, Takeover};

struct Running {
    address: SocketAddr,
    trigger: StopTrigger,
    drain: Drain,
    metrics: Metrics,
    ended: JoinHandle<Ended>,
}

async fn start(max_sockets: usize, handshake: u64, drain_timeout: u64) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, stop) = Stop::by_hand();
    let settings = Settings {
        max_sockets,
        handshake_timeout: Duration::from_millis(handshake),
        drain_timeout: Duration::from_millis(drain_timeout),
        keep_alive_timeout: Duration::from_secs(3),
        ..Settings::default()
    };
    let drain = Drain::default();
    let metrics = Metrics::default();
    let told = drain.clone();
    let busy = drain.clone();
    let router = Router::new()
        .route("/plain", get(|| async { "plain" }))
        .route("/take", get(move |request| take(request, told.clone())))
        .route("/stuck", get(move || stuck(busy.clone())));
    let server = Server::assemble(
        settings,
        router,
        drain.clone(),
        metrics.clone(),
        vec![listener],
    );
    Running {
        address,
        trigger,
        drain,
        metrics,
        ended: tokio::spawn(server.run(stop)),
    }
}

/// Takes the connection over and echoes, until the client ends or a drain tells it to.
async fn take(mut request: Request, drain: Drain) -> Response {
    let run: Run = Box::new(move |taken| echo(taken, drain).boxed());
    let head = Bytes::from_static(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\n\r\n");
    let takeover = request.extensions_mut().remove::<Takeover>().unwrap();
    match takeover.take(head, run).await {}
}

/// Never answers, whatever it's told.
async fn stuck(drain: Drain) {
    let _slot = drain.register();
    std::future::pending().await
}

async fn echo(taken: Taken, drain: Drain) {
    let slot = drain.register();
    let socket = taken.socket;
    assert!(taken.peer.is_some());
    assert_eq!(
        socket.wire().try_write(&taken.read_ahead).unwrap(),
        taken.read_ahead.len()
    );
    loop {
        tokio::select! {
            _ = slot.told() => {
                let _ = socket.wire().try_write(b"bye");
                return;
            }
            ready = socket.readable() => ready.unwrap(),
        }
        let mut buffer = [0; 64];
        match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => assert_eq!(socket.wire().try_write(&buffer[..count]).unwrap(), count),
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
        }
    }
}

async fn connect(running: &Running, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

/// Reads until what came ends with `end`.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    let read = async {
        while !text.ends_with(end) {
            let mut buffer = [0; 1024];
            let count = stream.read(&mut buffer).await.unwrap();
            assert!(count > 0, "ended after {text:?}");
            text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
        }
    };
    timeout(Duration::from_secs(10), read).await.unwrap();
    text
}

/// Reads to the end.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    timeout(Duration::from_secs(10), stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    text
}

async fn eventually(what: &str, is: impl Fn() -> bool) {
    for _ in 0..1_000 {
        if is() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

const TAKE: &str = "GET /take HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
const STUCK: &str = "GET /stuck HTTP/1.1\r\nhost: a\r\n\r\n";
const PLAIN: &str = "GET /plain HTTP/1.1\r\nhost: a\r\n\r\n";

#[tokio::test]
async fn a_connection_is_taken_over() {
    let running = start(10, 5_000, 5_000).await;
    let mut stream = connect(&running, TAKE).await;
    let head = until(&mut stream, "\r\n\r\n").await;
    assert_eq!(
        head,
        "HTTP/1.1 101 Switching Protocols\r\nupgrade: echo\r\n\r\n"
    );
    for text in ["hello", "again"] {
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(until(&mut stream, text).await, text);
    }
    assert_eq!(running.drain.open(), 1);
    assert_eq!(running.metrics.connections.get(), 1);
    drop(stream);
    eventually("place is free", || running.metrics.connections.get() == 0).await;
    assert_eq!(running.drain.open(), 0);
}

#[tokio::test]
async fn what_came_behind_the_request_is_kept() {
    let running = start(10, 5_000, 5_000).await;
    let mut stream = connect(&running, &format!("{TAKE}early")).await;
    assert!(
        until(&mut stream, "early")
            .await
            .starts_with("HTTP/1.1 101 ")
    );
    // After another request on the same connection, and with the request in pieces.
    let mut stream = connect(&running, PLAIN).await;
    until(&mut stream, "plain").await;
    for piece in TAKE.as_bytes().chunks(30) {
        stream.write_all(piece).await.unwrap();
        tokio::task::yield_now().await;
    }
    until(&mut stream, "\r\n\r\n").await;
    stream.write_all(b"late").await.unwrap();
    assert_eq!(until(&mut stream, "late").await, "late");
}

#[tokio::test]
async fn silent_and_dripping_clients_are_closed() {
    let running = start(10, 1_000, 5_000).await;
    let silent = async { rest(&mut connect(&running, "").await).await };
    let dripping = async { rest(&mut connect(&running, "GET / HTTP/1.1\r\nhost:").await).await };
    let (silent, dripping) = tokio::join!(silent, dripping);
    assert_eq!(silent, "");
    assert!(dripping.starts_with("HTTP/1.1 408 "), "{dripping}");
    assert_eq!(code(&dripping), "timeout");
}

/// The code of the error in an answer's body.
fn code(answer: &str) -> String {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    body["error"]["code"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_connection_rests_longer_than_a_head_may_take() {
    let running = start(10, 500, 5_000).await;
    let mut stream = connect(&running, PLAIN).await;
    let answer = until(&mut stream, "plain").await;
    assert!(answer.contains("\r\nkeep-alive: timeout=3\r\n"), "{answer}");
    assert!(
        answer.contains("\r\nconnection: keep-alive\r\n"),
        "{answer}"
    );
    // Three times what a head may take.
    sleep(Duration::from_millis(1_500)).await;
    stream.write_all(PLAIN.as_bytes()).await.unwrap();
    until(&mut stream, "plain").await;
    let rested = Instant::now();
    assert_eq!(rest(&mut stream).await, "", "nothing is said at the end");
    assert!(rested.elapsed() >= Duration::from_millis(2_900));
    // What has begun is due as soon as a first request's.
    let mut stream = connect(&running, PLAIN).await;
    until(&mut stream, "plain").await;
    let began = Instant::now();
    stream.write_all(b"GET /plain HTTP/1.1\r\n").await.unwrap();
    assert_eq!(code(&rest(&mut stream).await), "timeout");
    assert!(began.elapsed() < Duration::from_millis(2_900));
    // Who says that nothing follows is not told how long it might.
    let mut stream = connect(
        &running,
        &PLAIN.replace("host: a", "host: a\r\nconnection: close"),
    )
    .await;
    let answer = rest(&mut stream).await;
    assert!(
        answer.ends_with("plain") && !answer.contains("keep-alive"),
        "{answer}"
    );
}

#[tokio::test]
async fn what_hyper_refuses_has_a_body() {
    let running = start(10, 5_000, 5_000).await;
    let many: String = (0..120)
        .map(|number| format!("x-{number}: y\r\n"))
        .collect();
    for (request, want) in [
        ("nonsense\r\n\r\n".to_owned(), "bad_request"),
        ("GET / HTTP/9.9\r\n\r\n".to_owned(), "bad_request"),
        (
            "GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned(),
            "bad_request",
        ),
        (format!("GET / HTTP/1.1\r\n{many}\r\n"), "head_too_large"),
        (
            format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(200_000)),
            "head_too_large",
        ),
    ] {
        let answer = rest(&mut connect(&running, &request).await).await;
        assert_eq!(code(&answer), want, "{answer}");
        assert!(answer.contains("content-type: application/json\r\n"));
    }
    let mut stream = connect(&running, PLAIN).await;
    until(&mut stream, "plain").await;
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let running = start(10, 5_000, 5_000).await;
    let long = format!("GET /plain HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(20_000));
    let mut large = connect(&running, &long).await;
    let answer = rest(&mut large).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(code(&answer), "head_too_large");
}

#[tokio::test]
async fn too_many_are_told() {
    let running = start(1, 5_000, 5_000).await;
    let mut first = connect(&running, TAKE).await;
    until(&mut first, "\r\n\r\n").await;
    let mut second = connect(&running, PLAIN).await;
    let answer = rest(&mut second).await;
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.ends_with(&format!("content-length: {}", body.len())));
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(body["error"]["code"], "too_many_sockets");
    drop(first);
    eventually("place is free", || running.metrics.connections.get() == 0).await;
    let mut third = connect(&running, PLAIN).await;
    until(&mut third, "plain").await;
}

#[tokio::test]
async fn a_drain_closes_everything() {
    let running = start(10, 5_000, 30_000).await;
    let mut taken = connect(&running, TAKE).await;
    until(&mut taken, "\r\n\r\n").await;
    let mut idle = connect(&running, PLAIN).await;
    until(&mut idle, "plain").await;
    let mut silent = connect(&running, "").await;
    eventually("all are in", || running.metrics.connections.get() == 3).await;
    running.trigger.stop();
    assert_eq!(rest(&mut taken).await, "bye");
    assert_eq!(rest(&mut idle).await, "");
    assert_eq!(rest(&mut silent).await, "");
    assert_eq!(running.ended.await.unwrap(), Ended::Drained);
    assert!(TcpStream::connect(running.address).await.is_err());
}

#[tokio::test]
async fn a_drain_has_an_end() {
    let running = start(10, 5_000, 100).await;
    let _stream = connect(&running, STUCK).await;
    eventually("it is in", || running.drain.open() == 1).await;
    running.trigger.stop();
    assert_eq!(running.ended.await.unwrap(), Ended::TimedOut);
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let running = start(10, 60_000, 60_000).await;
    let _stream = connect(&running, STUCK).await;
    eventually("it is in", || running.drain.open() == 1).await;
    running.trigger.stop();
    running.trigger.stop();
    assert_eq!(running.ended.await.unwrap(), Ended::AtOnce);
}
