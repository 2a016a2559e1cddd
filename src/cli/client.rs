//! A client's side of a JSON socket, for the commands that talk to a running node.

use std::io::ErrorKind;
use std::time::Duration;

use axum::http::HeaderValue;
use axum::http::header::AUTHORIZATION;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::client::Request;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::relay::entry::RoomName;

/// A socket to a node.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// How long a node may take to take a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What RFC 3986 leaves as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Why there is no connection.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nothing listens there: from the start that is more likely a wrong address than a restart.
    Nobody(String),
    /// Another try may help.
    Retry(String),
    /// It won't.
    Final(String),
}

/// Reads `--url`: where the node is, as an address of WebSocket. The addresses of HTTP serve as well.
pub(super) fn base(text: &str) -> Result<String, String> {
    let known = [
        ("ws://", "ws"),
        ("http://", "ws"),
        ("wss://", "wss"),
        ("https://", "wss"),
    ];
    let found = known
        .iter()
        .find_map(|(prefix, scheme)| Some((text.strip_prefix(prefix)?, scheme)));
    match found {
        Some((rest, scheme)) if !rest.is_empty() && !rest.contains(['?', '#', ' ']) => {
            Ok(format!("{scheme}://{}", rest.trim_end_matches('/')))
        }
        _ => Err("write it as in ws://127.0.0.1:8080 or wss://chat.example".to_owned()),
    }
}

/// The address of a JSON socket in a room.
pub(super) fn address(base: &str, room: &RoomName, from: &str) -> String {
    let room = utf8_percent_encode(room.as_str(), UNRESERVED);
    let from = utf8_percent_encode(from, UNRESERVED);
    // Of this room alone, whoever asks.
    format!("{base}/rooms/{room}?format=json&from={from}&inbox=0")
}

/// The request to open it, with a token or an API key if there is one.
fn request(address: &str, token: Option<&str>) -> Result<Request, Error> {
    let mut request = address.into_client_request()?;
    if let Some(token) = token {
        let value = HeaderValue::from_str(&format!("Bearer {token}"));
        let value = value.map_err(|error| Error::HttpFormat(error.into()))?;
        request.headers_mut().insert(AUTHORIZATION, value);
    }
    Ok(request)
}

/// Connects.
pub(super) async fn connect(address: &str, token: Option<&str>) -> Result<Socket, Failure> {
    let connecting = async { connect_async(request(address, token)?).await };
    match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(Error::Http(response))) => {
            let status = response.status();
            let said = response.body().as_deref().and_then(sentence);
            let what = format!("the node answered {status}: {}", said.unwrap_or_default());
            let what = what.trim_end_matches([':', ' ']).to_owned();
            if status.is_server_error() || status.as_u16() == 429 {
                Err(Failure::Retry(what))
            } else {
                Err(Failure::Final(what))
            }
        }
        Ok(Err(error @ (Error::Url(_) | Error::HttpFormat(_)))) => {
            Err(Failure::Final(format!("{error}; see --url")))
        }
        Ok(Err(Error::Io(error))) if error.kind() == ErrorKind::ConnectionRefused => {
            Err(Failure::Nobody(error.to_string()))
        }
        // A certificate that isn't trusted is not trusted the next time either; without any to trust, none
        // is.
        Ok(Err(Error::Io(error)))
            if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::NotFound) =>
        {
            let what = error.to_string();
            let mend = match what.contains("InvalidContentType") {
                true => "what listens there speaks no TLS; see --url, and try ws://",
                false => "SSL_CERT_FILE=FILE names the certificates to trust",
            };
            Err(Failure::Final(format!("{what}; {mend}")))
        }
        // No answer of HTTP: from the start that is another kind of server, later one that goes away just now.
        Ok(Err(error @ Error::Protocol(_))) => Err(Failure::Nobody(error.to_string())),
        Ok(Err(Error::Io(error))) if error.to_string().contains("lookup address") => {
            Err(Failure::Nobody(error.to_string()))
        }
        Ok(Err(error)) => Err(Failure::Retry(error.to_string())),
        Err(_) => Err(Failure::Retry("no answer in time".to_owned())),
    }
}

/// Whether a socket closed with this code is closed again however often it's opened: what a client
/// did wrong once it does wrong again, and who may not be there still may not.
pub(super) fn is_final(code: u16) -> bool {
    matches!(code, 1002 | 1003 | 1007..=1010 | 4400 | 4401 | 4403)
}

/// The sentence in an error's body.
fn sentence(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(body["error"]["message"].as_str()?.to_owned())
}

/// Whether an error frame of this code is about a Redis that may be back soon.
pub(super) fn passing(code: &str) -> bool {
    use crate::relay::log::LogError;
    [
        LogError::Unavailable(String::new()).code(),
        LogError::Loading.code(),
        LogError::Busy.code(),
    ]
    .contains(&code)
}

/// How long to wait before the next try: twice as long each time, up to 5 s, and never when others do.
pub(super) fn backoff(failures: u32) -> Duration {
    let most = Duration::from_millis(100 << failures.min(6)).min(Duration::from_secs(5));
    most.mul_f64(rand::random_range(0.5..1.0))
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let room = RoomName::parse("a/b ü?").expect("a room");
        let base = base("http://h:1/").expect("a URL");
        assert_eq!(
            address(&base, &room, "last:5"),
            "ws://h:1/rooms/a%2Fb%20%C3%BC%3F?format=json&from=last%3A5&inbox=0"
        );
        for (text, want) in [
            ("wss://h/", Some("wss://h")),
            ("https://h:1/relay", Some("wss://h:1/relay")),
            ("http://h", Some("ws://h")),
            ("h:1", None),
            ("ftp://h", None),
            ("ws://", None),
            ("ws://h?x", None),
        ] {
            assert_eq!(super::base(text).ok().as_deref(), want, "{text}");
        }
    }

    #[test]
    fn backoff_grows_to_a_limit() {
        assert!(backoff(0) <= Duration::from_millis(100));
        assert!(backoff(1_000) <= Duration::from_secs(5));
        assert!(backoff(1_000) >= Duration::from_millis(2_500));
    }
}
