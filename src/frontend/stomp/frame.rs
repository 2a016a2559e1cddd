//! STOMP frames, in and out: an incremental reader with limits, and a writer.
//!
//! ```text
//! COMMAND LF                 the command, any line end is LF or CR LF
//! name:value LF              headers; of a repeated one the first counts
//! LF
//! body NUL                   content-length bytes of it, or up to the first NUL
//! LF …                       between frames: heart-beats
//! ```
//!
//! Names and values are escaped as the version has it: not at all in 1.0 and in CONNECT, `\n`, `\c`
//! and `\\` in 1.1, and `\r` besides in 1.2.

use std::fmt;

use memchr::memchr;

/// Most bytes of a frame before the client has logged in (RabbitMQ's limit).
pub(crate) const LOGIN_FRAME_MAX: usize = 64 * 1024;

/// Most headers a frame has.
pub(crate) const HEADERS_MAX: usize = 100;

/// Longest line: a command or a header, as it stands on the wire.
pub(crate) const LINE_MAX: usize = 8 * 1024;

/// Allocated at most for a body of which nothing has come yet, whatever its length is said to be.
const BODY_FIRST: usize = 16 * 1024;

/// U+FFFD.
const REPLACEMENT: &[u8] = "\u{fffd}".as_bytes();

/// A version of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    V10,
    V11,
    V12,
}

impl Version {
    /// All of them, the newest first.
    pub(crate) const ALL: [Version; 3] = [Version::V12, Version::V11, Version::V10];

    /// As `accept-version` and `version` write it.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Version::V10 => "1.0",
            Version::V11 => "1.1",
            Version::V12 => "1.2",
        }
    }

    /// As a WebSocket subprotocol.
    pub(crate) fn subprotocol(self) -> &'static str {
        match self {
            Version::V10 => "v10.stomp",
            Version::V11 => "v11.stomp",
            Version::V12 => "v12.stomp",
        }
    }
}

/// What a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    /// `CONNECT`, or `STOMP`, which is the same.
    Connect,
    Send,
    Subscribe,
    Unsubscribe,
    Ack,
    Nack,
    Begin,
    Commit,
    Abort,
    Disconnect,
}

impl Command {
    fn parse(line: &[u8]) -> Option<Self> {
        Some(match line {
            b"CONNECT" | b"STOMP" => Command::Connect,
            b"SEND" => Command::Send,
            b"SUBSCRIBE" => Command::Subscribe,
            b"UNSUBSCRIBE" => Command::Unsubscribe,
            b"ACK" => Command::Ack,
            b"NACK" => Command::Nack,
            b"BEGIN" => Command::Begin,
            b"COMMIT" => Command::Commit,
            b"ABORT" => Command::Abort,
            b"DISCONNECT" => Command::Disconnect,
            _ => return None,
        })
    }

    /// Its name on the wire.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Command::Connect => "CONNECT",
            Command::Send => "SEND",
            Command::Subscribe => "SUBSCRIBE",
            Command::Unsubscribe => "UNSUBSCRIBE",
            Command::Ack => "ACK",
            Command::Nack => "NACK",
            Command::Begin => "BEGIN",
            Command::Commit => "COMMIT",
            Command::Abort => "ABORT",
            Command::Disconnect => "DISCONNECT",
        }
    }
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A frame's headers, in their order, each name once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Headers(Vec<(Box<str>, Box<str>)>);

impl Headers {
    /// The value under a name.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        let mut headers = self.0.iter();
        let found = headers.find(|(other, _)| **other == *name);
        found.map(|(_, value)| value.as_ref())
    }

    /// The value under a name, if it isn't empty.
    pub(crate) fn filled(&self, name: &str) -> Option<&str> {
        self.get(name).filter(|value| !value.is_empty())
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    fn add(&mut self, name: &str, value: &str) {
        if self.get(name).is_none() {
            self.0.push((name.into(), value.into()));
        }
    }
}

#[cfg(test)]
impl<const N: usize> From<[(&str, &str); N]> for Headers {
    fn from(pairs: [(&str, &str); N]) -> Self {
        let mut headers = Headers::default();
        for (name, value) in pairs {
            headers.add(name, value);
        }
        headers
    }
}

