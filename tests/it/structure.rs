//! No byte of a client's becomes structure, in any protocol: what an entry's names and values hold, and
//! what rooms and users are called, comes out as itself or is left out, and never as another frame,
//! event, header, field or line.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::clients::{Program, Sse, Ws};
use crate::harness::redis_server::RedisServer;
use crate::stomp::StompNode;

/// Everything that separates, escapes, ends or is trimmed somewhere.
fn pieces() -> Vec<Vec<u8>> {
    let controls = ('\0'..='\u{9f}').filter(|char| char.is_control());
    let blanks = ('\u{a0}'..='\u{3000}').filter(|char| char.is_whitespace());
    let marks = (' '..='~').filter(|char| !char.is_alphanumeric());
    let others = "\u{feff}\u{180e}\u{200b}\u{200d}\u{202e}\u{212a}\u{fff0}\u{ffff}😀".chars();
    let chars = controls.chain(blanks).chain(marks).chain(others);
    let texts = [
        "\r\n",
        "\n\n",
        "\n\r\n",
        "\0\n",
        "\n\nERROR\nmessage:x\n\n\0",
        "\0RECEIPT\nreceipt-id:r\n\n\0",
        "\ndata: x\n\nid: 9-9\n",
        "\nevent: gap\n",
        "\"]",
        "\"}",
        "\"],[\"",
        "\u{1e}4",
        "\\u0000",
        "\\n",
        "\\c",
        "\\\\",
        "%00",
        "%0d%0a",
        "\r\nSet-Cookie: a=b\r\n\r\n",
        "*1\r\n$4\r\nPING\r\n",
        "</script>",
    ];
    let bytes: [&[u8]; 4] = [b"\xff", b"\xc3", b"\xed\xa0\xbd", b"\xf0\x9f\x99"];
    chars
        .map(|char| char.to_string().into_bytes())
        .chain(texts.iter().map(|text| text.as_bytes().to_vec()))
        .chain(bytes.iter().map(|bytes| bytes.to_vec()))
        .collect()
}

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// An entry with that in all places of names and values. The message comes first.
fn fields(piece: &[u8]) -> Pairs {
    let value = [piece, b"a", piece, piece, b"b", piece].concat();
    vec![
        (b"message".to_vec(), value.clone()),
        ([piece, b"user"].concat(), b"admin".to_vec()),
        ([b"user", piece].concat(), b"admin".to_vec()),
        ([piece, b"x-gap-after"].concat(), b"1-0".to_vec()),
        ([b"n", piece, b"m"].concat(), value.clone()),
        (b"v".to_vec(), value),
    ]
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// As the contract has fields in JSON.
fn as_json(fields: &Pairs) -> Value {
    let value = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    };
    let members = fields
        .iter()
        .map(|(name, bytes)| (lossy(name), value(bytes)));
    Value::Object(members.collect())
}

/// A room `r` that holds an entry of each piece, `1-0` and on, and one more that says `end`.
fn filled(redis: &RedisServer) -> Vec<Pairs> {
    let mut entries: Vec<Pairs> = pieces().iter().map(|piece| fields(piece)).collect();
    entries.push(vec![(b"message".to_vec(), b"end".to_vec())]);
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    for (at, fields) in entries.iter().enumerate() {
        let mut add = redis::cmd("XADD");
        add.arg("r").arg(id(at));
        for (name, value) in fields {
            add.arg(name).arg(value);
        }
        let _: String = add.query(&mut connection).unwrap();
    }
    entries
}

fn id(at: usize) -> String {
    format!("{}-0", at + 1)
}

#[tokio::test]
async fn sockets_event_streams_and_history() {
    let redis = RedisServer::start();
    let entries = filled(&redis);
    let node = StompNode::start(&redis.url(), &[]).node;
    let mut raw = Ws::open(&node, "/rooms/r?from=start").await;
    let (mut socket, _) = Ws::json(&node, "r", "start").await;
    let mut events = Sse::open(&node, "/rooms/r?from=start", &[]);
    let mut lines = Sse::open(&node, "/rooms/r?from=start&format=raw", &[]);
    let page = node.get("/rooms/r?limit=1000").json();
    for (at, fields) in entries.iter().enumerate() {
        let message = &fields[0].1;
        assert_eq!(raw.data().await, *message, "{at}");
        let told = json!({"type": "entry", "room": "r", "id": id(at), "fields": as_json(fields)});
        assert_eq!(socket.frame().await, told);
        assert_eq!(
            page["entries"][at],
            json!({"id": id(at), "fields": as_json(fields)})
        );

        let event = events.event();
        let data = event.data.unwrap();
        assert_eq!((event.id, event.event), (Some(id(at)), None));
        // The parser here knows of LF alone; browsers end a line at CR as well.
        assert!(!data.contains(['\r', '\n']), "{data:?}");
        let told: Value = serde_json::from_str(&data).unwrap();
        assert_eq!(
            told,
            json!({"room": "r", "id": id(at), "fields": as_json(fields)})
        );

        let event = lines.event();
        let want = match std::str::from_utf8(message) {
            Ok(text) => (None, text.replace("\r\n", "\n").replace('\r', "\n")),
            Err(_) => (Some("base64".to_owned()), STANDARD.encode(message)),
        };
        assert_eq!((event.event, event.data.unwrap()), want);
        assert_eq!(event.id, Some(id(at)));
    }
}

