use proptest::prelude::*;

use super::*;

fn check(text: &str, want: Option<(Kind, &str, Option<u64>, usize, &str)>) {
    let got = parse(text).ok();
    let got = got.map(|p| (p.kind, p.namespace, p.ack, p.attachments, p.json));
    assert_eq!(got, want, "{text}");
}

#[test]
fn packets() {
    use Kind::{Ack, Connect, Disconnect, Event};
    check("0", Some((Connect, "/", None, 0, "")));
    check(
        "0{\"token\":\"1\"}",
        Some((Connect, "/", None, 0, "{\"token\":\"1\"}")),
    );
    check("0/admin,", Some((Connect, "/admin", None, 0, "")));
    check("0/admin", Some((Connect, "/admin", None, 0, "")));
    check("0/admin,{}", Some((Connect, "/admin", None, 0, "{}")));
    check("1", Some((Disconnect, "/", None, 0, "")));
    check("1/a,", Some((Disconnect, "/a", None, 0, "")));
    check("2[\"a\",1]", Some((Event, "/", None, 0, "[\"a\",1]")));
    check("2/x,12[\"a\"]", Some((Event, "/x", Some(12), 0, "[\"a\"]")));
    check("30[]", Some((Ack, "/", Some(0), 0, "[]")));
    // What is wrong with the content of a packet is looked at where it's used.
    check("0/чат,", Some((Connect, "/чат", None, 0, "")));
    check("0/a b\"?", Some((Connect, "/a b\"?", None, 0, "")));
    check("0[]", Some((Connect, "/", None, 0, "[]")));
    check("01{}", Some((Connect, "/", Some(1), 0, "{}")));
    check("1{}", Some((Disconnect, "/", None, 0, "{}")));
    check("511-[\"a\"]", Some((Event, "/", None, 11, "[\"a\"]")));
    check("2[1", Some((Event, "/", None, 0, "[1")));
    check("3[]", Some((Ack, "/", None, 0, "[]")));
    check(
        "52-/x,7[\"a\",{\"_placeholder\":true,\"num\":0}]",
        Some((
            Event,
            "/x",
            Some(7),
            2,
            "[\"a\",{\"_placeholder\":true,\"num\":0}]",
        )),
    );
    check("61-4[{}]", Some((Ack, "/", Some(4), 1, "[{}]")));
}

#[test]
fn what_is_none() {
    for bad in [
        "",
        "abc",
        "4{}",
        "7",
        "é",
        "2",
        "2{}",
        "2abc[\"a\"]",
        "2-1[\"a\"]",
        "299999999999999999999[\"a\"]",
        "31",
        "31{}",
        "5[\"a\"]",
        "5-[\"a\"]",
        "51001-[\"a\"]",
        "51[\"a\"]",
        "2 [\"a\"]",
    ] {
        check(bad, None);
    }
}

#[test]
fn events_that_are_refused() {
    let deep = format!("[\"a\",{}{}]", "[".repeat(64), "]".repeat(64));
    let bottomless = "[".repeat(1_000_000);
    for (json, code) in [
        ("[]", "bad_request"),
        ("[{}]", "bad_request"),
        ("[null]", "bad_request"),
        ("[\"connect\"]", "unknown_event"),
        ("[\"disconnecting\",1]", "unknown_event"),
        ("[\"a\"", "bad_json"),
        ("[\"a\"]x", "bad_json"),
        ("[\"a\",NaN]", "bad_json"),
        ("[\"a\",\"\\ud83d\"]", "bad_json"),
        ("[\"\\ude00\"]", "bad_json"),
        (&*deep, "bad_request"),
        (&*bottomless, "bad_request"),
    ] {
        let refused = Args::of(json).and_then(|args| args.name()).unwrap_err();
        assert_eq!(refused.code(), code, "{refused}");
    }
    for (json, name) in [
        ("[42]", "42"),
        ("[1.5,2]", "1.5"),
        ("[1.0]", "1"),
        ("[-3]", "-3"),
    ] {
        assert_eq!(Args::of(json).unwrap().name().unwrap(), name);
    }
}

#[test]
fn namespaces() {
    for good in ["/", "/чат", "/two words", "/a\"b?c#d"] {
        assert!(is_namespace(good), "{good}");
    }
    assert!(is_namespace(&"/".repeat(NAMESPACE_MAX)));
    for bad in ["/a\u{1e}b", "/a\n", &"/".repeat(NAMESPACE_MAX + 1)] {
        assert!(!is_namespace(bad), "{bad}");
    }
}

#[test]
fn arguments_stay_as_they_came() {
    let args = Args::of("[\"n\\u0061me\", {\"a\" : 1e400}, \"x\"]").unwrap();
    assert_eq!(args.name().unwrap(), "name");
    assert_eq!(args.raw(1), Some("{\"a\" : 1e400}"));
    assert_eq!(args.read::<String>(2).as_deref(), Some("x"));
    assert_eq!(args.raw(3), None);
    assert_eq!(args.rest(), "[{\"a\" : 1e400},\"x\"]");
    assert_eq!(Args::of("[\"a\"]").unwrap().rest(), "[]");
}

#[test]
fn placeholders() {
    let at = |number: &str| format!("[[{{\"_placeholder\":true,\"num\":{number}}}]]");
    assert!(placeholders_fit(&at("1"), 2));
    for bad in ["2", "-1", "1.5", "null", "\"0\"", "1,\"num\":9"] {
        assert!(!placeholders_fit(&at(bad), 2), "{bad}");
    }
    // Without attachments nobody looks for them.
    assert!(placeholders_fit(&at("9"), 0));
    assert!(placeholders_fit("[{\"_placeholder\":false,\"num\":7}]", 1));
    assert!(!placeholders_fit("[", 1));
}

#[test]
fn depths() {
    for (text, want) in [("1", 0), ("[]", 1), ("[[{}],[]]", 3), (r#"["[[\"[["]"#, 1)] {
        assert_eq!(depth(text), want, "{text}");
    }
}

#[test]
fn written() {
    assert_eq!(write(Kind::Event, "/", None, "[\"a\"]"), "42[\"a\"]");
    assert_eq!(write(Kind::Ack, "/x", Some(3), "[]"), "43/x,3[]");
    assert_eq!(write(Kind::Disconnect, "/x", None, ""), "41/x,");
    assert_eq!(connect_error("/x", "{}"), "44/x,{}");
    assert_eq!(head(Kind::Event, false, 2, "/", None), "452-");
    assert_eq!(head(Kind::Ack, false, 1, "/x", Some(9)), "461-/x,9");
}

proptest! {
    #[test]
    fn what_is_written_is_read(
        namespace in "(/|/[a-z0-9._-]{1,20})",
        ack in prop::option::of(0..ACK_MAX),
        attachments in 0..=ATTACHMENTS_MAX,
        name in "[a-zA-Z :é]{1,20}",
        arg in "\\PC{0,50}",
    ) {
        prop_assume!(!is_reserved(&name));
        let json = serde_json::json!([name, arg]).to_string();
        let text = head(Kind::Event, false, attachments, &namespace, ack) + &json;
        let packet = parse(&text[1..]).unwrap();
        prop_assert_eq!(packet, Packet { kind: Kind::Event, namespace: &namespace, ack, attachments, json: &json });
    }

    #[test]
    fn nothing_makes_it_panic(text in "[0-9/,\\-\\[\\]\"{}a-z\\\\é]{0,40}") {
        let _ = parse(&text);
        let _ = depth(&text);
    }
}