/// A frame from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) command: Command,
    pub(crate) headers: Headers,
    pub(crate) body: Vec<u8>,
}

/// Bytes that are no frame we take. Nothing behind them can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("a frame has at most {0} bytes here")]
    TooLarge(usize),
    #[error("a line has at most {LINE_MAX} bytes")]
    LongLine,
    #[error("a frame has at most {HEADERS_MAX} headers")]
    ManyHeaders,
    #[error("unknown command; a frame begins with one such as CONNECT, SUBSCRIBE or SEND")]
    UnknownCommand,
    #[error("a header is a name, a colon and a value")]
    NoColon,
    #[error("headers are UTF-8")]
    NotUtf8,
    #[error("a header has no NUL byte; a blank line comes before the body")]
    NulInHeader,
    #[error(r"undefined escape in a header; there are \n, \c, \\ and in STOMP 1.2 \r")]
    BadEscape,
    #[error("content-length is a number of bytes")]
    BadLength,
    #[error("a frame ends with a NUL byte, right behind the bytes that content-length counts")]
    NoNul,
}

/// What a frame has to keep to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rules {
    /// None before the client has logged in.
    version: Option<Version>,
    /// Most bytes.
    frame: usize,
}

/// Reads frames from any pieces of them. Between frames it holds no memory of its own.
#[derive(Debug)]
pub(crate) struct Decoder {
    rules: Rules,
    state: State,
    /// The line, or the body, as far as it has come.
    partial: Vec<u8>,
    /// Bytes of this frame so far.
    size: usize,
}

#[derive(Debug)]
enum State {
    /// A frame begins, or a heart-beat.
    Between,
    /// In the headers. Boxed, as an idle connection has none.
    Head(Box<Head>),
    /// In the body.
    Body(Box<Head>, Option<usize>),
}

#[derive(Debug, Default)]
struct Head {
    command: Option<Command>,
    headers: Headers,
    /// Repeated ones included.
    count: usize,
}

impl Decoder {
    /// A reader for a client that has not logged in.
    pub(crate) fn new() -> Self {
        Decoder {
            rules: Rules {
                version: None,
                frame: LOGIN_FRAME_MAX,
            },
            state: State::Between,
            partial: Vec::new(),
            size: 0,
        }
    }

    /// The client has logged in: what follows is of that version, and may be larger.
    pub(crate) fn agree(&mut self, version: Version, frame_max: usize) {
        self.rules = Rules {
            version: Some(version),
            frame: frame_max,
        };
    }

    /// Reads up to the end of a frame, and moves `input` behind what was read. Without one, all is
    /// read.
    pub(crate) fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, FrameError> {
        loop {
            match &self.state {
                State::Between => {
                    let begin = input.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
                    let Some(begin) = begin else {
                        *input = &[];
                        return Ok(None);
                    };
                    *input = &input[begin..];
                    self.size = 0;
                    self.state = State::Head(Box::default());
                }
                State::Head(_) => {
                    if !self.read_line(input)? {
                        return Ok(None);
                    }
                    self.on_line()?;
                }
                State::Body(_, length) => {
                    let length = *length;
                    if !self.read_body(input, length)? {
                        return Ok(None);
                    }
                    return Ok(self.finish());
                }
            }
        }
    }

    /// Counts bytes of the frame.
    fn count(&mut self, bytes: usize) -> Result<(), FrameError> {
        self.size += bytes;
        if self.size > self.rules.frame {
            return Err(FrameError::TooLarge(self.rules.frame));
        }
        Ok(())
    }

    /// Reads up to the end of a line; whether it's complete, without its end.
    fn read_line(&mut self, input: &mut &[u8]) -> Result<bool, FrameError> {
        let end = memchr(b'\n', input);
        let (line, rest) = match end {
            Some(end) => (&input[..end], &input[end + 1..]),
            None => (*input, &[][..]),
        };
        if self.partial.len() + line.len() > LINE_MAX {
            return Err(FrameError::LongLine);
        }
        self.count(line.len() + usize::from(end.is_some()))?;
        self.partial.extend_from_slice(line);
        *input = rest;
        if end.is_some() && self.partial.last() == Some(&b'\r') {
            self.partial.pop();
        }
        Ok(end.is_some())
    }

