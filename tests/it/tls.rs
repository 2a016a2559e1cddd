//! The commands that talk to a node, through a proxy with TLS.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::nginx::Nginx;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// The program, which trusts that certificate alone, or nobody's.
fn tailcast(trusted: Option<&Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tailcast"));
    command.env_clear().args(arguments).stdin(Stdio::null());
    command.env(
        "SSL_CERT_FILE",
        trusted.unwrap_or(Path::new("/nowhere.pem")),
    );
    command
}

#[test]
fn commands_speak_tls() {
    let redis = RedisServer::start();
    let node = Node::start(&redis.url());
    let (nginx, certificate) = Nginx::with_tls(&node);
    let url = format!("wss://localhost:{}", nginx.port());
    let publish = ["publish", "lobby", "hello", "--url", &url];

    let published = tailcast(Some(&certificate), &publish).output().unwrap();
    assert!(published.status.success(), "{published:?}\n{}", nginx.log());
    let id = String::from_utf8(published.stdout).unwrap();

    let mut tail = tailcast(
        Some(&certificate),
        &["tail", "lobby", "--from", "start", "--url", &url],
    )
    .stdout(Stdio::piped())
    .spawn()
    .unwrap();
    let mut line = String::new();
    BufReader::new(tail.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
    let want = format!(
        "{{\"id\":\"{}\",\"fields\":{{\"message\":\"hello\"}}}}\n",
        id.trim()
    );
    assert_eq!(line, want);

    // A certificate that isn't trusted is no passing fault, and the mend is told.
    let refused = tailcast(None, &publish).output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("SSL_CERT_FILE"), "{said}");
}
