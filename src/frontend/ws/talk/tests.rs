use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::*;
use crate::auth::Credentials;
use crate::frontend::Settings;
use crate::relay::connection::Publish;
use crate::relay::hub::{HistoryQuery, Relay};
use crate::relay::log::LogError;
use crate::relay::position::Position;
use crate::store::memory::MemoryLog;

type Client = WebSocketStream<UnixStream>;

struct Node {
    log: Arc<MemoryLog>,
    state: Arc<FrontendState>,
}

fn room() -> RoomName {
    RoomName::parse("r").unwrap()
}

fn node(change: impl FnOnce(&mut Settings)) -> Node {
    let log = Arc::new(MemoryLog::new(Default::default()));
    let relay = Relay::new(log.clone(), Default::default());
    let mut settings = Settings {
        default_room: room(),
        max_frame: 64 * 1024,
        max_fields: 64,
        raw_inbox: false,
        ops_apart: false,
        frame_rate: 0,
        ping: Duration::from_secs(25),
        pong: Duration::from_secs(10),
        idle_timeout: None,
        allowed_origins: Default::default(),
        history_limit: 100,
        sse_heartbeat: Duration::from_secs(15),
        ..Settings::new(room())
    };
    change(&mut settings);
    Node {
        log: log.clone(),
        state: FrontendState::trusting(relay, log, settings).unwrap(),
    }
}

impl Node {
    fn open(
        &self,
        dialect: Dialect,
        from: Position,
        read_ahead: &[u8],
    ) -> (UnixStream, JoinHandle<()>) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let wish = Wish {
            from,
            presence: false,
            inbox: None,
            frames: raw::Frames::default(),
        };
        let taken = Taken::new(ours.into(), read_ahead, None);
        let nothing = Credentials::of(&Default::default(), "", "token");
        let who = self.state.auth.identify(&nothing).now_or_never().unwrap();
        let task = tokio::spawn(run(self.state.clone(), room(), wish, dialect, who, taken));
        (theirs, task)
    }

    async fn connect(&self, dialect: Dialect) -> (Client, JoinHandle<()>) {
        let (stream, task) = self.open(dialect, Position::Start, b"");
        (
            WebSocketStream::from_raw_socket(stream, Role::Client, None).await,
            task,
        )
    }
}

async fn next(client: &mut Client) -> Message {
    timeout(Duration::from_secs(60), client.next())
        .await
        .expect("nothing came")
        .expect("it ended")
        .expect("it failed")
}

async fn text(client: &mut Client) -> String {
    match next(client).await {
        Message::Text(text) => text.as_str().to_owned(),
        other => panic!("not text: {other:?}"),
    }
}

/// The next frame that begins so.
async fn told(client: &mut Client, start: &str) -> String {
    loop {
        let text = text(client).await;
        if text.starts_with(start) {
            return text;
        }
    }
}

async fn close_code(client: &mut Client) -> (u16, String) {
    loop {
        if let Message::Close(Some(frame)) = next(client).await {
            return (frame.code.into(), frame.reason.as_str().to_owned());
        }
    }
}

async fn say(client: &mut Client, text: &str) {
    client.send(Message::text(text)).await.unwrap();
}

#[tokio::test]
async fn raw_frames_come_back() {
    let node = node(|_| {});
    let (mut one, task) = node.connect(Dialect::Raw).await;
    say(&mut one, "hi").await;
    assert_eq!(next(&mut one).await, Message::text("hi"));
    one.send(Message::binary(vec![0xff, 0])).await.unwrap();
    assert_eq!(next(&mut one).await, Message::binary(vec![0xff, 0]));
    let big = "x".repeat(60_000);
    say(&mut one, &big).await;
    assert_eq!(next(&mut one).await, Message::text(big));
    one.send(Message::Ping(Bytes::from("p"))).await.unwrap();
    assert_eq!(next(&mut one).await, Message::Pong(Bytes::from("p")));
    let (mut late, _task) = node.connect(Dialect::Raw).await;
    assert_eq!(next(&mut late).await, Message::text("hi"));
    one.close(None).await.unwrap();
    assert!(matches!(next(&mut one).await, Message::Close(None)));
    assert!(one.next().await.is_none());
    task.await.unwrap();
}

