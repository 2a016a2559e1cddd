use super::*;
use proptest::prelude::*;

fn read(text: &str) -> (Ref, Result<Request, Refused>) {
    parse(text, 3)
}

fn check(text: &str, want: Request) {
    let (reference, got) = read(text);
    assert_eq!((reference, got), (None, Ok(want)), "{text}");
}

/// The code, and a word that the sentence must have.
fn refused(text: &str, code: &str, word: &str) {
    let shown: String = text.chars().take(100).collect();
    let refusal = read(text).1.expect_err(&shown);
    assert_eq!(refusal.code, code, "{shown}: {}", refusal.message);
    assert!(
        refusal.message.contains(word),
        "{shown}: {}",
        refusal.message
    );
}

fn room(name: &str) -> RoomName {
    RoomName::parse(name).unwrap()
}

fn publish(pairs: &[(&str, &[u8])]) -> Request {
    Request::Publish(Publish {
        room: None,
        fields: pairs
            .iter()
            .map(|(n, v)| {
                (
                    Bytes::copy_from_slice(n.as_bytes()),
                    Bytes::copy_from_slice(v),
                )
            })
            .collect(),
        key: None,
        echo: true,
        ephemeral: false,
    })
}

fn history() -> Request {
    Request::History {
        room: Some(room("r")),
        after: None,
        before: None,
        limit: None,
        newest_first: false,
    }
}

#[test]
fn publishes() {
    check(
        r#"{"type":"publish","message":"hi"}"#,
        publish(&[("message", b"hi")]),
    );
    check(
        r#" {"message":"","type":"publish"} "#,
        publish(&[("message", b"")]),
    );
    check(
        r#"{"type":"publish","message":"\u00e9\ud83d\ude00\u0000"}"#,
        publish(&[("message", "é😀\0".as_bytes())]),
    );
    check(
        r#"{"type":"publish","fields":{"b":"1","a":"\n"}}"#,
        publish(&[("b", b"1"), ("a", b"\n")]),
    );
    check(
        r#"{"type":"publish","fields":{"a":{"base64":"/wA="},"":{"base64":""}}}"#,
        publish(&[("a", b"\xff\0"), ("", b"")]),
    );
    // As in Redis, a name may occur twice.
    check(
        r#"{"type":"publish","fields":{"a":"1","a":"2"}}"#,
        publish(&[("a", b"1"), ("a", b"2")]),
    );
    check(
        r#"{"type":"publish","room":"a/b","message":"x","key":"k"}"#,
        Request::Publish(Publish {
            room: Some(room("a/b")),
            fields: Box::new([(Bytes::from("message"), Bytes::from("x"))]),
            key: Some(Bytes::from("k")),
            echo: true,
            ephemeral: false,
        }),
    );
    let Request::Publish(plain) = publish(&[("message", b"x")]) else {
        unreachable!();
    };
    check(
        r#"{"type":"publish","to":"bob","message":"x","echo":false,"ephemeral":true}"#,
        Request::Publish(Publish {
            room: Some(room("@bob")),
            echo: false,
            ephemeral: true,
            ..plain
        }),
    );
    // Null is absent, and a name may be written with escapes.
    check(
        r#"{"type":"publish","room":null,"m\u0065ssage":"x","fields":null,"ref":null}"#,
        publish(&[("message", b"x")]),
    );
}