#[test]
fn socketio() {
    let redis = RedisServer::start();
    let entries = filled(&redis);
    let node = StompNode::start(&redis.url(), &[]).node;
    for transports in ["websocket", "polling"] {
        let auth = json!({"room": "r", "from": "start"}).to_string();
        let (url, transports) = (node.url(""), ["--transports", transports]);
        let arguments = [&["--url", &url, "--auth", &auth][..], &transports].concat();
        let client = Program::socketio(&arguments);
        assert_eq!(client.json()["event"], "connect");
        for (at, fields) in entries.iter().enumerate() {
            let mut got = client.json();
            while got["name"] == "tailcast:rooms" {
                got = client.json();
            }
            assert_eq!(
                (&got["event"], &got["name"]),
                (&json!("got"), &json!("message")),
                "{got}"
            );
            let said = &got["args"][0];
            assert_eq!(said["event"], "broadcast_say");
            assert_eq!(said["data"]["text"], lossy(&fields[0].1), "{got}");
            assert_eq!(said["data"]["id"], id(at));
            assert_eq!(
                (&said["data"]["user"], &said["data"]["username"]),
                (&Value::Null, &Value::Null)
            );
            assert_eq!(got["args"].as_array().unwrap().len(), 2, "{got}");
        }
    }
}

/// What a client trims, at most.
fn trimmed(name: &str) -> &str {
    let is_trimmed = |char: char| {
        char.is_whitespace() || char.is_control() || matches!(char, '\u{feff}' | '\u{180e}')
    };
    name.trim_matches(is_trimmed)
}

/// The server's own headers of a MESSAGE.
const OWN: [&str; 7] = [
    "subscription",
    "destination",
    "message-id",
    "timestamp",
    "x-omitted",
    "content-length",
    "content-transfer-encoding",
];

/// Holds a MESSAGE against its entry; the names of headers that are fields.
fn check_message(
    at: usize,
    fields: &Pairs,
    headers: &[(String, String)],
    body: &[u8],
) -> Vec<String> {
    let mut own = BTreeMap::new();
    let mut others = Vec::new();
    for (name, value) in headers {
        assert_eq!(trimmed(name), name);
        match OWN.contains(&&**name) {
            true => assert_eq!(own.insert(&**name, &**value), None, "{headers:?}"),
            false => others.push(name.clone()),
        }
    }
    for name in &others {
        let folded = name.to_uppercase().to_lowercase();
        let is_taken = OWN.contains(&&*folded) || folded == "user" || folded.starts_with("x-gap-");
        assert!(!is_taken, "{headers:?}");
        assert!(
            fields[1..]
                .iter()
                .any(|(field, _)| field == name.as_bytes()),
            "{headers:?}"
        );
    }
    assert_eq!(own["message-id"], id(at));
    let left_out: usize = own
        .get("x-omitted")
        .map_or(0, |count| count.parse().unwrap());
    assert_eq!(left_out, fields.len() - 1 - others.len(), "{headers:?}");
    let body = match own.get("content-transfer-encoding") {
        Some(_) => STANDARD.decode(body).unwrap(),
        None => body.to_vec(),
    };
    assert_eq!(lossy(&body), lossy(&fields[0].1));
    assert_eq!(body, fields[0].1);
    others
}

/// Undoes what a version escapes.
fn unescaped(text: &str, version: &str) -> String {
    if version == "1.0" {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        out.push(match char {
            '\\' => match (chars.next(), version) {
                (Some('n'), _) => '\n',
                (Some('c'), _) => ':',
                (Some('\\'), _) => '\\',
                (Some('r'), "1.2") => '\r',
                (other, _) => panic!("{other:?} in {text}"),
            },
            char => char,
        });
    }
    out
}

