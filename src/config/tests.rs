//! The settings as a whole: precedence, complaints, printing.

use std::ffi::OsString;
use std::io::Write;

use super::*;

/// A secret that is long enough.
const SECRET: &str = "0123456789abcdef-0123456789abcdef";

type Pairs<'a> = &'a [(&'a str, &'a str)];

fn try_load(
    flags: Pairs<'_>,
    environment: Pairs<'_>,
    file: &str,
) -> Result<(Config, String), Vec<String>> {
    let mut temporary = tempfile::NamedTempFile::new().expect("a temporary file");
    temporary.write_all(file.as_bytes()).expect("written");
    let look = |pairs: Pairs<'_>, name: &str| {
        let pair = pairs.iter().find(|(key, _)| *key == name);
        pair.map(|(_, text)| (*text).to_owned())
    };
    let sources = Sources {
        flags: &|name| look(flags, name),
        environment: &|name| look(environment, name).map(OsString::from),
        variables: &|| environment.iter().map(|(name, _)| (*name).into()).collect(),
        file: (!file.is_empty()).then_some(temporary.path()),
    };
    let shown = temporary.path().display().to_string();
    match load(&sources) {
        Ok((config, found)) => Ok((config, print(&found).replace(&shown, "FILE"))),
        Err(errors) => Err(errors
            .0
            .iter()
            .map(|line| line.replace(&shown, "FILE"))
            .collect()),
    }
}

fn complaints(flags: Pairs<'_>, environment: Pairs<'_>, file: &str) -> Vec<String> {
    try_load(flags, environment, file).err().unwrap_or_default()
}

fn taken(flags: Pairs<'_>, environment: Pairs<'_>, file: &str) -> (Config, String) {
    try_load(flags, environment, file).expect("good settings")
}

#[test]
fn defaults() {
    let (config, _) = taken(&[], &[("HOME", "/home/me")], "");
    assert_eq!(
        config.listen,
        ["127.0.0.1:8080".parse().expect("an address")]
    );
    assert!(!config.redis_given && !config.memory);
    assert_eq!(
        config.data_dir,
        PathBuf::from("/home/me/.local/share/tailcast")
    );
    assert_eq!(config.default_room.as_str(), "mystream");
    assert_eq!((config.keep, config.keep_for), (Some(10_000), None));
    assert_eq!(config.expire_after, None);
    assert_eq!(config.slow_timeout, Some(Duration::from_secs(60)));
    assert_eq!(config.max_sockets, None);
    assert_eq!(config.max_frame, 65_536);
    assert_eq!(config.frame_rate, Some(crate::frontend::FRAME_RATE));
    assert_eq!(config.idle_timeout, None);
    assert_eq!(config.window_total, 256 << 20);

    let (config, _) = taken(&[], &[("XDG_DATA_HOME", "/data")], "");
    assert_eq!(config.data_dir, PathBuf::from("/data/tailcast"));
}

