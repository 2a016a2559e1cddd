//! The JSON format.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use super::{add, setup, setup_with};
use crate::harness::clients::Ws;

#[tokio::test]
async fn fields_of_every_kind() {
    let (redis, node) = setup();
    let (mut socket, head) = Ws::json(&node, "r", "now").await;
    assert_eq!(head, "0-0");
    let id = redis.cli(&["XADD", "r", "*", "b", "1", "a", "2", "b", "3", "é", "\"\n"]);
    let want =
        json!({"type":"entry","room":"r","id":id,"fields":{"b":["1","3"],"a":"2","é":"\"\n"}});
    let text = socket.text().await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), want);
    // In stream order, a repeated name at the place of its first.
    assert!(text.find("\"b\"") < text.find("\"a\""), "{text}");
    node.publish("r", [0xff, 0xfe]);
    assert_eq!(
        socket.frame().await["fields"],
        json!({"message": {"base64": "//4="}})
    );
    // A client may send both as well.
    let fields = json!({"x": {"base64": "//4="}, "message": "m"});
    socket
        .send_json(json!({"type":"publish","fields":fields}))
        .await;
    assert_eq!(socket.frame_of("entry").await["fields"], fields);
}

#[tokio::test]
async fn publish_and_acknowledge() {
    let (redis, node) = setup();
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    for reference in [json!("a"), json!(7), Value::Null] {
        let mut publish = json!({"type":"publish","message":"hi"});
        if !reference.is_null() {
            publish["ref"] = reference.clone();
        }
        socket.send_json(publish).await;
        let (one, two) = (socket.frame().await, socket.frame().await);
        let (ack, entry) = if one["type"] == "ack" {
            (one, two)
        } else {
            (two, one)
        };
        assert_eq!(entry["fields"], json!({"message": "hi"}));
        assert_eq!(
            ack,
            json!({"type":"ack","ref":reference,"room":"r","id":entry["id"]})
        );
    }
    // Into a room it's not in: acknowledged, and seen there by others only.
    let (mut other, _) = Ws::json(&node, "other", "now").await;
    socket
        .send_json(json!({"type":"publish","room":"other","fields":{"a":"1","b":"2"},"ref":1}))
        .await;
    let ack = socket.frame().await;
    let entry = other.frame().await;
    assert_eq!((&ack["room"], &ack["id"]), (&json!("other"), &entry["id"]));
    assert_eq!(entry["fields"], json!({"a":"1","b":"2"}));
    socket.assert_quiet().await;
    // Under one key it's stored once, whoever repeats it, and by whichever way.
    let mut ids = Vec::new();
    for message in ["first", "second"] {
        socket
            .send_json(json!({"type":"publish","message":message,"key":"k","ref":message}))
            .await;
        ids.push(
            socket.frame_of("ack").await["id"]
                .as_str()
                .unwrap()
                .to_owned(),
        );
    }
    let answer = node.request("POST", "/rooms/r", &[("idempotency-key", "k")], "third");
    ids.push(answer.json()["id"].as_str().unwrap().to_owned());
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let other = node.request("POST", "/rooms/q", &[("idempotency-key", "k")], "third");
    assert_ne!(
        other.json()["id"],
        json!(ids[0]),
        "a key counts within its room"
    );
    assert_eq!(redis.cli(&["XLEN", "r"]), "4");
}

#[tokio::test]
async fn many_rooms_on_one_socket() {
    let (redis, node) = setup();
    let first = add(&redis, "b", "old");
    let (mut socket, _) = Ws::json(&node, "a", "now").await;
    socket
        .send_json(json!({"type":"join","room":"b","from":"start"}))
        .await;
    assert_eq!(
        socket.frame().await,
        json!({"type":"joined","room":"b","head":"0-0"})
    );
    socket.entry(&first, "old").await;
    let room = "ünïcode / ? 🙂";
    socket.send_json(json!({"type":"join","room":room})).await;
    assert_eq!(
        socket.frame().await,
        json!({"type":"joined","room":room,"head":"0-0"})
    );
    for room in ["a", "b", room] {
        let id = add(&redis, room, "new");
        let frame = socket.frame().await;
        assert_eq!((&frame["room"], &frame["id"]), (&json!(room), &json!(id)));
    }
    socket.send_json(json!({"type":"leave","room":"b"})).await;
    assert_eq!(socket.frame().await, json!({"type":"left","room":"b"}));
    let missed = add(&redis, "b", "missed");
    socket.assert_quiet().await;
    // Come back, from where it was.
    socket
        .send_json(json!({"type":"join","room":"b","from":"last:2"}))
        .await;
    assert_eq!(socket.frame().await["type"], "joined");
    assert_eq!(socket.frame().await["fields"]["message"], "new");
    socket.entry(&missed, "missed").await;
    // Even the room of the URL may be left; publishes without a room still go there.
    socket.send_json(json!({"type":"leave","room":"a"})).await;
    assert_eq!(socket.frame().await, json!({"type":"left","room":"a"}));
    socket
        .send_json(json!({"type":"publish","message":"x","ref":1}))
        .await;
    assert_eq!(socket.frame().await["room"], "a");
    socket.assert_quiet().await;
}