    fn on_line(&mut self) -> Result<(), FrameError> {
        let line = std::mem::take(&mut self.partial);
        let State::Head(head) = &mut self.state else {
            return Ok(());
        };
        let Some(command) = head.command else {
            head.command = Some(Command::parse(&line).ok_or(FrameError::UnknownCommand)?);
            return Ok(());
        };
        if !line.is_empty() {
            head.count += 1;
            if head.count > HEADERS_MAX {
                return Err(FrameError::ManyHeaders);
            }
            let version = self.rules.version.filter(|_| command != Command::Connect);
            let (name, value) = header(&line, version)?;
            head.headers.add(&name, &value);
            return Ok(());
        }
        let head = std::mem::take(head);
        let length = head.headers.get("content-length").map(length);
        let length = length.transpose()?;
        let left = self.rules.frame.saturating_sub(self.size);
        if length.is_some_and(|length| length >= left) {
            return Err(FrameError::TooLarge(self.rules.frame));
        }
        self.partial = Vec::with_capacity(length.unwrap_or_default().min(BODY_FIRST));
        self.state = State::Body(head, length);
        Ok(())
    }

    /// Reads up to the end of the body; whether it's complete.
    fn read_body(&mut self, input: &mut &[u8], length: Option<usize>) -> Result<bool, FrameError> {
        let Some(length) = length else {
            let end = memchr(0, input);
            let (part, rest) = match end {
                Some(end) => (&input[..end], &input[end + 1..]),
                None => (*input, &[][..]),
            };
            self.count(part.len() + usize::from(end.is_some()))?;
            self.partial.extend_from_slice(part);
            *input = rest;
            return Ok(end.is_some());
        };
        let missing = length - self.partial.len();
        let (part, rest) = input.split_at(missing.min(input.len()));
        self.partial.extend_from_slice(part);
        *input = rest;
        match input.split_first() {
            None => Ok(false),
            Some((0, rest)) => {
                *input = rest;
                Ok(true)
            }
            Some(_) => Err(FrameError::NoNul),
        }
    }

    fn finish(&mut self) -> Option<Frame> {
        let body = std::mem::take(&mut self.partial);
        match std::mem::replace(&mut self.state, State::Between) {
            State::Body(head, _) => Some(Frame {
                command: head.command?,
                headers: head.headers,
                body,
            }),
            State::Between | State::Head(_) => None,
        }
    }
}

/// A header line's name and value.
fn header(line: &[u8], version: Option<Version>) -> Result<(String, String), FrameError> {
    let line = std::str::from_utf8(line).map_err(|_| FrameError::NotUtf8)?;
    if line.contains('\0') {
        return Err(FrameError::NulInHeader);
    }
    let (name, value) = line.split_once(':').ok_or(FrameError::NoColon)?;
    let (name, value) = match version {
        // These wrote a space behind the colon, as STOMP 1.0 itself does.
        None | Some(Version::V10) => (name.trim().to_owned(), value.trim().to_owned()),
        Some(version) => (unescaped(name, version)?, unescaped(value, version)?),
    };
    if name.is_empty() {
        return Err(FrameError::NoColon);
    }
    Ok((name, value))
}

fn unescaped(text: &str, version: Version) -> Result<String, FrameError> {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        out.push(match char {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some('c') => ':',
                Some('\\') => '\\',
                Some('r') if version == Version::V12 => '\r',
                _ => return Err(FrameError::BadEscape),
            },
            char => char,
        });
    }
    Ok(out)
}

fn length(text: &str) -> Result<usize, FrameError> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_number {
        return Err(FrameError::BadLength);
    }
    // Whatever doesn't fit is too large, not malformed.
    Ok(text.parse().unwrap_or(usize::MAX))
}