#[test]
fn precedence() {
    let file = "keep = 1\nlinger = \"1s\"\nping = 0\nlisten = [\"127.0.0.1:1\", \"127.0.0.1:2\"]\nmemory = true\n";
    let environment = [
        ("TAILCAST_KEEP", "2"),
        ("TAILCAST_LINGER", "2s"),
        ("TAILCAST_PING", ""),
    ];
    let (config, printed) = taken(&[("keep", "3")], &environment, file);
    assert_eq!(config.keep, Some(3));
    assert_eq!(config.linger, Duration::from_secs(2));
    assert_eq!(config.ping, None, "an empty variable counts as not set");
    assert_eq!(config.listen.len(), 2);
    assert!(config.memory);
    let line = |start: &str| {
        let line = printed.lines().find(|line| line.starts_with(start));
        line.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let check = |start: &str, want: &str| assert_eq!(line(start).as_deref(), Some(want));
    check("keep =", "keep = 3 # flag --keep");
    check("linger =", "linger = \"2s\" # environment TAILCAST_LINGER");
    check("ping =", "ping = \"0\" # file FILE");
    check("pong =", "pong = \"10s\" # default");
    check("data-dir =", "data-dir = \"tailcast-data\" # default");
}

#[test]
fn unknown_variables() {
    let check = |environment: Pairs<'_>, want: &[&str]| {
        let (config, _) = taken(&[], environment, "");
        assert_eq!(config.unknown_variables, want, "{environment:?}");
    };
    check(
        &[
            ("TAILCAST_MAX_SOCKETS", "5"),
            ("TAILCAST_CONFIG", "x"),
            ("TAILCAST_TOKEN", "x"),
            ("TAILCAST_KEP", ""),
            ("TAILCASTER", "x"),
            ("KEP", "x"),
        ],
        &[],
    );
    check(
        &[
            ("TAILCAST_REDIS_UR", "x"),
            ("TAILCAST_MAX_SOCKET", "5"),
            ("TAILCAST_max_sockets", "5"),
            ("TAILCAST_FROBNICATE", "x"),
        ],
        &[
            "TAILCAST_FROBNICATE is no setting; leave it out, `tailcast config` prints all there are",
            "TAILCAST_MAX_SOCKET is no setting; did you mean TAILCAST_MAX_SOCKETS?",
            "TAILCAST_REDIS_UR is no setting; leave it out, `tailcast config` prints all there are",
            "TAILCAST_max_sockets is no setting; did you mean TAILCAST_MAX_SOCKETS?",
        ],
    );
    // What Kubernetes sets for a service of our name.
    check(
        &[
            ("TAILCAST_PORT", "tcp://10.0.0.1:80"),
            ("TAILCAST_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("TAILCAST_SERVICE_HOST", "10.0.0.1"),
        ],
        &[],
    );
}

#[test]
fn all_errors_at_once() {
    let got = complaints(
        &[("listen", "8080"), ("default-room", ""), ("max-frame", "0")],
        &[
            ("TAILCAST_PONG", "0"),
            ("TAILCAST_REDIS", "redis://me:secret@"),
        ],
        "keep_for = \"1h\"\nfrobnicate = 1\nlinger = 5\nframe-rate = 1.5\ntail = \"both\"\nmax-rooms = -1\n",
    );
    let want = [
        "FILE: frame-rate is a TOML float; write frame-rate = 1000",
        "FILE: unknown key frobnicate; leave it out, `tailcast config` prints all there are",
        "FILE: unknown key keep_for; did you mean keep-for?",
        "--default-room \"\" is no room name: a room needs a name; write another",
        "--listen \"8080\" has 8080, which is no address with a port; write it as in 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080",
        "TAILCAST_REDIS=\"redis://me:***@\" is no Redis URL; write it as in redis://user:password@host:6379/0, rediss://host, or unix:///path/to/socket",
        "FILE: tail = \"both\" is unknown; write one of auto, block, track",
        "FILE: linger = \"5\" has no unit; write a whole number and a unit, as in 500ms, 30s, 5m, 24h or 7d",
        "--max-frame \"0\" is too small; write 1 or more",
        "FILE: max-rooms = \"-1\" is no number; write a whole number, as in 100",
        "TAILCAST_PONG=\"0\" is too short; write a time above 0, as in 10s",
    ];
    assert_eq!(got, want);
    assert!(want.iter().all(|line| !line.contains('\n')));
}

#[test]
fn bad_files() {
    let got = complaints(&[], &[], "keep = 1\nlisten = 127.0.0.1\n");
    assert_eq!(got.len(), 1);
    assert!(got[0].starts_with("FILE: line 2 is not TOML: "), "{got:?}");
}

#[test]
fn settings_that_do_not_go_together() {
    for (flags, want) in [
        (
            &[("keep-for", "1h"), ("keep", "5")][..],
            "--keep \"5\" and --keep-for",
        ),
        (
            &[("memory", "true"), ("redis", "redis://h")],
            "--redis \"redis://h\" and --memory",
        ),
        (
            &[("memory", "true"), ("durability", "replicated")],
            "--durability \"replicated\" needs Redis",
        ),
        (
            &[("tail", "block"), ("tail-connections", "0")],
            "--tail-connections \"0\" leaves",
        ),
        (
            &[("window-bytes", "1GiB")],
            "--window-bytes \"1GiB\" is more than",
        ),
        (
            &[("max-frame", "1GiB")],
            "--max-frame \"1GiB\" is more than",
        ),
        (
            &[("key-prefix", "tailcast:x")],
            "--key-prefix \"tailcast:x\" makes keys",
        ),
        (
            &[("key-prefix", "tail")],
            "--key-prefix \"tail\" makes keys",
        ),
        (&[("log", "inof")], "--log \"inof\" is no filter"),
        (
            &[("log", "tailcast=loud")],
            "--log \"tailcast=loud\" is no filter",
        ),
        (
            &[("listen", "127.0.0.1:1,0.0.0.0:8080")],
            "--listen \"127.0.0.1:1,0.0.0.0:8080\" lets others in",
        ),
        (&[("listen", "[::]:8080")], "--listen \"[::]:8080\" lets"),
        (
            &[("auth", "cookie"), ("listen", "0.0.0.0:8080")],
            "--listen \"0.0.0.0:8080\" lets others in, and a cookie is believed",
        ),
        (
            &[("auth", "cookie"), ("jwt-secret", SECRET)],
            "--jwt-secret \"***\" is of no use",
        ),
        (&[("auth", "jwt")], "--auth \"jwt\" needs a key"),
        (
            &[
                ("auth", "jwt"),
                ("jwt-secret", SECRET),
                ("jwks", "https://me:hush@h/k"),
            ],
            "--jwks \"https://me:***@h/k\" is a second key",
        ),
        (
            &[("jwt-secret", SECRET)],
            "--jwt-secret \"***\" is of no use",
        ),
        (&[("audience", "a")], "--audience \"a\" is of no use"),
        (
            &[("accounts", "true"), ("auth", "none")],
            "--accounts \"true\" needs --auth jwt",
        ),
        (
            &[("accounts", "true"), ("auth", "jwt")],
            "--accounts \"true\" needs --auth jwt with --jwt-secret",
        ),
        (
            &[("accounts", "true"), ("jwks", "keys.json")],
            "--accounts \"true\" needs --auth jwt with --jwt-secret",
        ),
        (
            &[("account-host", "boss")],
            "--account-host \"boss\" is of no use",
        ),
    ] {
        let got = complaints(flags, &[], "");
        assert_eq!(got.len(), 1, "{flags:?}: {got:?}");
        assert!(got[0].starts_with(want), "{got:?}");
    }
    let (config, _) = taken(&[("keep-for", "24h"), ("keep", "0")], &[], "");
    assert_eq!(config.keep, None);
    let (config, printed) = taken(&[("keep-for", "24h")], &[], "");
    assert!(printed.contains("\nkeep = 0 "), "{printed}");
    assert_eq!(
        (config.keep, config.keep_for),
        (None, Some(Duration::from_secs(86_400)))
    );
}

#[test]
fn who_may_come_in() {
    let (config, _) = taken(&[], &[], "");
    assert_eq!(
        (config.auth, config.token_cookie.as_str()),
        (Mode::None, "token")
    );
    let open = [("listen", "0.0.0.0:8080"), ("insecure", "true")];
    assert!(taken(&open, &[], "").0.insecure);
    taken(&[("listen", "[::ffff:127.0.0.1]:8080")], &[], "");

    let flags = [
        ("auth", "jwt"),
        ("listen", "0.0.0.0:8080"),
        ("role", "viewer=subscribe,member=none"),
        ("default-role", "*=viewer"),
        ("api-key", "a:0123456789abcdef,b:fedcba9876543210"),
    ];
    let (config, printed) = taken(&flags, &[("TAILCAST_JWT_SECRET", SECRET)], "");
    assert_eq!(config.api_keys.len(), 2);
    assert_eq!(config.default_role.to_string(), "*=viewer");
    assert!(printed.contains("api-key = \"a:***,b:***\""), "{printed}");
    let everything = format!("{printed}{config:?}");
    for hidden in [SECRET, "0123456789abcdef", "fedcba9876543210"] {
        assert!(!everything.contains(hidden), "{everything}");
    }
}

#[test]
fn accounts() {
    let check = |flags: Pairs<'_>, auth: Mode, has_secret: bool, anonymous: &str| {
        let (config, printed) = taken(flags, &[], "");
        assert_eq!(config.auth, auth, "{flags:?}");
        assert_eq!(config.jwt_secret.is_some(), has_secret, "{flags:?}");
        assert_eq!(config.anonymous_role.to_string(), anonymous, "{flags:?}");
        // What is in force is what is printed.
        let line = format!("\nanonymous-role = \"{anonymous}\" ");
        assert!(printed.contains(&line), "{printed}");
        let line = match auth {
            Mode::Jwt => "\nauth = \"jwt\" ",
            Mode::None => "\nauth = \"none\" ",
            Mode::Cookie => "\nauth = \"cookie\" ",
        };
        assert!(printed.contains(line), "{printed}");
    };
    let on = ("accounts", "true");
    check(&[], Mode::None, false, "");
    check(&[("accounts", "false")], Mode::None, false, "");
    check(&[on], Mode::Jwt, false, "*=viewer");
    check(
        &[on, ("listen", "0.0.0.0:8080")],
        Mode::Jwt,
        false,
        "*=viewer",
    );
    check(&[on, ("anonymous-role", "")], Mode::Jwt, false, "");
    let secret = ("jwt-secret", SECRET);
    check(&[on, secret], Mode::Jwt, true, "*=viewer");
    check(&[on, secret, ("auth", "jwt")], Mode::Jwt, true, "");
    let (config, _) = taken(&[on, ("account-host", "ann, bob")], &[], "");
    let hosts: Vec<&str> = config.account_hosts.iter().map(UserName::as_str).collect();
    assert_eq!(hosts, ["ann", "bob"]);
}