/// One frame, read as the simplest clients do: it ends at the first NUL byte, and its head at the first
/// blank line.
async fn strict_frame(socket: &mut Ws, version: &str) -> (String, Vec<(String, String)>, Vec<u8>) {
    let frame = socket.data().await;
    let end = frame.iter().position(|byte| *byte == 0).unwrap();
    assert_eq!(end + 1, frame.len(), "{}", lossy(&frame));
    let head = frame.windows(2).position(|two| two == b"\n\n").unwrap();
    let lines = std::str::from_utf8(&frame[..head]).unwrap();
    assert!(!lines.contains('\r'), "{lines:?}");
    let mut lines = lines.split('\n');
    let command = lines.next().unwrap().to_owned();
    let headers = lines.map(|line| {
        let (name, value) = line.split_once(':').unwrap();
        (name.to_owned(), unescaped(value, version))
    });
    (command, headers.collect(), frame[head + 2..end].to_vec())
}

async fn strict_client(node: &StompNode, version: &str, room: &str, from: &str) -> Ws {
    let mut socket = Ws::open(&node.node, "/stomp").await;
    let connect = format!("CONNECT\naccept-version:{version}\n\n\0");
    socket.stream.send(Message::text(connect)).await.unwrap();
    let (command, headers, _) = strict_frame(&mut socket, "1.0").await;
    assert_eq!((&*command, &*headers[0].1), ("CONNECTED", version));
    let subscribe = format!(
        "SUBSCRIBE\nid:s\ndestination:/topic/{room}\nx-stream-offset:{from}\nreceipt:r\n\n\0"
    );
    socket.stream.send(Message::text(subscribe)).await.unwrap();
    let (command, ..) = strict_frame(&mut socket, version).await;
    assert_eq!(command, "RECEIPT");
    socket
}

#[tokio::test]
async fn stomp() {
    let redis = RedisServer::start();
    let entries = filled(&redis);
    let node = StompNode::start(&redis.url(), &[]);
    for version in ["1.0", "1.1", "1.2"] {
        let mut socket = strict_client(&node, version, "r", "first").await;
        for (at, fields) in entries.iter().enumerate() {
            let (command, headers, body) = strict_frame(&mut socket, version).await;
            assert_eq!(command, "MESSAGE");
            let others = check_message(at, fields, &headers, &body);
            for (name, value) in headers {
                let pair = (name.clone().into_bytes(), value.into_bytes());
                assert!(
                    !others.contains(&name) || fields.contains(&pair),
                    "{pair:?}"
                );
            }
        }
    }
}

/// The published client over SockJS, which carries frames in JSON arrays.
#[test]
fn sockjs() {
    let redis = RedisServer::start();
    let entries = filled(&redis);
    let node = StompNode::start(&redis.url(), &[]);
    for transport in ["websocket", "xhr-streaming", "xhr-polling", "tcp"] {
        let mut client = node.client(transport, &[]);
        client.subscribe("/topic/r", &[("x-stream-offset", "first")]);
        for (at, fields) in entries.iter().enumerate() {
            let got = client.next("message");
            let headers = got["headers"].as_object().unwrap().iter();
            let headers =
                headers.map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()));
            let body = match got["base64"].as_str() {
                Some(coded) => STANDARD.decode(coded).unwrap(),
                None => got["body"].as_str().unwrap().as_bytes().to_vec(),
            };
            check_message(at, fields, &headers.collect::<Vec<_>>(), &body);
        }
    }
}

/// The pieces that a client can say in JSON.
fn texts() -> Vec<String> {
    let texts = pieces().into_iter();
    texts
        .filter_map(|piece| String::from_utf8(piece).ok())
        .collect()
}

fn coded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[test]
fn what_is_published_is_stored_as_it_is() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &["--rate", ""]).node;
    let mut want = Vec::new();
    for text in texts() {
        let fields = fields(text.as_bytes());
        let body = json!({"fields": as_json(&fields)}).to_string();
        let answer = node.request(
            "POST",
            "/rooms/w",
            &[("content-type", "application/json")],
            body,
        );
        assert_eq!(answer.status, 201, "{answer:?}");
        want.push(fields);
    }
    let client = redis::Client::open(redis.url()).unwrap();
    let mut connection = client.get_connection().unwrap();
    let mut range = redis::cmd("XRANGE");
    let stored: Vec<(String, Vec<Vec<u8>>)> = range
        .arg("w")
        .arg("-")
        .arg("+")
        .query(&mut connection)
        .unwrap();
    assert_eq!(stored.len(), want.len());
    for ((_, stored), mut want) in stored.into_iter().zip(want) {
        let pairs = stored
            .chunks(2)
            .map(|pair| (pair[0].clone(), pair[1].clone()));
        let mut stored: Pairs = pairs.collect();
        // The test's own JSON sorts by name.
        stored.sort();
        want.sort();
        assert_eq!(stored, want);
    }
}