/// Appends a header as STOMP 1.2 writes it. A NUL byte, which no version can say and many clients take
/// for the end of the frame, becomes U+FFFD.
pub(crate) fn put_header(out: &mut Vec<u8>, name: &str, value: &str) {
    put_escaped(out, name);
    out.push(b':');
    put_escaped(out, value);
    out.push(b'\n');
}

fn put_escaped(out: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'\n' => out.extend_from_slice(br"\n"),
            b'\r' => out.extend_from_slice(br"\r"),
            b':' => out.extend_from_slice(br"\c"),
            b'\\' => out.extend_from_slice(br"\\"),
            0 => out.extend_from_slice(REPLACEMENT),
            byte => out.push(byte),
        }
    }
}

/// Appends header lines that are written as in STOMP 1.2, as an older version has them. What that
/// version can't say is left out: CR in 1.1, line ends and colons in names in 1.0. Returns how many
/// lines were.
pub(crate) fn put_as(out: &mut Vec<u8>, lines: &[u8], version: Version) -> usize {
    if version == Version::V12 || memchr(b'\\', lines).is_none() {
        out.extend_from_slice(lines);
        return 0;
    }
    let mut omitted = 0;
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        let begin = out.len();
        if !put_line_as(out, line, version) {
            out.truncate(begin);
            omitted += 1;
        }
    }
    omitted
}

fn put_line_as(out: &mut Vec<u8>, line: &[u8], version: Version) -> bool {
    let mut bytes = line.iter();
    let mut in_name = true;
    while let Some(byte) = bytes.next() {
        if *byte == b':' {
            in_name = false;
        }
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        match (bytes.next(), version) {
            (Some(b'r'), _) | (Some(b'n'), Version::V10) | (None, _) => return false,
            (Some(b'c'), Version::V10) if in_name => return false,
            (Some(b'c'), Version::V10) => out.push(b':'),
            (Some(escaped), Version::V10) => out.push(*escaped),
            (Some(escaped), _) => out.extend_from_slice(&[b'\\', *escaped]),
        }
    }
    true
}

/// A frame of the server, as a version has it. `CONNECTED` is not escaped, and its values need not be.
/// A NUL byte in the text becomes U+FFFD, as in a header.
pub(crate) fn encode(
    command: &str,
    headers: &[(&str, &str)],
    text: &str,
    version: Version,
) -> Vec<u8> {
    let body = text.replace('\0', "\u{fffd}");
    let mut lines = Vec::with_capacity(64);
    for (name, value) in headers {
        put_header(&mut lines, name, value);
    }
    if !body.is_empty() {
        put_header(&mut lines, "content-length", &body.len().to_string());
    }
    let mut out = Vec::with_capacity(command.len() + lines.len() + body.len() + 3);
    out.extend_from_slice(command.as_bytes());
    out.push(b'\n');
    put_as(&mut out, &lines, version);
    out.push(b'\n');
    out.extend_from_slice(body.as_bytes());
    out.push(0);
    out
}

/// Reads bytes as they may come, in two ways of splitting them, which must give the same.
#[cfg(any(test, fuzzing))]
pub(crate) fn fuzz(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let read = |pieces: &[&[u8]]| {
        let mut decoder = Decoder::new();
        if let Some(version) = Version::ALL.get(usize::from(first % 4)) {
            decoder.agree(*version, 1024 * 1024);
        }
        let mut found = Vec::new();
        for piece in pieces {
            let mut input = *piece;
            loop {
                match decoder.decode(&mut input) {
                    Ok(Some(frame)) => found.push(Ok(frame)),
                    Ok(None) => break,
                    Err(error) => {
                        found.push(Err(error));
                        return found;
                    }
                }
            }
            assert!(input.is_empty());
        }
        found
    };
    let whole = read(&[data]);
    let (left, right) = data.split_at(usize::from(*first).min(data.len()));
    assert_eq!(whole, read(&[left, right]));
    let bytes: Vec<&[u8]> = data.chunks(1).collect();
    assert_eq!(whole, read(&bytes));
    for frame in whole.iter().flatten() {
        assert!(frame.headers.0.len() <= HEADERS_MAX);
        assert!(frame.headers.iter().all(|(name, _)| !name.is_empty()));
    }
}

#[cfg(test)]
mod tests;
