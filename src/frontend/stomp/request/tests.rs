use super::*;
use crate::frontend::stomp::frame::Decoder;

fn read(version: Option<Version>, text: &str) -> Result<Asked, &'static str> {
    let mut decoder = Decoder::new();
    if let Some(version) = version {
        decoder.agree(version, 1024 * 1024);
    }
    let text = format!("{text}\0");
    let frame = decoder.decode(&mut text.as_bytes()).unwrap().unwrap();
    let aliases: Aliases = "/app/say=/topic/public,/app/in=enter:/topic/public"
        .parse()
        .unwrap();
    let reading = Reading {
        version,
        aliases: &aliases,
        max_fields: 4,
        now_ms: 1_700_000_000_000,
    };
    reading.read(frame).map_err(|refused| refused.code)
}

const V10: Option<Version> = Some(Version::V10);
const V11: Option<Version> = Some(Version::V11);
const V12: Option<Version> = Some(Version::V12);

fn connect(text: &str) -> Connect {
    match read(None, text).unwrap().what {
        Request::Connect(connect) => connect,
        other => panic!("{other:?}"),
    }
}

#[test]
fn logging_in() {
    let version = |offered: &str| {
        let text = format!("CONNECT\naccept-version:{offered}\n\n");
        match read(None, &text) {
            Ok(asked) => match asked.what {
                Request::Connect(connect) => Ok(connect.version),
                other => panic!("{other:?}"),
            },
            Err(code) => Err(code),
        }
    };
    assert_eq!(version("1.0,1.1,1.2"), Ok(Version::V12));
    assert_eq!(version("1.1, 1.0, 3.0"), Ok(Version::V11));
    assert_eq!(version("2.0"), Err("bad_version"));
    assert_eq!(version(""), Err("bad_version"));
    let plain = connect("STOMP\n\n");
    assert_eq!(plain.version, Version::V10);
    assert_eq!((plain.secret, plain.login), (None, None));
    assert_eq!(plain.beats, Beats::default());

    let check = |headers: &str, want: Option<Secret>| {
        assert_eq!(
            connect(&format!("CONNECT\n{headers}\n\n")).secret,
            want,
            "{headers}"
        );
    };
    let token = |text: &str| Some(Secret::Token(text.into()));
    check("login:a\npasscode:t", token("t"));
    check("login:a\npasscode:", None);
    check("token:x\npasscode:t", token("x"));
    check("Authorization:Bearer  b\ntoken:x", token("b"));
    check("authorization:Basic b\npasscode:t", token("t"));
    check("x-api-key:k\ntoken:x", Some(Secret::Key("k".into())));
    assert_eq!(connect("CONNECT\nlogin:a\n\n").login.as_deref(), Some("a"));

    assert!(connect("CONNECT\nx-binary:true\n\n").is_binary);
    assert!(!connect("CONNECT\nx-binary:false\n\n").is_binary);
    assert_eq!(read(None, "CONNECT\nx-binary:1\n\n"), Err("bad_request"));

    let beats = connect("CONNECT\nheart-beat:1000,0\n\n").beats;
    assert_eq!(beats.sends, Duration::from_secs(1));
    assert!(beats.wants.is_zero());
    for bad in ["1000", "a,b", "-1,0", ""] {
        assert_eq!(
            read(None, &format!("CONNECT\nheart-beat:{bad}\n\n")),
            Err("bad_request"),
            "{bad}"
        );
    }
    assert_eq!(
        read(None, "SEND\ndestination:/topic/a\n\n"),
        Err("bad_request")
    );
    assert_eq!(read(V12, "CONNECT\n\n"), Err("bad_request"));
}

#[test]
fn where_subscriptions_begin() {
    let check = |headers: &str, want: Result<Position, &str>| {
        let text = format!("SUBSCRIBE\nid:0\ndestination:/topic/a\n{headers}\n\n");
        let got = read(V12, &text).map(|asked| match asked.what {
            Request::Subscribe(subscribe) => subscribe.from,
            other => panic!("{other:?}"),
        });
        assert_eq!(got, want.map_err(|_| "bad_request"), "{headers}");
    };
    let after = |ms, seq| Ok(Position::After(EntryId::new(ms, seq)));
    check("a:b", Ok(Position::Now));
    check("x-stream-offset:first", Ok(Position::Start));
    check("x-stream-offset:last", Ok(Position::Last(1)));
    check("x-stream-offset:next", Ok(Position::Now));
    check("x-stream-offset:offset=5-1", after(5, 0));
    check("x-stream-offset:offset=5", after(4, u64::MAX));
    check(
        "x-stream-offset:timestamp=1699999940",
        Ok(Position::Ago(Duration::from_secs(60))),
    );
    check("x-stream-offset:timestamp=1700000001", Ok(Position::Now));
    check(
        "x-stream-offset:timestamp=18446744073709551615",
        Ok(Position::Now),
    );
    check("from:last\\c7", Ok(Position::Last(7)));
    check("from:7-1\nx-stream-offset:first", after(7, 1));
    check("last-id:9-1\nfrom:start", after(9, 1));
    for bad in [
        "last-id:x",
        "from:x",
        "x-stream-offset:x",
        "x-stream-offset:offset=x",
        "x-stream-offset:timestamp=x",
        "x-stream-offset:LAST",
    ] {
        check(bad, Err(""));
    }
}