#[tokio::test]
async fn frames_sent_with_the_handshake_count() {
    let node = node(|_| {});
    let (stream, _task) = node.open(
        Dialect::Raw,
        Position::Start,
        b"\x81\x82\0\0\0\0hi\x81\x81\0\0\0",
    );
    let mut client = WebSocketStream::from_raw_socket(stream, Role::Client, None).await;
    assert_eq!(next(&mut client).await, Message::text("hi"));
    client.get_mut().write_all(b"\0!").await.unwrap();
    assert_eq!(next(&mut client).await, Message::text("!"));
}

/// A client's frame with a mask of zeros, so that the payload shows.
fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(long as u16).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[tokio::test]
async fn input_may_be_split_anywhere() {
    let bytes = [
        masked(0x81, b"hi"),
        masked(0x01, "\u{e9}".as_bytes().split_at(1).0),
        masked(0x89, b"p"),
        masked(0x80, "\u{e9}".as_bytes().split_at(1).1),
        masked(0x82, &[0xff; 130]),
        masked(0x88, &1000u16.to_be_bytes()),
    ]
    .concat();
    for split in 0..=bytes.len() {
        let node = node(|_| {});
        let (mut stream, task) = node.open(Dialect::Raw, Position::Start, &bytes[..split]);
        stream.write_all(&bytes[split..]).await.unwrap();
        task.await.unwrap();
        let query = HistoryQuery {
            after: None,
            before: None,
            limit: 10,
            newest_first: false,
        };
        let page = node.state.relay().history(&room(), query).await.unwrap();
        let got: Vec<&[u8]> = page.entries.iter().map(|e| e.message().as_ref()).collect();
        assert_eq!(
            got,
            [b"hi", "\u{e9}".as_bytes(), &[0xff; 130]],
            "split at {split}"
        );
        let mut answers = Vec::new();
        stream.read_to_end(&mut answers).await.unwrap();
        let has = |frame: &[u8]| answers.windows(frame.len()).any(|w| w == frame);
        assert!(has(b"\x8a\x01p"), "split at {split}: {answers:?}");
        assert!(
            answers.ends_with(b"\x88\x02\x03\xe8"),
            "split at {split}: {answers:?}"
        );
    }
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_taken_for_dead() {
    const COUNT: usize = 100;
    let node = node(|settings| {
        settings.ping = Duration::from_millis(20);
        settings.pong = Duration::from_millis(200);
    });
    let message = Bytes::from(vec![b'x'; 10_000]);
    for _ in 0..COUNT {
        let fields = Box::new([(Bytes::from("message"), message.clone())]);
        node.state
            .relay()
            .publish(Publish::new(room(), fields))
            .await
            .unwrap();
    }
    let (mut slow, task) = node.connect(Dialect::Raw).await;
    // Many times the time a pong may take.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!task.is_finished());
    let mut got = 0;
    while got < COUNT {
        match next(&mut slow).await {
            Message::Text(text) => {
                assert_eq!(text.len(), message.len());
                got += 1;
            }
            Message::Ping(_) => {}
            other => panic!("{other:?} after {got}"),
        }
    }
}

#[tokio::test]
async fn a_flood_is_taken_in_order() {
    const COUNT: usize = 5_000;
    let node = node(|_| {});
    let (one, _task) = node.connect(Dialect::Raw).await;
    let (mut sink, mut stream) = one.split();
    let sender = tokio::spawn(async move {
        for number in 0..COUNT {
            sink.feed(Message::text(number.to_string())).await.unwrap();
        }
        sink.flush().await.unwrap();
        sink
    });
    for number in 0..COUNT {
        let got = timeout(Duration::from_secs(60), stream.next())
            .await
            .unwrap();
        assert_eq!(got.unwrap().unwrap(), Message::text(number.to_string()));
    }
    let _sink = sender.await.unwrap();
}

#[tokio::test]
async fn a_client_that_vanishes_leaves_nothing() {
    let node = node(|_| {});
    let (one, task) = node.connect(Dialect::Json).await;
    drop(one);
    task.await.unwrap();
    assert_eq!(node.state.drain.open(), 0);
    assert_eq!(Arc::strong_count(&node.state), 1);
}

#[tokio::test]
async fn raw_closes() {
    let node = node(|_| {});
    let (mut one, task) = node.connect(Dialect::Raw).await;
    let _ = one.send(Message::binary(vec![0; 70_000])).await;
    assert_eq!(close_code(&mut one).await.0, 1009);
    task.await.unwrap();
    let (mut one, _task) = node.connect(Dialect::Raw).await;
    node.log.set_failing(Some(LogError::Full("x".into())));
    say(&mut one, "x").await;
    let (code, why) = close_code(&mut one).await;
    assert_eq!(code, 1013);
    assert!(why.starts_with("not stored"), "{why}");
    node.log.set_failing(None);
    node.log.set_losing_answers(true);
    let (mut one, _task) = node.connect(Dialect::Raw).await;
    say(&mut one, "x").await;
    let (code, why) = close_code(&mut one).await;
    assert_eq!(code, 1013);
    assert!(why.contains("may or may not"), "{why}");
}

#[tokio::test]
async fn broken_text_is_a_protocol_error() {
    let node = node(|_| {});
    for (bytes, want) in [
        (&b"\x81\x81\0\0\0\0\xff"[..], 1007),
        (b"\x81\x01x", 1002),
        (b"\xc1\x81\0\0\0\0x", 1002),
        (b"\x83\x80\0\0\0\0", 1002),
        (b"\x80\x80\0\0\0\0", 1002),
    ] {
        let (mut one, task) = node.connect(Dialect::Json).await;
        one.get_mut().write_all(bytes).await.unwrap();
        assert_eq!(close_code(&mut one).await.0, want, "{bytes:?}");
        drop(one);
        task.await.unwrap();
    }
}

#[tokio::test]
async fn json_conversation() {
    let node = node(|_| {});
    let (mut one, task) = node.connect(Dialect::Json).await;
    assert!(
        text(&mut one)
            .await
            .starts_with(r#"{"type":"joined","room":"r","head":""#)
    );
    say(&mut one, r#"{"type":"publish","message":"a","ref":1.0}"#).await;
    let first = text(&mut one).await;
    let second = text(&mut one).await;
    let ack = if first.contains("ack") {
        &first
    } else {
        &second
    };
    let entry = if first.contains("ack") {
        &second
    } else {
        &first
    };
    assert!(
        ack.starts_with(r#"{"type":"ack","ref":1.0,"room":"r","id":""#),
        "{ack}"
    );
    assert!(entry.contains(r#""fields":{"message":"a"}"#), "{entry}");
    for (ask, answer) in [
        (r#"{"type":"ping"}"#, r#"{"type":"pong"}"#),
        (
            r#"{"type":"join","room":"r"}"#,
            r#"{"type":"error","room":"r","code":"already_in""#,
        ),
        (
            r#"{"type":"join","room":"q"}"#,
            r#"{"type":"joined","room":"q""#,
        ),
        (
            r#"{"type":"leave","room":"q"}"#,
            r#"{"type":"left","room":"q"}"#,
        ),
        (
            r#"{"type":"leave","room":"q","ref":"x"}"#,
            r#"{"type":"error","ref":"x","room":"q","code":"not_in_room""#,
        ),
        (
            r#"{"type":"history","room":"r","ref":7}"#,
            r#"{"type":"history","room":"r","entries":[{"id":""#,
        ),
        ("nonsense", r#"{"type":"error","code":"bad_json""#),
    ] {
        say(&mut one, ask).await;
        let got = text(&mut one).await;
        assert!(got.starts_with(answer), "{ask}: {got}");
    }
    one.send(Message::binary("{}")).await.unwrap();
    assert!(text(&mut one).await.contains("not_text"));
    node.log.set_failing(Some(LogError::Busy));
    say(&mut one, r#"{"type":"publish","message":"a","ref":"z"}"#).await;
    let got = told(&mut one, r#"{"type":"error""#).await;
    assert!(
        got.contains(r#""ref":"z""#) && got.contains(r#""code":"busy""#),
        "{got}"
    );
    node.log.set_failing(None);
    node.state.drain.begin(Duration::from_secs(1));
    let got = told(&mut one, r#"{"type":"bye""#).await;
    assert!(got.contains("retry_ms"), "{got}");
    assert_eq!(close_code(&mut one).await.0, 1012);
    assert!(one.next().await.is_none());
    task.await.unwrap();
    assert_eq!(node.state.drain.open(), 0);
}

/// What comes too fast waits, and nothing is lost of it.
#[tokio::test(start_paused = true)]
async fn a_fast_client_is_slowed_down() {
    const RATE: u32 = 10;
    let node = node(|settings| settings.frame_rate = RATE);
    for dialect in [Dialect::Raw, Dialect::Json] {
        let (mut one, _task) = node.connect(dialect).await;
        let began = Instant::now();
        let (want, frame) = match dialect {
            Dialect::Raw => ("x", "x"),
            Dialect::Json => (r#"{"type":"pong"}"#, r#"{"type":"ping"}"#),
        };
        for _ in 0..3 * RATE {
            say(&mut one, frame).await;
        }
        for _ in 0..3 * RATE {
            while text(&mut one).await != want {}
        }
        let took = began.elapsed();
        let least = Duration::from_millis(1_990);
        assert!(took >= least && took < least * 2, "{took:?}");
        one.close(None).await.unwrap();
        while !matches!(next(&mut one).await, Message::Close(_)) {}
    }
}

/// A close frame is taken at once, and so are a client's last frames while the node closes.
#[tokio::test(start_paused = true)]
async fn closes_are_not_slowed_down() {
    let node = node(|settings| settings.frame_rate = 1);
    let (mut one, task) = node.connect(Dialect::Json).await;
    say(&mut one, r#"{"type":"ping"}"#).await;
    let began = Instant::now();
    one.close(None).await.unwrap();
    while !matches!(next(&mut one).await, Message::Close(_)) {}
    task.await.unwrap();
    // The node closes while minutes' frames wait.
    let (mut one, task) = node.connect(Dialect::Json).await;
    for _ in 0..200 {
        say(&mut one, r#"{"type":"ping"}"#).await;
    }
    node.state.drain.begin(Duration::from_secs(1));
    assert_eq!(close_code(&mut one).await.0, 1012);
    assert!(one.next().await.is_none());
    task.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(60));
}

/// Fragments count, empty ones too, and pings among them.
#[tokio::test(start_paused = true)]
async fn fragments_count_as_frames() {
    let node = node(|settings| settings.frame_rate = 10);
    let (mut stream, _task) = node.open(Dialect::Raw, Position::Start, b"");
    let began = Instant::now();
    let empty = masked(0x00, b"");
    let all = [
        masked(0x01, b"a"),
        empty.repeat(20),
        masked(0x89, b"p"),
        empty.repeat(20),
        masked(0x80, b"b"),
    ];
    stream.write_all(&all.concat()).await.unwrap();
    let mut answers = [0; 7];
    stream.read_exact(&mut answers).await.unwrap();
    assert_eq!(&answers, b"\x8a\x01p\x81\x02ab");
    let took = began.elapsed();
    // 43 frames, ten of them at once.
    let least = Duration::from_millis(3_290);
    assert!(took >= least && took < least * 2, "{took:?}");
}

/// An empty frame is an empty message, as it says itself.
#[tokio::test]
async fn an_empty_frame_is_an_entry() {
    let node = node(|_| {});
    let (mut one, _task) = node.connect(Dialect::Raw).await;
    say(&mut one, "").await;
    assert_eq!(next(&mut one).await, Message::text(""));
    one.send(Message::binary("")).await.unwrap();
    assert_eq!(next(&mut one).await, Message::text(""));
}

#[tokio::test]
async fn silence_is_pinged_and_then_closed() {
    let node = node(|settings| {
        settings.ping = Duration::from_millis(100);
        settings.pong = Duration::from_millis(200);
    });
    let (mut one, _task) = node.connect(Dialect::Raw).await;
    // The client answers while it reads.
    assert!(matches!(next(&mut one).await, Message::Ping(_)));
    assert!(matches!(next(&mut one).await, Message::Ping(_)));
    // Deaf, it gets the ping but sends nothing.
    let (stream, task) = node.open(Dialect::Raw, Position::Start, b"");
    let mut all = Vec::new();
    let mut stream = stream;
    stream.read_to_end(&mut all).await.unwrap();
    assert_eq!(all[..4], [0x89, 0, 0x88, all[3]]);
    assert_eq!(all[4..6], 4408u16.to_be_bytes());
    task.await.unwrap();
}

#[test]
fn idle_sockets_are_small() {
    let future = websocket::size_of_loop::<Talk>();
    assert!(future <= 1_280, "{future} bytes");
}