#[tokio::test]
async fn names_of_rooms_and_users() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &["--rate", "", "--log", "debug"]);
    let mut reader = strict_client(&node, "1.2", "u", "next").await;
    for text in texts() {
        let name = format!("a{text}b");
        let answer = node.node.get(&format!("/rooms/{}", coded(&name)));
        let has_control = name.chars().any(char::is_control);
        match answer.status {
            200 => assert_eq!(answer.json()["room"], name),
            _ => assert_eq!((has_control, &*answer.error_code()), (true, "bad_room")),
        }
        assert!(answer.header("set-cookie").is_none(), "{answer:?}");

        let user = format!("{text}admin{text}");
        let path = format!("/rooms/u?format=json&user={}", coded(&user));
        let mut socket = Ws::open(&node.node, &path).await;
        if has_control {
            let Some(Message::Close(Some(close))) = socket.next().await else {
                panic!("{user:?} is let in");
            };
            assert_eq!(u16::from(close.code), 4401, "{close:?}");
            continue;
        }
        let is_in = |frame: &Value| frame["type"] == "joined" && frame["room"] == "u";
        socket.frame_that(is_in).await;
        let publish = json!({"type": "publish", "message": "hi"}).to_string();
        socket.stream.send(Message::text(publish)).await.unwrap();
        let entry = socket.frame_of("entry").await;
        assert_eq!(entry["fields"], json!({"message": "hi", "user": user}));
        let (command, headers, body) = strict_frame(&mut reader, "1.2").await;
        assert_eq!((&*command, &*body), ("MESSAGE", &b"hi"[..]));
        let of = |name: &str| headers.iter().find(|(other, _)| other == name);
        match trimmed(&user) == user {
            true => assert_eq!(of("user").unwrap().1, user),
            // A client that trims would read it as admin.
            false => assert!(of("user").is_none() && of("x-omitted").unwrap().1 == "1"),
        }
    }
    let metrics = node.node.get("/metrics").text();
    for line in metrics.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert!(
            name.starts_with("tailcast_") || name.starts_with("process_"),
            "{line}"
        );
        assert!(
            value.parse::<f64>().is_ok() && !name.contains("admin"),
            "{line}"
        );
    }
    for line in node.node.stderr().lines() {
        let is_said = ["tailcast ", "  read:", "  write:", "  both:", "  or open "]
            .iter()
            .any(|begin| line.starts_with(begin));
        let has_time = line.starts_with("20") && line.get(19..20) == Some(".");
        assert!(is_said || has_time, "{line:?}");
        assert!(!line.contains(|char: char| char.is_control()), "{line:?}");
    }
}

/// JavaScript writes a text that was cut within an emoji with a lone escape, which no UTF-8 can say.
#[tokio::test]
async fn half_an_emoji_has_one_sentence() {
    let redis = RedisServer::start();
    let node = StompNode::start(&redis.url(), &[]).node;
    let want = r"half a surrogate pair (\ud83d)";
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    for frame in [
        r#"{"type":"publish","message":"a\ud83d"}"#,
        r#"{"type":"publish","fields":{"a":"\ud83d b"}}"#,
        r#"{"type":"publish","fields":{"\ud83d":"b"}}"#,
        r#"{"type":"join","room":"\ud83d"}"#,
        r#"{"type":"react","reaction":"\ud83d"}"#,
    ] {
        socket.stream.send(Message::text(frame)).await.unwrap();
        let error = socket.frame_of("error").await;
        assert!(error["message"].as_str().unwrap().contains(want), "{error}");
    }
    for (path, body) in [
        ("/rooms/r", r#"{"message":"a\ud83d"}"#),
        ("/publish", r#"{"rooms":["r"],"message":"a\ud83d"}"#),
    ] {
        let answer = node.request("POST", path, &[("content-type", "application/json")], body);
        assert_eq!((answer.status, &*answer.error_code()), (400, "bad_json"));
        assert!(
            answer.text().contains(r"half a surrogate pair (\\ud83d)"),
            "{answer:?}"
        );
    }
}
