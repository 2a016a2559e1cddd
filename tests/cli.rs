//! The real binary: exit codes, what goes where, and the commands that talk to a node.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::io::Write;
use std::process::{Child, Command, Output, Stdio};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

fn tailcast(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailcast"));
    // Only what the test says, not what the machine's owner set.
    command.env_clear().env("HOME", "/nowhere").args(arguments);
    command
}

fn run(mut command: Command) -> (Option<i32>, String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = command.stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn help_and_version_are_no_failures() {
    for arguments in [
        &["--help"][..],
        &["--version"],
        &["tail", "--help"],
        &["serve", "-h"],
    ] {
        let (code, out, err) = run(tailcast(arguments));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{arguments:?}");
        assert!(out.contains("tailcast"), "{out}");
    }
}

#[test]
fn bad_usage_is_2() {
    for arguments in [
        &["--frobnicate"][..],
        &["frobnicate"],
        &["tail"],
        &["tail", "room", "--from", "yesterday"],
        &["tail", "tailcast:x"],
        &["publish", "room"],
        &["publish", "room", "m", "--url", "ftp://h"],
        &["--keep", "1", "tail", "room"],
        &["demo", "--url", "ws://h"],
        &["--keep", "1", "demo"],
        &["token"],
        &["token", "--user", ""],
        &["token", "--user", "a", "--room", "live"],
        &["token", "--user", "a", "--room", "live=king"],
        &["token", "--user", "a", "--ttl", "5"],
        &["token", "--user", "a", "--ttl", "0"],
        &["token", "--user", "a", "--keep", "1"],
    ] {
        let (code, out, err) = run(tailcast(arguments));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(err.starts_with("error: "), "{err}");
    }
}

#[test]
fn a_token_is_printed_alone() {
    use base64::Engine;
    const SECRET: &str = "0123456789abcdef-0123456789abcdef";
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    std::fs::write(&file, format!("{SECRET}\n")).expect("written");
    let from_file = format!("@{}", file.display());
    let ask = |secret: &str, arguments: &[&str]| {
        let mut command = tailcast(arguments);
        command.env("TAILCAST_JWT_SECRET", secret);
        // What a node could not use is no concern of this command.
        command.env("TAILCAST_LISTEN", "nowhere");
        run(command)
    };
    let all = [
        "token",
        "--user",
        "alice",
        "--name",
        "Alice",
        "--room",
        "live-42=host",
        "--room",
        "lobby-*=viewer",
        "--ttl",
        "2h",
        "--audience",
        "chat",
    ];
    for secret in [SECRET, &from_file] {
        let (code, out, err) = ask(secret, &all);
        assert_eq!((code, err.as_str(), out.lines().count()), (Some(0), "", 1));
        let payload = out.split('.').nth(1).expect("three parts");
        let engine = base64::engine::general_purpose::URL_SAFE_NO_PAD;
        let payload = engine.decode(payload).expect("base64url");
        let claims: Value = serde_json::from_slice(&payload).expect("JSON");
        assert_eq!(
            (&claims["sub"], &claims["aud"]),
            (&"alice".into(), &"chat".into())
        );
        assert_eq!(claims["rooms"]["lobby-*"], "viewer");
        let holds = |claim: &str| claims[claim].as_u64().expect("a time");
        assert_eq!(holds("exp") - holds("iat"), 7200);
    }
    let (code, _, err) = ask("", &all);
    assert_eq!(code, Some(1));
    assert!(err.contains("--jwt-secret"), "{err}");
    let (code, out, err) = ask("hush", &all);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(
        err.contains("TAILCAST_JWT_SECRET=\"***\" has only 4 bytes"),
        "{err}"
    );
}

#[test]
fn bad_settings_are_2_and_all_told() {
    let mut command = tailcast(&["serve", "--listen", "x", "--keep", "-5"]);
    command.env("TAILCAST_PING", "often");
    let (code, _, err) = run(command);
    assert_eq!(code, Some(2));
    assert_eq!(err.lines().count(), 3, "{err}");
    for part in [
        "tailcast: --listen \"x\" ",
        "tailcast: --keep \"-5\" ",
        "tailcast: TAILCAST_PING=\"often\" ",
    ] {
        assert!(err.contains(part), "{err}");
    }
}

#[test]
fn a_misspelt_variable_is_told() {
    const TOLD: &str = "TAILCAST_KEP_FOR is no setting; did you mean TAILCAST_KEEP_FOR?";
    let asked = |arguments: &[&str]| {
        let mut command = tailcast(arguments);
        command.env("TAILCAST_KEP_FOR", "1h");
        run(command)
    };
    let (code, out, err) = asked(&["config", "--memory"]);
    assert_eq!((code, err), (Some(0), format!("tailcast: {TOLD}\n")));
    assert!(out.contains("memory = true"), "{out}");
    let (code, out, _) = asked(&["check", "--memory"]);
    assert_eq!(code, Some(0), "{out}");
    let line = format!("warn  environment: {TOLD}");
    assert!(out.lines().any(|other| other == line), "{out}");
    // A node that can't start says so before.
    let holder = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let taken = holder.local_addr().expect("an address").to_string();
    let (code, _, err) = asked(&["--memory", "--listen", &taken]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains(TOLD) && err.contains("WARN"), "{err}");
}

#[test]
fn config_prints_values_and_origins() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "linger = \"5s\"\nredis = \"redis://me:hush@h\"").unwrap();
    let path = file.path().to_str().unwrap();
    let mut command = tailcast(&[
        "config",
        "--listen",
        "[::1]:1",
        "--listen",
        "localhost:2",
        "--memory=false",
    ]);
    command
        .env("TAILCAST_KEEP", "7")
        .env("TAILCAST_CONFIG", path);
    let (code, out, err) = run(command);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let squeezed: Vec<String> = out
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    for line in [
        "listen = \"[::1]:1,localhost:2\" # flag --listen",
        "memory = false # flag --memory",
        "keep = 7 # environment TAILCAST_KEEP",
        "log = \"info\" # default",
    ] {
        assert!(squeezed.iter().any(|other| other == line), "{line}\n{out}");
    }
    assert!(out.contains(&format!("# file {path}")), "{out}");
    assert!(
        out.contains("redis://me:***@h") && !out.contains("hush"),
        "{out}"
    );
}