#[tokio::test]
async fn history_and_ping() {
    let (redis, node) = setup();
    for seq in 1..=5 {
        redis.cli(&[
            "XADD",
            "r",
            &format!("{seq}-0"),
            "message",
            &seq.to_string(),
        ]);
    }
    let (mut socket, _) = Ws::json(&node, "other", "now").await;
    let mut page = async |ask: Value| {
        socket.send_json(ask).await;
        let frame = socket.frame().await;
        assert_eq!(frame["type"], "history", "{frame}");
        assert_eq!(frame["room"], "r");
        let ids: Vec<String> = frame["entries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["fields"]["message"].as_str().unwrap().to_owned())
            .collect();
        (ids.concat(), frame["next"].clone(), frame["ref"].clone())
    };
    let got = page(json!({"type":"history","room":"r","limit":2,"ref":"x"})).await;
    assert_eq!(got, ("12".to_owned(), json!("2-0"), json!("x")));
    let got = page(json!({"type":"history","room":"r","limit":2,"after":"2-0"})).await;
    assert_eq!(got, ("34".to_owned(), json!("4-0"), Value::Null));
    let got = page(json!({"type":"history","room":"r","after":"4-0"})).await;
    assert_eq!(got, ("5".to_owned(), Value::Null, Value::Null));
    let got = page(json!({"type":"history","room":"r","before":"3-0","ref":3})).await;
    assert_eq!(got, ("12".to_owned(), Value::Null, json!(3)));
    let got = page(json!({"type":"history","room":"r","order":"desc","limit":3})).await;
    assert_eq!(got, ("543".to_owned(), json!("3-0"), Value::Null));
    socket.assert_quiet().await;
}

#[tokio::test]
async fn every_error_leaves_the_socket_alive() {
    let (redis, node) = setup_with(&["--max-fields", "2", "--max-rooms", "2"]);
    redis.cli(&["SET", "string", "x"]);
    let (mut socket, _) = Ws::json(&node, "r", "now").await;
    for (sent, code) in [
        ("nonsense", "bad_json"),
        ("", "bad_json"),
        ("[]", "bad_json"),
        ("null", "bad_json"),
        ("{", "bad_json"),
        (r#"{"type":"publish","message":"a"}{}"#, "bad_json"),
        ("{}", "unknown_type"),
        (r#"{"type":"subscribe"}"#, "unknown_type"),
        (r#"{"type":7}"#, "bad_request"),
        (r#"{"type":"publish"}"#, "bad_request"),
        (r#"{"type":"publish","message":1}"#, "bad_request"),
        (
            r#"{"type":"publish","message":"a","fields":{"a":"b"}}"#,
            "bad_request",
        ),
        (r#"{"type":"publish","fields":{}}"#, "bad_request"),
        (r#"{"type":"publish","fields":{"a":1}}"#, "bad_request"),
        (
            r#"{"type":"publish","fields":{"a":{"base64":"?"}}}"#,
            "bad_request",
        ),
        (
            r#"{"type":"publish","fields":{"a":"","b":"","c":""}}"#,
            "too_many_fields",
        ),
        (
            r#"{"type":"publish","message":"a","key":""}"#,
            "bad_request",
        ),
        (
            r#"{"type":"publish","message":"a","room":"tailcast:x"}"#,
            "bad_room",
        ),
        (r#"{"type":"publish","message":"a","room":""}"#, "bad_room"),
        (
            r#"{"type":"publish","message":"a","room":"string"}"#,
            "wrong_type",
        ),
        (r#"{"type":"join"}"#, "bad_request"),
        (r#"{"type":"join","room":"a\u0000"}"#, "bad_room"),
        (
            r#"{"type":"join","room":"x","from":"yesterday"}"#,
            "bad_from",
        ),
        (r#"{"type":"join","room":"r"}"#, "already_in"),
        (r#"{"type":"join","room":"string"}"#, "wrong_type"),
        (r#"{"type":"leave","room":"elsewhere"}"#, "not_in_room"),
        (r#"{"type":"leave"}"#, "bad_request"),
        (r#"{"type":"history","limit":0}"#, "bad_request"),
        (r#"{"type":"history","after":"x"}"#, "bad_request"),
        (r#"{"type":"history","room":"string"}"#, "wrong_type"),
        (r#"{"type":"ping","ref":{}}"#, "bad_request"),
        (
            r#"{"type":"publish","message":"a","kye":"1"}"#,
            "bad_request",
        ),
        (r#"{"type":"leave","room":"r","from":"now"}"#, "bad_request"),
    ] {
        socket.send(sent).await;
        let frame = socket.frame().await;
        assert_eq!(
            (&frame["type"], &frame["code"]),
            (&json!("error"), &json!(code)),
            "{sent}: {frame}"
        );
        assert!(frame["message"].as_str().unwrap().len() > 10, "{frame}");
    }
    socket
        .send_message(Message::binary("{}".as_bytes().to_vec()))
        .await;
    assert_eq!(socket.frame().await["code"], "not_text");
    socket.send_json(json!({"type":"join","room":"two"})).await;
    assert_eq!(socket.frame().await["type"], "joined");
    socket
        .send_json(json!({"type":"join","room":"three","ref":"j"}))
        .await;
    let frame = socket.frame().await;
    assert_eq!(
        (&frame["code"], &frame["ref"]),
        (&json!("too_many_rooms"), &json!("j"))
    );
    socket
        .send_json(json!({"type":"publish","fields":{},"ref":"mine"}))
        .await;
    assert_eq!(socket.frame().await["ref"], "mine");
    socket.assert_quiet().await;
    assert_eq!(redis.cli(&["EXISTS", "r"]), "0", "nothing was stored");
}
