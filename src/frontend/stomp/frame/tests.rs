use super::*;
use proptest::prelude::*;

type Pairs = Vec<(String, String)>;

/// Command, headers, body.
type Want<'a> = (Command, &'a [(&'a str, &'a str)], &'a str);

fn read(version: Option<Version>, pieces: &[&[u8]]) -> Result<Vec<Frame>, FrameError> {
    let mut decoder = Decoder::new();
    if let Some(version) = version {
        decoder.agree(version, 4 * 1024 * 1024);
    }
    let mut frames = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        while let Some(frame) = decoder.decode(&mut input)? {
            frames.push(frame);
        }
        assert!(input.is_empty());
    }
    if matches!(decoder.state, State::Between) {
        assert_eq!(
            decoder.partial.capacity(),
            0,
            "an idle reader holds nothing"
        );
    }
    Ok(frames)
}

/// In every split in two, and byte by byte.
fn check(version: Option<Version>, input: &str, want: &[Want<'_>]) {
    let want: Vec<Frame> = want
        .iter()
        .map(|(command, headers, body)| {
            let mut all = Headers::default();
            for (name, value) in *headers {
                all.add(name, value);
            }
            Frame {
                command: *command,
                headers: all,
                body: body.as_bytes().to_vec(),
            }
        })
        .collect();
    let input = input.as_bytes();
    for at in 0..=input.len() {
        let (left, right) = input.split_at(at);
        assert_eq!(
            read(version, &[left, right]).unwrap(),
            want,
            "split at {at}"
        );
    }
    let bytes: Vec<&[u8]> = input.chunks(1).collect();
    assert_eq!(read(version, &bytes).unwrap(), want, "byte by byte");
}

fn check_error(version: Option<Version>, input: &[u8], want: FrameError) {
    for at in 0..=input.len().min(300) {
        let (left, right) = input.split_at(at);
        assert_eq!(read(version, &[left, right]), Err(want.clone()), "{at}");
    }
}

const V10: Option<Version> = Some(Version::V10);
const V11: Option<Version> = Some(Version::V11);
const V12: Option<Version> = Some(Version::V12);

#[test]
fn frames_in_every_split() {
    use Command::{Connect, Disconnect, Send};
    check(None, "", &[]);
    check(None, "\n\r\n\n", &[]);
    check(
        None,
        "CONNECT\naccept-version:1.2\nlogin: alice \n\n\0",
        &[(
            Connect,
            &[("accept-version", "1.2"), ("login", "alice")],
            "",
        )],
    );
    check(
        None,
        "STOMP\r\nhost:a\r\n\r\n\0\r\n",
        &[(Connect, &[("host", "a")], "")],
    );
    check(
        V12,
        "SEND\na:1\na:2\nb:x:y\n\nhello\0\n\nDISCONNECT\n\n\0",
        &[
            (Send, &[("a", "1"), ("b", "x:y")], "hello"),
            (Disconnect, &[], ""),
        ],
    );
    check(
        V12,
        "SEND\ncontent-length:5\n\na\0b\0c\0SEND\ncontent-length:0\n\n\0",
        &[
            (Send, &[("content-length", "5")], "a\0b\0c"),
            (Send, &[("content-length", "0")], ""),
        ],
    );
}

#[test]
fn escapes_by_version() {
    let check = |version, line: &str, want: Result<(&str, &str), FrameError>| {
        let want = want.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(header(line.as_bytes(), version), want, "{version:?} {line}");
    };
    check(V12, r"a\cb:x\n\r\\\cy", Ok(("a:b", "x\n\r\\:y")));
    check(V11, r"a\cb:x\n\\\cy", Ok(("a:b", "x\n\\:y")));
    check(V11, r"a:\r", Err(FrameError::BadEscape));
    check(V12, r"a:\t", Err(FrameError::BadEscape));
    check(V12, r"a:x\", Err(FrameError::BadEscape));
    check(V10, r"a: \n\t ", Ok(("a", r"\n\t")));
    check(None, r"a: \n ", Ok(("a", r"\n")));
    check(V12, "a: x ", Ok(("a", " x ")));
    check(V12, "a:", Ok(("a", "")));
    check(V12, ":x", Err(FrameError::NoColon));
    check(V12, "ax", Err(FrameError::NoColon));
    // CONNECT is not escaped even once a version is agreed on.
    let again = read(V12, &[b"CONNECT\nlogin:a\\tb\n\n\0"]).unwrap();
    assert_eq!(again[0].headers.get("login"), Some(r"a\tb"));
}

#[test]
fn what_is_no_frame() {
    check_error(None, b"GET / HTTP/1.1\r\n", FrameError::UnknownCommand);
    check_error(None, b"send\n\n\0", FrameError::UnknownCommand);
    check_error(None, b"\0\n", FrameError::UnknownCommand);
}

#[test]
fn limits() {
    let long = [b"SEND\na:", vec![b'x'; LINE_MAX].as_slice()].concat();
    check_error(V12, &long, FrameError::LongLine);
    let mut many = b"SEND\n".to_vec();
    for _ in 0..=HEADERS_MAX {
        many.extend_from_slice(b"a:1\n");
    }
    check_error(V12, &many, FrameError::ManyHeaders);
    let large = b"SEND\ncontent-length:70000\n\n";
    check_error(None, large, FrameError::TooLarge(LOGIN_FRAME_MAX));
    assert_eq!(read(V12, &[large]), Ok(vec![]));
    for huge in ["4194304", "99999999999999999999999"] {
        let head = format!("SEND\ncontent-length:{huge}\n\n");
        check_error(V12, head.as_bytes(), FrameError::TooLarge(4 * 1024 * 1024));
    }
    let endless = [b"SEND\n\n", vec![b'x'; LOGIN_FRAME_MAX].as_slice()].concat();
    check_error(None, &endless, FrameError::TooLarge(LOGIN_FRAME_MAX));
    for bad in ["", "-1", "+1", "1x", " 1"] {
        let head = format!("SEND\ncontent-length:{bad}\n\n");
        check_error(V12, head.as_bytes(), FrameError::BadLength);
    }
    check_error(V12, b"SEND\ncontent-length:1\n\nab\0", FrameError::NoNul);
    check_error(V12, b"SEND\na:\xff\n", FrameError::NotUtf8);
    for nul in [
        &b"SEND\na:b\0c\n"[..],
        b"SEND\na\0b:c\n",
        b"SEND\na:b\n\0\n",
    ] {
        check_error(V12, nul, FrameError::NulInHeader);
        check_error(Some(Version::V10), nul, FrameError::NulInHeader);
    }
}

#[test]
fn frames_out() {
    let check = |version, headers: &[(&str, &str)], body: &str, want: &str| {
        let frame = encode("ERROR", headers, body, version);
        assert_eq!(String::from_utf8(frame).unwrap(), want);
    };
    let odd = [("a", "x:y\\"), ("b\nc", "1"), ("d", "e\r")];
    check(
        Version::V12,
        &odd,
        "hi",
        "ERROR\na:x\\cy\\\\\nb\\nc:1\nd:e\\r\ncontent-length:2\n\nhi\0",
    );
    check(Version::V11, &odd, "", "ERROR\na:x\\cy\\\\\nb\\nc:1\n\n\0");
    check(Version::V10, &odd, "", "ERROR\na:x:y\\\n\n\0");
    check(Version::V10, &[("a:b", "1")], "", "ERROR\n\n\0");
    check(
        Version::V12,
        &[("a", "b\0\nERROR"), ("c\0", "d")],
        "e\0f",
        "ERROR\na:b\u{fffd}\\nERROR\nc\u{fffd}:d\ncontent-length:5\n\ne\u{fffd}f\0",
    );
}

fn pairs() -> impl Strategy<Value = Pairs> {
    let text = "[a-z:\\\\\n\ré ]{0,8}";
    prop::collection::vec(("[a-z:\\\\\n\ré]{1,6}", text), 0..6)
}

proptest! {
    /// What is written is read as it was, however it's split.
    #[test]
    fn round_trips(
        pairs in pairs(),
        body in prop::collection::vec(any::<u8>(), 0..300),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut lines = Vec::new();
        let mut headers = Headers::default();
        for (name, value) in &pairs {
            put_header(&mut lines, name, value);
            headers.add(name, value);
        }
        let length = body.len().to_string();
        put_header(&mut lines, "content-length", &length);
        headers.add("content-length", &length);
        let frame = [b"SEND\n", lines.as_slice(), b"\n", &body, b"\0\n"].concat();
        let twice = frame.repeat(2);
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(twice.len())).collect();
        at.extend([0, twice.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|w| &twice[w[0]..w[1]]).collect();
        let want = Frame { command: Command::Send, headers, body };
        prop_assert_eq!(read(V12, &pieces).unwrap(), vec![want.clone(), want]);
    }

    /// Older versions are told nothing that they would read as something else.
    #[test]
    fn older_versions_read_the_same_or_less(pairs in pairs(), old in 0..2usize) {
        let version = [Version::V10, Version::V11][old];
        let mut lines = Vec::new();
        let mut all = Headers::default();
        for (name, value) in &pairs {
            // What 1.0 does to spaces is its own affair.
            let (name, value) = (name.replace(' ', "_"), value.replace(' ', "_"));
            put_header(&mut lines, &name, &value);
            all.add(&name, &value);
        }
        let mut frame = b"SEND\n".to_vec();
        put_as(&mut frame, &lines, version);
        frame.extend_from_slice(b"\n\0");
        let read = read(Some(version), &[&frame]).unwrap();
        prop_assert_eq!(read.len(), 1);
        let told: Vec<_> = read[0].headers.iter().collect();
        prop_assert!(told.len() <= pairs.len());
        for (name, value) in told {
            prop_assert!(pairs.iter().any(|(n, v)| n.replace(' ', "_") == name && v.replace(' ', "_") == value));
        }
    }

    #[test]
    fn any_bytes(data in prop::collection::vec(any::<u8>(), 0..300)) {
        fuzz(&data);
    }

    #[test]
    fn near_frames(text in "[0-3](SEND|CONNECT)\r?\n([a-c:\\\\nrc]{0,6}\r?\n){0,4}(content-length:[0-9]{1,2}\n)?\n[ab\\x00]{0,12}") {
        fuzz(text.as_bytes());
    }
}