#[test]
fn a_server_that_is_no_redis_is_named_so() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    let answer = std::thread::spawn(move || {
        for stream in listener.incoming().take(1) {
            let mut stream = stream.expect("a connection");
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
                .expect("written");
            // Until the other side has read it and gone.
            let _ = std::io::Read::read_to_end(&mut stream, &mut Vec::new());
        }
    });
    let (code, out, _) = run(tailcast(&["check", "--redis", &url]));
    answer.join().expect("it answered");
    assert_eq!(code, Some(1));
    let line = format!("fail  redis: what listens at {url} is no Redis");
    assert!(out.starts_with(&line), "{out}");
}

#[test]
fn a_node_that_is_not_there_is_told_at_once() {
    // Bound and closed, so that nothing listens there.
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address")
    };
    for arguments in [
        &["demo"][..],
        &["publish", "lobby", "hello"],
        &["tail", "lobby"],
    ] {
        let scheme = if arguments[0] == "demo" { "http" } else { "ws" };
        let url = format!("{scheme}://{address}");
        let began = std::time::Instant::now();
        let (code, _, err) = run(tailcast(&[arguments, &["--url", &url]].concat()));
        assert_eq!(code, Some(1), "{err}");
        assert!(err.contains("is a node serving"), "{err}");
        // Tries that can't help took 7 s and more.
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{err}");
    }
}

#[test]
fn check_fails_without_redis() {
    let (code, out, err) = run(tailcast(&[
        "check",
        "--redis",
        "unix:///nowhere/redis.sock",
    ]));
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("fail  redis: "), "{out}");
    assert!(out.contains("open files"), "{out}");
}

/// Takes one socket, and the path it asked for.
async fn accept(listener: &TcpListener) -> (WebSocketStream<TcpStream>, String) {
    let (stream, _) = listener.accept().await.expect("a connection");
    let mut path = String::new();
    #[allow(clippy::result_large_err)]
    let note = |request: &Request, response: Response| -> Result<Response, ErrorResponse> {
        path = request.uri().to_string();
        Ok(response)
    };
    let socket = tokio_tungstenite::accept_hdr_async(stream, note)
        .await
        .expect("a handshake");
    (socket, path)
}

/// The same of `tail`, which says hello first: unread, it would reset a connection that ends.
async fn accept_tail(listener: &TcpListener) -> (WebSocketStream<TcpStream>, String) {
    let (mut socket, path) = accept(listener).await;
    let hello = socket.next().await.expect("a frame").expect("a frame");
    assert_eq!(hello.to_text().expect("text"), r#"{"type":"ping"}"#);
    (socket, path)
}

async fn say(socket: &mut WebSocketStream<TcpStream>, text: &str) {
    socket.send(Message::text(text)).await.expect("sent");
}

async fn close(mut socket: WebSocketStream<TcpStream>, code: u16) {
    let frame = CloseFrame {
        code: code.into(),
        reason: "because".into(),
    };
    socket.close(Some(frame)).await.expect("closed");
    while let Some(Ok(_)) = socket.next().await {}
}

async fn spawn(arguments: Vec<String>) -> tokio::task::JoinHandle<(Option<i32>, String, String)> {
    tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run(tailcast(&arguments))
    })
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    (listener, url)
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