#[test]
fn bad_secrets_are_masked_too() {
    let got = complaints(
        &[("jwt-secret", "hush"), ("api-key", "a:hush,hush")],
        &[
            ("TAILCAST_ROLE", "king=publish"),
            ("TAILCAST_TOKEN_COOKIE", "a b"),
        ],
        "default-role = \"lobby\"\njwks = \"ftp://h/k\"\n",
    );
    let want = [
        "--jwt-secret \"***\" has only 4 bytes",
        "FILE: jwks = \"ftp://h/k\" is no address",
        "TAILCAST_TOKEN_COOKIE=\"a b\" is no cookie",
        "--api-key \"a:***,***\" has a key for a that is shorter",
        "TAILCAST_ROLE=\"king=publish\" is wrong: `king` is no role",
        "FILE: default-role = \"lobby\" is wrong: `lobby` is no grant",
    ];
    assert_eq!(got.len(), want.len(), "{got:?}");
    for (got, want) in got.iter().zip(want) {
        assert!(got.starts_with(want) && !got.contains("hush"), "{got}");
    }
}

#[test]
fn passwords_are_masked() {
    let (config, printed) = taken(&[("redis", "redis://me:hush@h:1/2")], &[], "");
    assert_eq!(config.redis.as_str(), "redis://me:hush@h:1/2");
    assert!(config.redis_given);
    assert!(printed.contains("redis://me:***@h:1/2"));
    let everything = format!("{printed}{config:?}{}", config.redis);
    assert!(!everything.contains("hush"), "{everything}");
}

#[test]
fn what_is_printed_can_be_read_back() {
    let (_, printed) = taken(&[("ping", "0"), ("memory", "true")], &[], "");
    // A printed default counts as given once it is in a file.
    let file: String = printed
        .lines()
        .filter(|line| !line.starts_with("redis "))
        .map(|line| format!("{line}\n"))
        .collect();
    let (config, _) = taken(&[], &[], &file);
    assert!(config.memory && config.ping.is_none());
}
