//! Fields that have a meaning to the node: no client writes them, whatever it speaks.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tailcast::auth::mint::{NewToken, SigningKey};
use tailcast::auth::{Secret, UserName};

use super::{KEY, SECRET, ask, asked, enter, open, start, token};
use crate::harness::clients::Ws;
use crate::harness::node::Node;

/// What a client may not say: about others, or to keep an entry from somebody.
fn reserved() -> Vec<Value> {
    vec![
        json!({"message": "x", "user": "bob"}),
        json!({"message": "x", "socket": "AAAAAAAAAAAAAAAAAAAA"}),
        json!({"event": "join", "username": "ann"}),
        json!({"event": "leave"}),
        json!({"event": "leave", "args": "[]"}),
        json!({"message": "x", "username": "bob"}),
        json!({"event": "message", "args": "[{\"event\":\"broadcast_quit\",\"data\":{\"username\":\"bob\"}}]"}),
    ]
}

/// A Socket.IO client of the room `live`.
async fn socketio(node: &Node, token: &str) -> Ws {
    let mut socket = open(node, token, "/socket.io/?EIO=4&transport=websocket").await;
    socket.send("40{\"room\":\"live\",\"inbox\":false}").await;
    heard(&mut socket, "42[\"tailcast:rooms\"").await;
    socket
}

/// The next packet that begins like this; others are passed over.
async fn heard(socket: &mut Ws, beginning: &str) -> String {
    loop {
        let packet = socket.text().await;
        if packet.starts_with(beginning) {
            return packet;
        }
    }
}

/// An event's acknowledgement.
async fn emitted(socket: &mut Ws, event: Value) -> Value {
    socket.send(format!("427{event}")).await;
    let packet = heard(socket, "437").await;
    serde_json::from_str::<Value>(&packet[3..]).unwrap()[0].clone()
}

/// The code of the ERROR that these headers are answered with.
async fn stomp(node: &Node, token: &str, fields: &Value) -> String {
    let mut socket = open(node, token, "/stomp").await;
    socket
        .send("CONNECT\naccept-version:1.2\nhost:x\n\n\0")
        .await;
    let connected = socket.text().await;
    assert!(connected.starts_with("CONNECTED"), "{connected}");
    let fields = fields.as_object().unwrap();
    let mut frame = "SEND\ndestination:/topic/live\n".to_owned();
    for (name, value) in fields.iter().filter(|(name, _)| *name != "message") {
        // A colon of a value is written as `\c`.
        let value = value.as_str().unwrap().replace(':', "\\c");
        frame += &format!("{name}:{value}\n");
    }
    socket.send(frame + "\nx\0").await;
    let error = socket.text().await;
    let code = error.lines().find_map(|line| line.strip_prefix("code:"));
    code.unwrap_or_else(|| panic!("{error}")).to_owned()
}

/// The name in the token, beside the user's.
fn named_token(user: &str, name: &str, rooms: &str) -> String {
    let token = NewToken {
        user: Some(UserName::parse(user).unwrap()),
        name: Some(name.to_owned()),
        rooms: rooms.parse().unwrap(),
        ..NewToken::default()
    };
    let key = SigningKey::from_secret(&Secret::from(SECRET)).unwrap();
    let life = Duration::from_secs(3600);
    token.sign(&key, SystemTime::now(), life).unwrap()
}

#[tokio::test]
async fn no_client_writes_them_whatever_it_speaks() {
    let (redis, [node]) = start::<1>(&[]);
    let ann = token("ann", "live=member,@*=member");
    let mut json_socket = enter(&node, &ann, "live", "").await;
    let mut socket = socketio(&node, &ann).await;
    let refused = "reserved_field";
    for fields in reserved() {
        for ephemeral in [false, true] {
            let publish = json!({"type": "publish", "fields": fields, "ephemeral": ephemeral});
            let answer = json_socket.ask(publish).await;
            assert_eq!(answer["code"], refused, "{fields}: {answer}");
            let body = json!({"fields": fields, "ephemeral": ephemeral});
            for path in ["/rooms/live", "/users/bob"] {
                let answer = ask(&node, &ann, "POST", path, body.clone());
                let told = (answer.status, &*answer.error_code());
                assert_eq!(told, (400, refused), "{path} {fields}");
            }
        }
        let body = json!({"rooms": ["live"], "users": ["bob"], "fields": fields});
        let answer = asked(&node, &ann, "POST", "/publish", body);
        for result in answer["results"].as_array().unwrap() {
            assert_eq!(result["error"]["code"], refused, "{fields}: {answer}");
        }
        let answer = emitted(&mut socket, json!(["publish", "live", fields])).await;
        assert_eq!(answer["error"]["code"], refused, "{fields}: {answer}");
        assert_eq!(stomp(&node, &ann, &fields).await, refused, "{fields}");
    }
    // An event of one's own, in the form of the node's.
    let told = json!({"event": "broadcast_say", "data": {"username": "bob", "text": "x"}});
    let answer = emitted(&mut socket, json!(["message", told])).await;
    assert_eq!(answer["error"]["code"], refused, "{answer}");
    assert!(redis.entries("live").is_empty() && redis.entries("@bob").is_empty());
    // What has no such meaning passes, and so does all that a back end says.
    for fields in [
        json!({"message": "x", "username": "ann"}),
        json!({"event": "message", "args": "[\"x\"]"}),
        json!({"event": "joined", "of": "join"}),
    ] {
        let answer = json_socket
            .ask(json!({"type": "publish", "fields": fields}))
            .await;
        assert_eq!(answer["type"], "ack", "{fields}: {answer}");
    }
    for fields in reserved() {
        asked(&node, KEY, "POST", "/rooms/live", json!({"fields": fields}));
    }
    assert_eq!(redis.entries("live").len(), 3 + reserved().len());
}

/// The next message of a kind, which must be the first that comes.
async fn told(socket: &mut Ws, kind: &str) -> Value {
    let packet = heard(socket, "42[\"message\"").await;
    let told: Value = serde_json::from_str(&packet[2..]).unwrap();
    assert_eq!(told[1]["event"], kind, "{packet}");
    told[1]["data"].clone()
}

/// Whatever they call themselves, known users are shown, announced and called away by their own names.
#[tokio::test]
async fn known_users_are_shown_by_their_own_names() {
    let (_redis, [node]) = start::<1>(&["--anonymous-role", "live=member"]);
    let mut bob = socketio(&node, &token("bob", "live=member")).await;
    let ann = named_token("ann", "Ann", "live=member");
    for (who, shown) in [(&ann, "Ann"), (&token("eve", "live=member"), "eve")] {
        let mut socket = socketio(&node, who).await;
        emitted(&mut socket, json!(["join", {"username": "Bob"}])).await;
        assert_eq!(told(&mut bob, "join").await["username"], shown);
        emitted(&mut socket, json!(["say", "hi"])).await;
        assert_eq!(told(&mut bob, "broadcast_say").await["username"], shown);
        drop(socket);
        assert_eq!(told(&mut bob, "broadcast_quit").await["username"], shown);
    }
    // Who is not known has no other name than the one they give.
    let mut guest = Ws::open(&node, "/socket.io/?EIO=4&transport=websocket").await;
    guest.send("40{\"room\":\"live\"}").await;
    emitted(&mut guest, json!(["join", {"username": "Bob"}])).await;
    assert_eq!(told(&mut bob, "join").await["username"], "Bob");
    emitted(&mut guest, json!(["say", "hi"])).await;
    let said = told(&mut bob, "broadcast_say").await;
    assert_eq!(said["username"], "Bob");
    assert!(said.get("user").is_none(), "{said}");
}
