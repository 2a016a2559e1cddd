//! Settings of Socket.IO, and of how nodes reach each other for it.

use std::time::Duration;

use super::Reader;

/// First segments of paths that mean something already.
const OURS: [&str; 15] = [
    "assets",
    "health",
    "homepage_json",
    "login",
    "logout",
    "me",
    "metrics",
    "nodes",
    "publish",
    "register",
    "rooms",
    "status",
    "stomp",
    "users",
    "ws",
];

/// Those of Socket.IO.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Socketio {
    /// Where clients come in.
    pub path: String,
    /// How often they are pinged.
    pub ping_interval: Duration,
    /// How long they may take to answer.
    pub ping_timeout: Duration,
    /// Largest message or request body.
    pub max_payload: usize,
}

impl Reader<'_> {
    pub(super) fn socketio(&mut self) -> Socketio {
        Socketio {
            path: self.read("socketio-path", |text, _| path(text)),
            ping_interval: self.time("socketio-ping-interval"),
            ping_timeout: self.time("socketio-ping-timeout"),
            max_payload: self.number("socketio-max-payload"),
        }
    }
}

fn path(text: &str) -> Result<String, String> {
    let path = text.trim_end_matches('/');
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '-' | '_' | '~');
    let first = path.split('/').nth(1).unwrap_or_default();
    let is_taken = OURS.contains(&first);
    if is_taken {
        return Err("is a path of ours already; write another, as in /socket.io".to_owned());
    }
    if path.len() < 2 || !path.starts_with('/') || path.contains("//") || !path.chars().all(plain) {
        return Err("is no path; write it as in /socket.io".to_owned());
    }
    Ok(path.to_owned())
}

/// A host, or an address, with a port.
pub(super) fn advertise(text: &str) -> Result<Option<String>, String> {
    const HOW: &str = "is no host with a port; write it as in 10.0.0.5:8080 or node1:8080";
    if text.is_empty() {
        return Ok(None);
    }
    let (host, port) = text.rsplit_once(':').ok_or(HOW)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_v6 = host.starts_with('[') && text.parse::<std::net::SocketAddrV6>().is_ok();
    let is_host = !host.is_empty() && host.chars().all(plain);
    match port.parse::<u16>() {
        Ok(1..) if is_host || is_v6 => Ok(Some(text.to_owned())),
        _ => Err(HOW.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advertised() {
        for good in ["10.0.0.5:8080", "node-1.local:80", "[::1]:8080"] {
            assert_eq!(advertise(good), Ok(Some(good.to_owned())));
        }
        assert_eq!(advertise(""), Ok(None));
        for bad in [
            "node",
            "node:",
            "node:0",
            ":80",
            "a b:80",
            "::1:80",
            "http://a:80",
            "node:99999",
        ] {
            assert!(advertise(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn paths() {
        assert_eq!(path("/socket.io/").as_deref(), Ok("/socket.io"));
        assert_eq!(path("/a/b").as_deref(), Ok("/a/b"));
        for bad in [
            "", "/", "a", "/a b", "/{x}", "/rooms", "/rooms/x", "/ws/y", "//",
        ] {
            assert!(path(bad).is_err(), "{bad}");
        }
    }
}