#[tokio::test]
async fn tail_resumes_where_it_was() {
    let (listener, url) = listen().await;
    let tail = spawn(words(&["tail", "a b", "--url", &url])).await;

    let (mut socket, path) = accept_tail(&listener).await;
    assert_eq!(path, "/rooms/a%20b?format=json&from=now&inbox=0");
    say(
        &mut socket,
        r#"{"type":"joined","room":"a b","head":"5-0"}"#,
    )
    .await;
    drop(socket);

    let (mut socket, path) = accept_tail(&listener).await;
    assert_eq!(
        path, "/rooms/a%20b?format=json&from=5-0&inbox=0",
        "the head, as nothing came"
    );
    say(
        &mut socket,
        r#"{"type":"joined","room":"a b","head":"5-0"}"#,
    )
    .await;
    say(
        &mut socket,
        r#"{"type":"entry","room":"a b","id":"6-1","fields":{"z":"1","a":"2"}}"#,
    )
    .await;
    say(&mut socket, r#"{"type":"bye","retry_ms":1}"#).await;
    close(socket, 1012).await;

    let (mut socket, path) = accept_tail(&listener).await;
    assert_eq!(path, "/rooms/a%20b?format=json&from=6-1&inbox=0");
    say(
        &mut socket,
        r#"{"type":"joined","room":"a b","head":"9-0"}"#,
    )
    .await;
    say(
        &mut socket,
        r#"{"type":"gap","room":"a b","after":"6-1","before":"8-0","reason":"trimmed"}"#,
    )
    .await;
    close(socket, 1011).await;

    let (socket, path) = accept_tail(&listener).await;
    assert_eq!(
        path,
        "/rooms/a%20b?format=json&from=7-18446744073709551615&inbox=0"
    );
    close(socket, 1008).await;

    let (code, out, err) = tail.await.unwrap();
    assert_eq!(code, Some(1));
    assert!(err.contains("1008 because"), "{err}");
    let lines: Vec<Value> = out
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines.len(), 2, "{out}");
    assert_eq!(lines[0]["id"], "6-1");
    assert_eq!(lines[0]["fields"]["z"], "1");
    assert_eq!(lines[1]["gap"]["before"], "8-0");
    assert!(
        out.contains(r#"{"z":"1","a":"2"}"#),
        "fields keep their order: {out}"
    );
}

#[tokio::test]
async fn publish_tries_again_with_the_same_key() {
    let (listener, url) = listen().await;
    let publish = spawn(words(&["publish", "r", "hi", "--url", &url])).await;
    let mut keys = Vec::new();
    for try_number in 0..2 {
        let (mut socket, path) = accept(&listener).await;
        assert!(path.starts_with("/rooms/r?format=json"), "{path}");
        say(&mut socket, r#"{"type":"joined","room":"r","head":"0-0"}"#).await;
        let Some(Ok(Message::Text(text))) = socket.next().await else {
            panic!("no frame");
        };
        let frame: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(frame["fields"]["message"], "hi");
        keys.push(frame["key"].as_str().unwrap().to_owned());
        if try_number == 1 {
            say(
                &mut socket,
                r#"{"type":"ack","ref":"1","room":"r","id":"5-0"}"#,
            )
            .await;
            while let Some(Ok(_)) = socket.next().await {}
        }
    }
    let (code, out, err) = publish.await.unwrap();
    assert_eq!((code, out.as_str()), (Some(0), "5-0\n"), "{err}");
    assert_eq!(keys[0], keys[1]);
}

#[tokio::test]
async fn publish_says_why_not() {
    let (listener, url) = listen().await;
    let publish = spawn(words(&["publish", "r", "hi", "--url", &url])).await;
    let (mut socket, _) = accept(&listener).await;
    say(
        &mut socket,
        r#"{"type":"error","ref":"1","code":"full","message":"no memory"}"#,
    )
    .await;
    let (code, out, err) = publish.await.unwrap();
    assert_eq!((code, out.as_str()), (Some(1), ""));
    assert!(err.contains("full: no memory"), "{err}");
}

/// Ends the process with the test, however that ends.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

async fn exit_code(mut running: Running) -> Option<i32> {
    let wait = tokio::task::spawn_blocking(move || running.0.wait());
    wait.await.unwrap().unwrap().code()
}

#[tokio::test]
async fn tail_stops_when_interrupted() {
    let (listener, url) = listen().await;
    let mut command = tailcast(&["tail", "r", "--url", &url]);
    let running = Running(command.stdout(Stdio::null()).spawn().unwrap());
    // Connected, so its signal handler is in place.
    let (_socket, _) = accept(&listener).await;
    let pid = rustix::process::Pid::from_child(&running.0);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert_eq!(exit_code(running).await, Some(0));
}

#[tokio::test]
async fn tail_stops_when_nobody_reads() {
    let (listener, url) = listen().await;
    let mut command = tailcast(&["tail", "r", "--url", &url]);
    let mut running = Running(command.stdout(Stdio::piped()).spawn().unwrap());
    drop(running.0.stdout.take());
    let (mut socket, _) = accept(&listener).await;
    say(
        &mut socket,
        r#"{"type":"entry","room":"r","id":"1-0","fields":{}}"#,
    )
    .await;
    assert_eq!(exit_code(running).await, Some(0));
}
