//! Clients other than `@stomp/stompjs`, each of which reads frames in its own way.

use serde_json::{Value, json};

use super::{Program, StompNode};

/// Their names in `stomp-others.mjs`, and what carries their frames.
const OTHERS: [(&str, &str); 4] = [
    ("webstomp", "ws"),
    ("stompjs2", "ws"),
    ("stompit", "tcp"),
    ("stomp-client", "tcp"),
];

fn client(node: &StompNode, (name, transport): (&str, &str), headers: &[&str]) -> Program {
    let url = node.url(transport);
    let client = Program::node(
        "stomp-others.mjs",
        &[&[name, &url, "/topic/a"], headers].concat(),
    );
    assert_eq!(client.json()["event"], "connected", "{name}");
    client
}

fn publish(node: &StompNode, fields: &Value) {
    let body = json!({ "fields": fields }).to_string();
    let json = [("content-type", "application/json")];
    let answer = node
        .node
        .request("POST", "/rooms/a", &json, body.as_bytes());
    assert_eq!(answer.status, 201, "{answer:?}");
}

#[test]
fn no_field_is_read_as_a_frame_or_as_a_header_of_ours() {
    let node = StompNode::in_memory(&[]);
    let frames = "\n\nERROR\nmessage:forged\n\nx\0RECEIPT\nreceipt-id:sent\n\n\0MESSAGE\nsubscription:sub-0\nmessage-id:9-9\n\nforged\0";
    publish(&node, &json!({"message": format!("a\0{frames}")}));
    publish(
        &node,
        &json!({
            " user": "admin", "user\u{a0}": "admin", "\u{feff}user": "admin", "User": "admin",
            "\tx-gap-after": "1-0", "Content-Length": "1", "subscription\u{2028}": "x",
            "hasOwnProperty": "x", "nul": format!("v\0{frames}"), "a:b": "c", "a\\cb": "c",
            "message": "hello", "kept": "yes",
        }),
    );
    publish(&node, &json!({"message": "last"}));
    let want = [
        ("YQA", None, Value::Null),
        ("hello", Some("yes"), json!("11")),
        ("last", None, Value::Null),
    ];
    for other in OTHERS {
        let headers = ["--header", "x-stream-offset=first", "--header", "id=one"];
        let mut client = client(&node, other, &headers);
        for (body, kept, omitted) in &want {
            let got = client.json();
            assert_eq!(got["event"], "message", "{other:?}: {got}");
            let headers = got["headers"].as_object().unwrap();
            let said = got["body"].as_str().unwrap();
            assert!(said.starts_with(body), "{other:?}: {got}");
            assert_eq!(headers.get("kept").and_then(Value::as_str), *kept);
            assert_eq!(headers.get("x-omitted").unwrap_or(&Value::Null), omitted);
            for ours in ["user", "User", "x-gap-after", "Content-Length"] {
                assert!(!headers.contains_key(ours), "{other:?}: {got}");
            }
        }
        client.say(&json!({"disconnect": true}).to_string());
        // Nothing else came: no error, no receipt that was not asked for, no message.
        assert_eq!(client.json()["event"], "close", "{other:?}");
    }
}

#[test]
fn a_second_unsubscribe_ends_nothing_else() {
    let node = StompNode::in_memory(&[]);
    for other in [OTHERS[0], OTHERS[1]] {
        let mut client = client(&node, other, &["--header", "receipt=subscribed"]);
        assert_eq!(client.json()["id"], "subscribed");
        for _ in 0..2 {
            client.say(&json!({"unsubscribe": true}).to_string());
            // The other has no way to ask for a receipt of that.
            if other.0 == "webstomp" {
                assert_eq!(client.json()["id"], "unsubscribed");
            }
        }
        let send = json!({"send": "still here", "headers": {"receipt": "sent"}});
        client.say(&send.to_string());
        assert_eq!(client.json()["id"], "sent", "{other:?}");
    }
}
