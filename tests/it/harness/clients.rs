//! Clients: a fast one of our own, and the programs in `tests/clients`, which drive those from npm.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{timeout, timeout_at};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::PATIENCE;
use super::node::Node;

/// A WebSocket. Waiting too long for anything is a panic.
pub(crate) struct Ws {
    pub(crate) stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// The subprotocol that the node chose.
    pub(crate) subprotocol: Option<String>,
}

/// A refused handshake.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Ws {
    /// Connects, raw format and all. The path has the query.
    #[track_caller]
    pub(crate) fn open(node: &Node, path: &str) -> impl Future<Output = Ws> {
        let opening = Self::try_open(node, path, &[]);
        async move { opening.await.expect("the handshake is accepted") }
    }

    /// Opens a JSON socket, and waits for its first frame, which says it has joined.
    pub(crate) async fn json(node: &Node, room: &str, from: &str) -> (Ws, String) {
        let path = format!("/rooms/{room}?format=json&from={from}");
        let mut socket = Self::open(node, &path).await;
        let joined = socket.frame().await;
        assert_eq!(joined["type"], "joined", "{joined}");
        let head = joined["head"].as_str().unwrap().to_owned();
        (socket, head)
    }

    /// Connects with these headers.
    pub(crate) fn try_open(
        node: &Node,
        path: &str,
        headers: &[(&'static str, &str)],
    ) -> impl Future<Output = Result<Ws, Refused>> + use<> {
        let mut request = node.ws_url(path).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        async move {
            match timeout(PATIENCE, connect_async(request)).await.unwrap() {
                Ok((stream, answer)) => Ok(Ws {
                    stream,
                    subprotocol: answer
                        .headers()
                        .get("sec-websocket-protocol")
                        .map(|name| name.to_str().unwrap().to_owned()),
                }),
                Err(Error::Http(answer)) => {
                    let body: Value =
                        serde_json::from_slice(answer.body().as_deref().unwrap()).unwrap();
                    Err(Refused {
                        status: answer.status().as_u16(),
                        code: body["error"]["code"].as_str().unwrap().to_owned(),
                        message: body["error"]["message"].as_str().unwrap().to_owned(),
                    })
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next message, pings and pongs left out; none once the connection has ended.
    pub(crate) async fn next(&mut self) -> Option<Message> {
        // One deadline for all, as pings come for ever.
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = timeout_at(deadline, self.stream.next()).await;
            match next.expect("a frame comes in time") {
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(message)) => return Some(message),
                Some(Err(_)) | None => return None,
            }
        }
    }

    /// The next message, which is text.
    pub(crate) async fn text(&mut self) -> String {
        match self.next().await {
            Some(Message::Text(text)) => text.as_str().to_owned(),
            other => panic!("not text: {other:?}"),
        }
    }

    /// The next message's bytes, text or binary.
    pub(crate) async fn data(&mut self) -> Vec<u8> {
        match self.next().await {
            Some(message @ (Message::Text(_) | Message::Binary(_))) => message.into_data().to_vec(),
            other => panic!("no data: {other:?}"),
        }
    }

    /// The next JSON frame.
    pub(crate) async fn frame(&mut self) -> Value {
        let text = self.text().await;
        serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}"))
    }

    /// The next JSON frame of that type; others are passed over.
    pub(crate) async fn frame_of(&mut self, kind: &str) -> Value {
        loop {
            let frame = self.frame().await;
            if frame["type"] == kind {
                return frame;
            }
        }
    }

    /// The next JSON frame that is meant; others are passed over.
    pub(crate) async fn frame_that(&mut self, is_meant: impl Fn(&Value) -> bool) -> Value {
        loop {
            let frame = self.frame().await;
            if is_meant(&frame) {
                return frame;
            }
        }
    }

    /// Sends JSON, and waits for the answer, which has a `ref`; others are passed over.
    pub(crate) async fn ask(&mut self, mut frame: Value) -> Value {
        frame["ref"] = json!("asked");
        self.send_json(frame).await;
        self.frame_that(|frame| frame["ref"] == "asked").await
    }

    /// Pings, and waits for the pong: a raw socket is not listened to before it has joined. If it
    /// is closed instead: the code and the reason.
    pub(crate) async fn pinged(&mut self) -> Result<(), (u16, String)> {
        // What is wrong is read below.
        let _ = timeout(PATIENCE, self.stream.send(Message::Ping("?".into()))).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let next = timeout_at(deadline, self.stream.next()).await;
            match next.expect("a pong comes in time") {
                Some(Ok(Message::Pong(_))) => return Ok(()),
                Some(Ok(Message::Close(Some(frame)))) => {
                    return Err((frame.code.into(), frame.reason.as_str().to_owned()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Err((1006, String::new())),
            }
        }
    }

    /// The next JSON frame is this entry with one field.
    #[track_caller]
    pub(crate) fn entry(&mut self, id: &str, message: &str) -> impl Future<Output = ()> {
        let caller = std::panic::Location::caller();
        async move {
            let frame = self.frame().await;
            assert!(
                frame["type"] == "entry"
                    && frame["id"] == id
                    && frame["fields"] == json!({"message": message}),
                "{caller}: {id} {message}, not {frame}"
            );
        }
    }

    /// Sends text.
    pub(crate) async fn send(&mut self, text: impl Into<String>) {
        self.send_message(Message::text(text.into())).await;
    }

    /// Sends JSON.
    pub(crate) async fn send_json(&mut self, frame: Value) {
        self.send(frame.to_string()).await;
    }

    /// Sends anything.
    pub(crate) async fn send_message(&mut self, message: Message) {
        let sent = timeout(PATIENCE, self.stream.send(message)).await;
        sent.expect("it's taken in time").unwrap();
    }

    /// The close code and reason; what comes before is passed over.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Some(Message::Close(Some(frame))) => {
                    return (frame.code.into(), frame.reason.as_str().to_owned());
                }
                Some(_) => {}
                None => return (1006, String::new()),
            }
        }
    }

    /// Asserts that nothing is on its way: a ping is answered first. On JSON sockets only.
    pub(crate) async fn assert_quiet(&mut self) {
        self.send_json(json!({"type": "ping"})).await;
        let frame = self.frame().await;
        assert_eq!(frame, json!({"type": "pong"}));
    }
}

