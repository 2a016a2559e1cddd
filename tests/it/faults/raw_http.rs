//! HTTP by hand, asynchronous and with a bound on every wait: faults leave connections hanging.

use std::io;
use std::net::Ipv4Addr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Bound on connecting and on a handshake; a stopped node answers neither.
pub(super) const HANDSHAKE: Duration = Duration::from_secs(2);

/// Connects, with a receive buffer of that size if one is given.
pub(super) async fn connect(port: u16, receive_buffer: Option<u32>) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    if let Some(bytes) = receive_buffer {
        socket.set_recv_buffer_size(bytes)?;
    }
    let connecting = socket.connect((Ipv4Addr::LOCALHOST, port).into());
    let stream = timeout(HANDSHAKE, connecting).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// A POST: status and body.
pub(super) async fn post(
    port: u16,
    path: &str,
    key: Option<&str>,
    body: &str,
    within: Duration,
) -> io::Result<(u16, serde_json::Value)> {
    let mut stream = connect(port, None).await?;
    let key = key.map_or(String::new(), |key| format!("idempotency-key: {key}\r\n"));
    let request = format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n{key}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = Vec::new();
    timeout(within, async {
        stream.write_all(request.as_bytes()).await?;
        stream.read_to_end(&mut answer).await
    })
    .await??;
    let text = String::from_utf8_lossy(&answer);
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok());
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
    let body = body.and_then(|body| serde_json::from_str(body).ok());
    status
        .zip(body)
        .ok_or_else(|| io::Error::other("the answer is cut off"))
}
