//! As much of an HTTP client as tests need: one request, one connection, the bytes as they come.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use super::PATIENCE;

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    /// A header's value.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(other, _)| other == name)?;
        Some(value)
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    /// The body as JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// The code of an error of the one shape: `{"error":{"code","message"}}` and nothing else.
    #[track_caller]
    pub(crate) fn error_code(&self) -> String {
        let json = self.json();
        let error = &json["error"];
        assert_eq!(json.as_object().unwrap().len(), 1, "{json}");
        assert_eq!(error.as_object().unwrap().len(), 2, "{json}");
        assert!(!error["message"].as_str().unwrap().is_empty(), "{json}");
        assert_eq!(self.header("content-type"), Some("application/json"));
        error["code"].as_str().unwrap().to_owned()
    }
}

/// One request on a connection of its own.
pub(crate) fn try_request(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\n");
    let has = |name: &str| {
        headers
            .iter()
            .any(|(other, _)| other.eq_ignore_ascii_case(name))
    };
    if !has("host") {
        request.push_str(&format!("host: 127.0.0.1:{port}\r\n"));
    }
    if !body.is_empty() || method == "POST" && !has("transfer-encoding") {
        request.push_str(&format!("content-length: {}\r\n", body.len()));
    }
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    raw(port, &[request.as_bytes(), body].concat())
}

/// Sends these bytes, and reads an answer to the end of the connection.
pub(crate) fn raw(port: u16, request: &[u8]) -> io::Result<Response> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    // A server may answer and close before it has read everything.
    let _ = stream.write_all(request);
    let mut answer = Vec::new();
    if let Err(error) = stream.read_to_end(&mut answer)
        && answer.is_empty()
    {
        return Err(error);
    }
    parse(&answer).ok_or_else(|| io::Error::other(format!("no answer: {answer:?}")))
}

fn parse(answer: &[u8]) -> Option<Response> {
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Response {
        status,
        headers,
        body: answer[end + 4..].to_vec(),
    })
}