/// Longest silence of a program: on a busy machine, to load a browser's driver alone takes half a minute.
const SILENCE: std::time::Duration = std::time::Duration::from_secs(90);

/// What a script says while it waits for longer than a line may take: it knows best for how long.
const ALIVE: &str = r#"{"event":"alive"}"#;

/// A client from npm as a process of its own; its lines come as they are printed.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    peeked: RefCell<Option<String>>,
}

impl Program {
    /// `wscat` in that room's URL. Its standard input stays open, or it would end.
    pub(crate) fn wscat(arguments: &[&str]) -> Self {
        Self::node("node_modules/wscat/bin/wscat", arguments)
    }

    /// The package `ws`, with JSON frames taken apart.
    pub(crate) fn ws(arguments: &[&str]) -> Self {
        Self::node("ws-client.mjs", arguments)
    }

    /// The package `eventsource`.
    pub(crate) fn sse(arguments: &[&str]) -> Self {
        Self::node("sse-client.mjs", arguments)
    }

    /// The client of `clients/js`.
    pub(crate) fn js(arguments: &[&str]) -> Self {
        Self::node("js-client.mjs", arguments)
    }

    /// The package `socket.io-client`, one socket of it.
    pub(crate) fn socketio(arguments: &[&str]) -> Self {
        Self::node("socketio-client.mjs", arguments)
    }

    /// The same, many sockets whose connections are cut again and again.
    pub(crate) fn socketio_storm(arguments: &[&str]) -> Self {
        Self::node("socketio-storm.mjs", arguments)
    }

    /// The package `@stomp/stompjs`, over `sockjs-client` if asked to.
    pub(crate) fn stomp(arguments: &[&str]) -> Self {
        Self::node("stomp-client.mjs", arguments)
    }

    /// A script that drives the chat page in Chromium.
    pub(crate) fn page(script: &str, arguments: &[&str]) -> Self {
        Self::node(&format!("page/{script}.mjs"), arguments)
    }

    /// Any script in `tests/clients`.
    pub(crate) fn node(script: &str, arguments: &[&str]) -> Self {
        let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
        assert!(
            dir.join("node_modules").exists(),
            "the clients are not installed: npm ci --prefix tests/clients"
        );
        let mut command = Command::new("node");
        command.current_dir(&dir).arg(dir.join(script));
        Self::spawn(command.args(arguments))
    }

    /// Any program.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Program {
            stdin: child.stdin.take(),
            child,
            lines,
            peeked: RefCell::default(),
        }
    }

    /// The next line; none at the end.
    #[track_caller]
    pub(crate) fn next_line(&self) -> Option<String> {
        if let Some(line) = self.peeked.take() {
            return Some(line);
        }
        loop {
            match self.lines.recv_timeout(SILENCE) {
                Ok(line) if line == ALIVE => {}
                Ok(line) => return Some(line),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => panic!("nothing is printed"),
            }
        }
    }

    /// The next line.
    #[track_caller]
    pub(crate) fn line(&self) -> String {
        self.next_line().expect("the program goes on")
    }

    /// The next line, which is JSON.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|_| panic!("no JSON: {line}"))
    }

    /// The next line whose `event` is that; others are passed over.
    #[track_caller]
    pub(crate) fn event(&self, name: &str) -> Value {
        loop {
            let event = self.json();
            if event["event"] == name {
                return event;
            }
        }
    }

    /// Whether it has printed a line that is not read yet.
    pub(crate) fn has_lines(&self) -> bool {
        let mut peeked = self.peeked.borrow_mut();
        if peeked.is_none() {
            *peeked = self.lines.try_iter().find(|line| line != ALIVE);
        }
        peeked.is_some()
    }

    /// Writes a line to it.
    pub(crate) fn say(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("its input is open");
        writeln!(stdin, "{line}").unwrap();
    }

    /// Sends a frame through `ws-client.mjs`.
    pub(crate) fn send(&mut self, text: &str) {
        self.say(&json!({"send": text}).to_string());
    }

    /// Ends its input, and waits for its end: the exit code.
    pub(crate) fn finish(&mut self) -> Option<i32> {
        self.stdin = None;
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "the program goes on");
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Server-sent events, taken apart by the standard's rules as far as a test needs them.
pub(crate) struct Sse {
    lines: BufReader<Body>,
    /// The response head.
    pub(crate) head: String,
}