#[test]
fn subscriptions() {
    let check = |version, text: &str, want: Result<(&str, bool), &str>| {
        let got = read(version, text).map(|asked| match asked.what {
            Request::Subscribe(subscribe) => (subscribe.id.to_string(), subscribe.acks),
            other => panic!("{other:?}"),
        });
        assert_eq!(
            got,
            want.map(|(id, acks)| (id.to_owned(), acks))
                .map_err(|e| match e {
                    "unsupported" => "unsupported",
                    _ => "bad_request",
                }),
            "{text}"
        );
    };
    let one = "SUBSCRIBE\nid:a\ndestination:/topic/x\n";
    check(V12, &format!("{one}\n"), Ok(("a", false)));
    check(V12, &format!("{one}ack:client\n\n"), Ok(("a", true)));
    check(
        V12,
        &format!("{one}ack:client-individual\n\n"),
        Ok(("a", true)),
    );
    check(V12, &format!("{one}ack:auto\n\n"), Ok(("a", false)));
    check(V12, &format!("{one}ack:sometimes\n\n"), Err("unsupported"));
    check(V12, &format!("{one}selector:a=1\n\n"), Err("unsupported"));
    check(V12, "SUBSCRIBE\nid:a\n\n", Err(""));
    check(V12, "SUBSCRIBE\ndestination:/topic/x\n\n", Err(""));
    check(
        V10,
        "SUBSCRIBE\ndestination:/topic/x\n\n",
        Ok(("/topic/x", false)),
    );
    check(
        V12,
        "SUBSCRIBE\nid:a\ndestination:/queue/x\n\n",
        Err("unsupported"),
    );
    check(V12, "SUBSCRIBE\nid:a\ndestination:/app/say\n\n", Err(""));
    assert_eq!(
        read(V10, "UNSUBSCRIBE\ndestination:/topic/x\n\n")
            .unwrap()
            .what,
        Request::Unsubscribe("/topic/x".into())
    );
    assert_eq!(read(V11, "UNSUBSCRIBE\n\n"), Err("bad_request"));
}

#[test]
fn what_is_sent() {
    let send = |text: &str| match read(V12, text).unwrap().what {
        Request::Send(transaction, send) => (transaction, send),
        other => panic!("{other:?}"),
    };
    let (transaction, sent) = send(
        "SEND\ndestination:/topic/a\ncontent-type:text/plain\nreceipt:r\nidempotency-key:k\ncontent-length:2\n\nhi",
    );
    let fields: Vec<(&[u8], &[u8])> = sent.fields.iter().map(|(n, v)| (&n[..], &v[..])).collect();
    assert_eq!(
        fields,
        [
            (&b"message"[..], &b"hi"[..]),
            (b"content-type", b"text/plain")
        ]
    );
    assert_eq!(sent.key.as_deref(), Some(&b"k"[..]));
    assert_eq!(transaction, None);
    assert!(!sent.target.enters);
    let (transaction, sent) = send("SEND\ndestination:/app/in\ntransaction:t\n\n");
    assert_eq!(transaction.as_deref(), Some("t"));
    assert!(sent.target.enters);
    assert_eq!(sent.fields.len(), 1);
    for bad in [
        "SEND\n\nhi",
        "SEND\ndestination:/app/other\n\nhi",
        "SEND\ndestination:/topic/a\nmessage:x\n\nhi",
        "SEND\ndestination:/topic/a\na:1\nb:1\nc:1\nd:1\n\nhi",
    ] {
        assert_eq!(read(V12, bad), Err("bad_request"), "{bad}");
    }
    assert_eq!(
        read(V12, "SEND\ndestination:/queue/a\n\n"),
        Err("unsupported")
    );
}

#[test]
fn acknowledgements_and_transactions() {
    let what = |version, text: &str| read(version, text).map(|asked| asked.what);
    // Clients acknowledge a gap, too, which has no ID: webstomp-client writes what follows.
    for ack in [
        "id:5-1\ntransaction:t",
        "message-id:5-1",
        "id:undefined",
        "",
    ] {
        assert_eq!(what(V12, &format!("ACK\n{ack}\n\n")), Ok(Request::Ack));
    }
    assert_eq!(what(V12, "NACK\nid:5-1\n\n"), Err("unsupported"));
    assert_eq!(
        what(V12, "BEGIN\ntransaction:t\n\n"),
        Ok(Request::Begin("t".into()))
    );
    assert_eq!(
        what(V12, "COMMIT\ntransaction:t\n\n"),
        Ok(Request::Commit("t".into()))
    );
    assert_eq!(
        what(V12, "ABORT\ntransaction:t\n\n"),
        Ok(Request::Abort("t".into()))
    );
    assert_eq!(what(V12, "BEGIN\n\n"), Err("bad_request"));
    assert_eq!(
        read(V12, "DISCONNECT\nreceipt:77\n\n").unwrap(),
        Asked {
            what: Request::Disconnect,
            receipt: Some("77".into())
        }
    );
}