#[test]
fn other_requests() {
    check(r#"{"type":"ping"}"#, Request::Ping);
    check(
        r#"{"type":"leave","room":"r"}"#,
        Request::Leave { room: room("r") },
    );
    let join = |from| Request::Join {
        room: room("r"),
        from,
        presence: false,
    };
    check(
        r#"{"type":"auth","token":"a.b.c"}"#,
        Request::Auth {
            token: "a.b.c".into(),
        },
    );
    check(
        r#"{"type":"presence","limit":5}"#,
        Request::Presence {
            room: None,
            limit: Some(5),
        },
    );
    check(
        r#"{"type":"react","room":"r","reaction":"❤️"}"#,
        Request::React {
            room: Some(room("r")),
            reaction: "❤️".into(),
        },
    );
    check(
        r#"{"type":"moderate","act":"close","reason":"night"}"#,
        Request::Moderate {
            room: None,
            act: Act::Close,
            reason: Some("night".into()),
        },
    );
    refused(r#"{"type":"auth"}"#, "bad_request", "token");
    refused(r#"{"type":"react"}"#, "bad_request", "reaction");
    refused(r#"{"type":"moderate","act":"fly"}"#, "bad_request", "fly");
    refused(
        r#"{"type":"publish","to":"","message":"x"}"#,
        "bad_request",
        "to",
    );
    refused(
        r#"{"type":"publish","to":"a","room":"r","message":"x"}"#,
        "bad_request",
        "not both",
    );
    check(r#"{"type":"join","room":"r"}"#, join(Position::Now));
    check(
        r#"{"type":"join","room":"r","from":"start"}"#,
        join(Position::Start),
    );
    check(
        r#"{"type":"join","room":"r","from":"last:5"}"#,
        join(Position::Last(5)),
    );
    check(
        r#"{"type":"join","room":"r","from":"5-1"}"#,
        join(Position::After(EntryId::new(5, 1))),
    );
    check(r#"{"type":"history","room":"r"}"#, history());
    check(
        r#"{"type":"history","after":"1-2","before":"9","limit":7,"order":"desc"}"#,
        Request::History {
            room: None,
            after: Some(EntryId::new(1, 2)),
            before: Some(EntryId::new(9, 0)),
            limit: Some(7),
            newest_first: true,
        },
    );
}

#[test]
fn refs_come_back_as_they_came() {
    let check = |reference: &str| {
        for rest in [
            r#""type":"ping""#,
            r#""type":"dance""#,
            r#""type":"join","room":7"#,
        ] {
            let text = format!("{{{rest},\"ref\":{reference}}}");
            assert_eq!(read(&text).0.as_deref(), Some(reference), "{text}");
        }
    };
    for reference in [
        r#""a""#,
        r#""""#,
        r#""\u00e9\n😀""#,
        // Half of a pair is still a JSON text.
        r#""\ud800""#,
        "0",
        "-1",
        "1.50",
        "1e400",
        "123456789012345678901234567890",
    ] {
        check(reference);
    }
    for bad in ["true", "[]", "{}", "[\"a\"]"] {
        refused(
            &format!(r#"{{"type":"ping","ref":{bad}}}"#),
            "bad_request",
            "`ref`",
        );
    }
    let long = format!(r#"{{"type":"ping","ref":"{}"}}"#, "a".repeat(REF_MAX));
    refused(&long, "bad_request", "`ref`");
}

#[test]
fn no_objects() {
    for text in [
        "",
        " ",
        "hello",
        "{",
        "}",
        "[]",
        "null",
        "1",
        r#""a""#,
        "{}{}",
        "{},",
        r#"{"type":"ping"} x"#,
        r#"{"type":"ping""#,
        "{'type':'ping'}",
        r#"{"type":ping}"#,
        r#"["ping",null,null,null,null,null,null,null,null,null,null]"#,
        "\u{feff}{}",
        r#"{"type":"ping","x":01}"#,
        "{\"type\":\"pi\nng\"}",
        r#"{"type":"ping","x":"\q"}"#,
        r#"{"type":"ping","x":"\ud8"}"#,
        r#"{"type":"ping","x":NaN}"#,
    ] {
        refused(text, "bad_json", "JSON object");
    }
    refused(r#"{"type":"ping","type":"ping"}"#, "bad_json", "duplicate");
    refused(
        r#"{"type":"ping","room":"a","room":"b"}"#,
        "bad_json",
        "duplicate",
    );
}

#[test]
fn wrong_requests() {
    refused("{}", "unknown_type", "publish");
    refused(r#"{"type":"dance"}"#, "unknown_type", "`dance`");
    refused(r#"{"type":"Ping"}"#, "unknown_type", "`Ping`");
    refused(r#"{"type":1}"#, "bad_request", "`type`");
    refused(r#"{"type":["ping"]}"#, "bad_request", "`type`");

    refused(r#"{"type":"publish"}"#, "bad_request", "missing");
    refused(
        r#"{"type":"publish","message":"a","fields":{"a":"b"}}"#,
        "bad_request",
        "both",
    );
    refused(
        r#"{"type":"publish","message":1}"#,
        "bad_request",
        "`message`",
    );
    refused(
        r#"{"type":"publish","message":{"base64":""}}"#,
        "bad_request",
        "`message`",
    );
    refused(
        r#"{"type":"publish","message":"\ud800"}"#,
        "bad_request",
        "`message`",
    );
    refused(
        r#"{"type":"publish","message":"\udc00x"}"#,
        "bad_request",
        "`message`",
    );
    refused(
        r#"{"type":"publish","fields":{}}"#,
        "bad_request",
        "at least one",
    );
    refused(
        r#"{"type":"publish","fields":[]}"#,
        "bad_request",
        "`fields`",
    );
    refused(
        r#"{"type":"publish","fields":"a"}"#,
        "bad_request",
        "`fields`",
    );
    for value in [
        "1",
        "true",
        "null",
        "[]",
        "[\"a\"]",
        "{}",
        r#"{"base64":1}"#,
        r#"{"base64":"?"}"#,
        r#"{"base64":"/w"}"#,
        r#"{"base64":"","x":""}"#,
        r#"{"hex":""}"#,
        "1e999",
        r#""\ud800""#,
    ] {
        let text = format!(r#"{{"type":"publish","fields":{{"a":{value}}}}}"#);
        refused(&text, "bad_request", "`fields`");
    }
    refused(
        r#"{"type":"publish","fields":{"a":"","b":"","c":"","d":""}}"#,
        "too_many_fields",
        "at most 3",
    );
    refused(
        r#"{"type":"publish","message":"a","key":""}"#,
        "bad_request",
        "`key`",
    );
    refused(
        r#"{"type":"publish","message":"a","key":1}"#,
        "bad_request",
        "`key`",
    );

    refused(r#"{"type":"join"}"#, "bad_request", "`room`");
    refused(r#"{"type":"leave"}"#, "bad_request", "`room`");
    refused(r#"{"type":"join","room":""}"#, "bad_room", "name");
    refused(r#"{"type":"join","room":"a\u0000"}"#, "bad_room", "control");
    refused(
        r#"{"type":"join","room":"tailcast:x"}"#,
        "bad_room",
        "tailcast:",
    );
    refused(
        r#"{"type":"publish","room":"","message":""}"#,
        "bad_room",
        "name",
    );
    let long = format!(r#"{{"type":"join","room":"{}"}}"#, "a".repeat(257));
    refused(&long, "bad_room", "256");
    refused(
        r#"{"type":"join","room":"r","from":"$"}"#,
        "bad_from",
        "now",
    );
    refused(
        r#"{"type":"join","room":"r","from":5}"#,
        "bad_request",
        "`from`",
    );

    for limit in [
        "0",
        "-1",
        "1.5",
        "1e3",
        "1e999",
        "\"5\"",
        "true",
        "99999999999999999999999",
    ] {
        let text = format!(r#"{{"type":"history","room":"r","limit":{limit}}}"#);
        refused(&text, "bad_request", "`limit`");
    }
    refused(
        r#"{"type":"history","after":"x"}"#,
        "bad_request",
        "`after`",
    );
    refused(
        r#"{"type":"history","before":5}"#,
        "bad_request",
        "`before`",
    );
    refused(
        r#"{"type":"history","order":"up"}"#,
        "bad_request",
        "`order`",
    );
}

#[test]
fn members_that_would_do_nothing() {
    refused(
        r#"{"type":"publish","message":"x","kye":"1"}"#,
        "bad_request",
        "publish has no member `kye`; it has room, to, message, fields, key, echo, ephemeral, type, ref",
    );
    // Known, but not to this type; and none by its value.
    refused(
        r#"{"type":"leave","room":"r","from":"now"}"#,
        "bad_request",
        "leave has no member `from`",
    );
    refused(
        r#"{"type":"ping","Ref":null}"#,
        "bad_request",
        "ping has no member `Ref`",
    );
    refused(
        r#"{"type":"moderate","act":"ban","user":"a","secnods":5}"#,
        "bad_request",
        "unknown field `secnods`",
    );
    refused(
        r#"{"type":"moderate","act":"close","key":"k"}"#,
        "bad_request",
        "unknown field `key`",
    );
    // A type that there is not is what is wrong with it first.
    refused(r#"{"type":"dance","x":1}"#, "unknown_type", "`dance`");
    let (reference, got) = read(r#"{"x":1,"ref":7,"type":"ping"}"#);
    assert_eq!(reference.as_deref(), Some("7"));
    assert!(got.is_err());
    let long = format!(r#"{{"type":"ping","{}":1}}"#, "é".repeat(5_000));
    refused(&long, "bad_request", &format!("`{}`", "é".repeat(40)));
    // Each is looked at once, however many there are.
    let many: String = (0..8_000).map(|n| format!(",\"x{n}\":1")).collect();
    refused(
        &format!(r#"{{"type":"ping"{many}}}"#),
        "bad_request",
        "`x0`",
    );
}

#[test]
fn every_member_of_every_type_is_known() {
    for (kind, names) in MEMBERS {
        for name in names {
            assert_eq!(known(name), Some(*name), "{kind}");
        }
    }
    assert_eq!(known("act"), None);
}

#[test]
fn depth_is_harmless() {
    let deep = "[".repeat(30_000) + &"]".repeat(30_000);
    refused(
        &format!(r#"{{"type":"ping","x":{deep}}}"#),
        "bad_request",
        "`x`",
    );
    refused(&format!(r#"{{"type":{deep}}}"#), "bad_request", "`type`");
    refused(
        &format!(r#"{{"type":"publish","fields":{deep}}}"#),
        "bad_request",
        "`fields`",
    );
    let text = format!(r#"{{"type":"publish","fields":{{"a":{deep}}}}}"#);
    refused(&text, "bad_request", "`fields`");
    refused(&"[".repeat(60_000), "bad_json", "JSON object");
    refused(&r#"{"a":"#.repeat(12_000), "bad_json", "JSON object");
}

proptest! {
    #[test]
    fn anything_gets_an_answer(text in "\\PC{0,200}") {
        let _ = read(&text);
    }

    #[test]
    fn nearly_right_gets_an_answer(text in r#"\{"type":"(publish|join|history)","(room|fields|message|limit|ref)":[\[\]{}":,0-9a-z\\]{0,12}\}"#) {
        let (reference, _) = read(&text);
        if let Some(reference) = reference {
            prop_assert!(serde_json::from_str::<&RawValue>(&reference).is_ok());
        }
    }

    #[test]
    fn what_was_meant_arrives(name in "\\PC{0,20}", value in any::<String>()) {
        let text = serde_json::json!({"type": "publish", "fields": {&name: &value}}).to_string();
        prop_assert_eq!(read(&text).1, Ok(publish(&[(&name, value.as_bytes())])));
    }
}