/// One event, or a comment, or a `retry:` alone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SseEvent {
    pub(crate) id: Option<String>,
    pub(crate) event: Option<String>,
    pub(crate) data: Option<String>,
    pub(crate) retry: Option<String>,
    pub(crate) comment: bool,
}

impl Sse {
    /// Asks for events.
    #[track_caller]
    pub(crate) fn open(node: &Node, path: &str, headers: &[(&str, &str)]) -> Self {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", node.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request =
            format!("GET {path} HTTP/1.1\r\nhost: a\r\naccept: text/event-stream\r\n");
        for (name, value) in headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut lines = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(lines.read_line(&mut head).unwrap() > 0, "{head}");
        }
        let body = Body {
            is_chunked: head.contains("\r\ntransfer-encoding: chunked\r\n"),
            stream: lines,
            left: 0,
            has_ended: false,
        };
        Sse {
            lines: BufReader::with_capacity(1, body),
            head,
        }
    }

    /// Whether the body has come to the end that its framing knows; only after the last event.
    pub(crate) fn has_ended(&self) -> bool {
        self.lines.get_ref().has_ended
    }

    /// The event of having joined, which is the first one.
    #[track_caller]
    pub(crate) fn joined(&mut self) -> SseEvent {
        let event = self.block().expect("the stream goes on");
        assert_eq!(event.event.as_deref(), Some("joined"), "{event:?}");
        event
    }

    /// The next block of lines; none at the end.
    #[track_caller]
    pub(crate) fn block(&mut self) -> Option<SseEvent> {
        let mut event = SseEvent::default();
        loop {
            let mut line = String::new();
            if self.lines.read_line(&mut line).unwrap() == 0 {
                // Of a block without its blank line, `retry:` counts, and events don't.
                return (event != SseEvent::default()).then_some(event);
            }
            let line = line.trim_end_matches('\n');
            if line.is_empty() {
                return Some(event);
            }
            let (name, value) = line.split_once(':').unwrap();
            let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
            match name {
                "" => event.comment = true,
                "id" => event.id = Some(value),
                "event" => event.event = Some(value),
                "retry" => event.retry = Some(value),
                "data" => match &mut event.data {
                    Some(data) => data.push_str(&format!("\n{value}")),
                    none => *none = Some(value),
                },
                other => panic!("a field {other:?}"),
            }
        }
    }

    /// The next event, the one of having joined left out.
    #[track_caller]
    pub(crate) fn event(&mut self) -> SseEvent {
        loop {
            let event = self.block().expect("the stream goes on");
            if event.data.is_some() && event.event.as_deref() != Some("joined") {
                return event;
            }
        }
    }
}

/// The body of an answer, its chunks taken apart.
struct Body {
    is_chunked: bool,
    stream: BufReader<std::net::TcpStream>,
    /// Bytes of this chunk that are still to come.
    left: usize,
    has_ended: bool,
}

impl Body {
    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        line.strip_suffix("\r\n")
            .map(str::to_owned)
            .ok_or_else(|| std::io::Error::other(format!("no line of a chunk: {line:?}")))
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if !self.is_chunked {
            let count = self.stream.read(buffer)?;
            self.has_ended |= count == 0;
            return Ok(count);
        }
        if self.has_ended {
            return Ok(0);
        }
        if self.left == 0 {
            if self.stream.fill_buf()?.is_empty() {
                return Ok(0);
            }
            let size = self.line()?;
            self.left = usize::from_str_radix(&size, 16).map_err(std::io::Error::other)?;
            if self.left == 0 {
                let end = self.line()?;
                assert_eq!(end, "");
                self.has_ended = true;
                return Ok(0);
            }
        }
        let most = buffer.len().min(self.left);
        let count = self.stream.read(&mut buffer[..most])?;
        assert!(count > 0, "the connection ended within a chunk");
        self.left -= count;
        if self.left == 0 {
            let end = self.line()?;
            assert_eq!(end, "");
        }
        Ok(count)
    }
}
