//! The table of settings: each row is a flag, an environment variable, a key of the file, a default
//! and a help text at once.

use super::{auth, value};

/// What every environment variable of ours begins with.
pub const PREFIX: &str = "TAILCAST_";

/// What a setting's text means, and the least it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// On or off.
    Switch,
    /// Any text that its own reader takes; the text names it in the help.
    Text(&'static str),
    /// Texts between commas; the flag may be given several times.
    List(&'static str),
    /// One of the words between the bars.
    Choice(&'static str),
    /// A whole number of at least so many.
    Count(u64),
    /// Bytes, at least so many.
    Size(u64),
    /// A time of at least so many milliseconds.
    Time(u64),
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Name of the flag and of the key in the file.
    pub name: &'static str,
    /// What holds if nobody says anything.
    pub default: &'static str,
    /// One line for `--help`.
    pub help: &'static str,
    /// What its text means.
    pub kind: Kind,
}

impl Setting {
    /// Its environment variable.
    pub fn variable(&self) -> String {
        let mut name = String::from(PREFIX);
        name.extend(self.name.chars().map(|c| match c {
            '-' => '_',
            other => other.to_ascii_uppercase(),
        }));
        name
    }

    /// How its value is called in the help.
    pub fn value_name(&self) -> &'static str {
        match self.kind {
            Kind::Switch => "true|false",
            Kind::Text(name) | Kind::List(name) | Kind::Choice(name) => name,
            Kind::Count(_) => "N",
            Kind::Size(_) => "SIZE",
            Kind::Time(_) => "TIME",
        }
    }

    /// The text as it may be printed.
    pub fn printable(&self, text: &str) -> String {
        match self.name {
            "redis" | "jwks" => value::mask(text),
            "jwt-secret" => auth::mask_secret(text),
            "api-key" => auth::mask_api_keys(text),
            _ => text.to_owned(),
        }
    }
}

const fn row(name: &'static str, default: &'static str, kind: Kind, help: &'static str) -> Setting {
    Setting {
        name,
        default,
        help,
        kind,
    }
}

/// Every setting, in the order of the help.
#[rustfmt::skip]
pub static SETTINGS: &[Setting] = &[
    row("listen", "127.0.0.1:8080", Kind::List("ADDRESS:PORT,…"), "Where to take connections; port 0 lets the system pick"),
    row("advertise", "", Kind::Text("HOST:PORT"), "Where other nodes reach this one, to pass requests of its sessions on; if empty, its first --listen"),
    row("node-name", "", Kind::Text("NAME"), "What operators call this node, in /nodes, /status and the log; if empty, its host's name and the port of its first --listen"),
    row("redis", "redis://127.0.0.1:6379", Kind::Text("URL"), "The Redis server: redis://, rediss:// (TLS) or unix://, with user, password and database"),
    row("memory", "false", Kind::Switch, "Run one node without Redis; nothing is kept"),
    row("data-dir", "~/.local/share/tailcast", Kind::Text("DIR"), "Where a redis-server started by tailcast keeps its data; the default follows $XDG_DATA_HOME"),
    row("key-prefix", "", Kind::Text("TEXT"), "Put before a room's name to make its key in Redis"),
    row("default-room", "mystream", Kind::Text("ROOM"), "Room of sockets that name none"),
    row("keep", "10000", Kind::Count(0), "Entries kept per room, about; 0 keeps all"),
    row("keep-for", "0", Kind::Time(0), "Keep entries this long, instead of --keep; 0 is off"),
    row("expire-after", "0", Kind::Time(0), "Delete rooms that nobody published to for this long; 0 is never"),
    row("durability", "fast", Kind::Choice("fast|replicated"), "When a publish is acknowledged: once Redis has it, or once its replicas have it too"),
    row("replicas", "1", Kind::Count(1), "Replicas that must have an entry, with --durability replicated"),
    row("replicate-timeout", "1s", Kind::Time(1), "How long to wait for them"),
    row("tail", "auto", Kind::Choice("auto|block|track"), "How rooms are followed: blocking reads, client tracking, or the best of both"),
    row("tail-connections", "64", Kind::Count(0), "Rooms with a blocking read of their own; the rest share one connection"),
    row("publish-timeout", "5s", Kind::Time(1), "How long a publish waits while Redis is away"),
    row("publish-queue", "10000", Kind::Count(1), "Publishes that may wait at a time"),
    row("publish-queue-bytes", "16MiB", Kind::Size(1), "Bytes of publishes that may wait at a time"),
    row("idempotency-window", "5m", Kind::Time(1), "How long repeats of an idempotency key are stored once"),
    row("window-entries", "1000", Kind::Count(1), "Recent entries per room held in memory"),
    row("window-bytes", "1MiB", Kind::Size(1), "Bytes of recent entries per room held in memory"),
    row("window-total", "256MiB", Kind::Size(1), "The same for all rooms together"),
    row("linger", "30s", Kind::Time(0), "How long a room is followed once its last subscriber left"),
    row("slow-timeout", "60s", Kind::Time(0), "Close a socket whose pending write got nowhere for this long; 0 is never"),
    row("max-frame", "64KiB", Kind::Size(1), "Largest frame or request body taken in"),
    row("max-fields", "64", Kind::Count(1), "Most fields in a published entry"),
    row("max-rooms", "128", Kind::Count(1), "Most rooms a socket may be in"),
    row("max-sockets", "0", Kind::Count(0), "Most sockets at a time; 0 goes by the open-file limit"),
    row("max-in-flight", "64", Kind::Count(1), "Publishes of one socket on their way at a time"),
    row("frame-rate", "1000", Kind::Count(0), "Frames per second that are read from a client; what comes faster waits; 0 is no limit"),
    row("rate", "member=20/30s,viewer=20/30s,moderator=100/30s", Kind::List("ROLE=N/TIME,…"), "How often a user may publish in a room, by role, and room=N/TIME for all of a room together; hosts and co-hosts have no part in that"),
    row("presence-limit", "500", Kind::Count(1), "With more users than this in a room, only their number is told"),
    row("raw-inbox", "false", Kind::Switch, "Give raw sockets what is sent to their user, without ?inbox=1"),
    row("homepage-rooms", "200", Kind::Count(0), "Rooms in GET /homepage_json, those that were active last; 0 turns it off"),
    row("notices", "false", Kind::Switch, "Put an entry into a room when a user joins or leaves it: event=join|leave, user"),
    row("handshake-timeout", "5s", Kind::Time(1), "How long a connection may take to its first byte, and a request's headers from theirs"),
    row("keep-alive-timeout", "90s", Kind::Time(1), "How long an HTTP connection may rest between two requests; longer than a balancer in front keeps it, which is 60s to 75s mostly"),
    row("max-header-size", "16KiB", Kind::Size(1024), "Largest request line and headers taken in, together"),
    row("max-headers", "100", Kind::Count(1), "Most headers of a request"),
    row("idle-timeout", "0", Kind::Time(0), "Close sockets that sent nothing for this long; 0 is never"),
    row("ping", "25s", Kind::Time(0), "Ping sockets this often; 0 is never"),
    row("pong", "10s", Kind::Time(1), "How long a socket may take to answer a ping"),
    row("socketio-path", "/socket.io", Kind::Text("PATH"), "Where Socket.IO clients come in"),
    row("socketio-ping-interval", "25s", Kind::Time(1), "Ping Socket.IO clients this often"),
    row("socketio-ping-timeout", "20s", Kind::Time(1), "How long they may take to answer, and how long one that polls may ask for nothing"),
    row("socketio-max-payload", "1MiB", Kind::Size(1024), "Largest message or request body taken from them"),
    row("allowed-origins", "", Kind::List("ORIGIN,…"), "Web pages' origins that may connect: as in https://app.example, or same-host, or null or file:// (pages in a sandbox, or from a file), or * for any; if empty, same-host"),
    row("auth", "none", Kind::Choice("none|jwt|cookie"), "Whom to believe: anybody, who has a token, or, unchecked, whom the cookie --token-cookie names"),
    row("insecure", "false", Kind::Switch, "Listen where others can come in, even with --auth none or cookie"),
    row("jwt-secret", "", Kind::Text("SECRET|@FILE"), "Secret that tokens are signed with (HS256, HS384, HS512); 32 bytes or more"),
    row("jwt-public-key", "", Kind::Text("FILE"), "Public key (RSA, P-256, P-384, Ed25519; PEM) that tokens are checked with"),
    row("jwks", "", Kind::Text("FILE|URL"), "Public keys that tokens are checked with, as a JWKS"),
    row("audience", "", Kind::Text("TEXT"), "Whom tokens must be for (aud)"),
    row("issuer", "", Kind::Text("TEXT"), "Who must have made the tokens (iss)"),
    row("accounts", "false", Kind::Switch, "Let people register and log in here; without --auth and --jwt-secret it sets up both by itself"),
    row("account-host", "", Kind::List("USER,…"), "Accounts that are host in every room"),
    row("token-cookie", "token", Kind::Text("NAME"), "Cookie with a token, or with --auth cookie the user's name"),
    row("api-key", "", Kind::List("NAME:KEY,…"), "Keys of back ends, which may do anything; 16 bytes or more"),
    row("role", "", Kind::List("ROLE=RIGHTS,…"), "What a role may, as in viewer=subscribe+history; of subscribe, publish, history, presence, moderate, announce"),
    row("default-role", "", Kind::List("PATTERN=ROLE,…"), "Role in rooms that a token does not name, as in lobby-*=viewer"),
    row("anonymous-role", "", Kind::List("PATTERN=ROLE,…"), "Role of those without a token; if empty, they may not come in"),
    row("drain-timeout", "30s", Kind::Time(0), "How long a drain may take"),
    row("history-limit", "1000", Kind::Count(1), "Most entries in a page of history"),
    row("sse-heartbeat", "15s", Kind::Time(0), "Comment line on quiet event streams this often; 0 is never"),
    row("ops-listen", "", Kind::List("ADDRESS:PORT,…"), "Where /metrics and /status are, instead of at --listen; they stay there while the node drains"),
    row("stomp-listen", "", Kind::List("ADDRESS:PORT,…"), "Where to take STOMP connections over bare TCP, as in 127.0.0.1:61613; if empty, nowhere"),
    row("stomp-max-frame", "4MiB", Kind::Size(1), "Largest STOMP frame taken in, once its client has logged in"),
    row("stomp-alias", "/app/chat.sendMessage=/topic/public,/app/chat.addUser=enter:/topic/public", Kind::List("DESTINATION=DESTINATION,…"), "STOMP destinations of applications' own and what they stand for; enter: marks one whose senders are said to LEAVE when their connection ends"),
    row("sockjs-client", "", Kind::Text("URL"), "Where the iframe page of SockJS, which browsers of before 2012 need, loads the client library from; if empty, there is no such page"),
    row("sockjs-cookie", "false", Kind::Switch, "Give SockJS sessions a cookie JSESSIONID, for balancers that keep sessions on their nodes by it"),
    row("log", "info", Kind::Text("FILTER"), "What to log: error, warn, info, debug, trace, or a filter such as info,tailcast::store=debug"),
    row("log-format", "text", Kind::Choice("text|json"), "How log lines look"),
];

/// The setting of that name.
pub fn setting(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// The setting whose name is nearest to a mistyped one, if any is near.
pub fn nearest(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('_', "-");
    SETTINGS
        .iter()
        .map(|setting| (edits(&name, setting.name), setting.name))
        .min()
        .filter(|(edits, near)| *edits <= 1 + near.len() / 4)
        .map(|(_, near)| near)
}

/// Letters to change, add or leave out to make one word the other (Levenshtein).
fn edits(one: &str, other: &str) -> usize {
    let mut costs: Vec<usize> = (0..=other.len()).collect();
    for (row, left) in one.bytes().enumerate() {
        let mut diagonal = costs[0];
        costs[0] = row + 1;
        for (column, right) in other.bytes().enumerate() {
            let change = diagonal + usize::from(left != right);
            diagonal = costs[column + 1];
            costs[column + 1] = change.min(diagonal + 1).min(costs[column] + 1);
        }
    }
    costs[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions() {
        for (typo, want) in [
            ("keep_for", Some("keep-for")),
            ("lisen", Some("listen")),
            ("max-socket", Some("max-sockets")),
            ("LOG", Some("log")),
            ("frobnicate", None),
        ] {
            assert_eq!(nearest(typo), want, "{typo}");
        }
    }

    #[test]
    fn names_are_unique() {
        for (index, one) in SETTINGS.iter().enumerate() {
            assert!(
                SETTINGS[index + 1..]
                    .iter()
                    .all(|other| other.name != one.name)
            );
        }
    }
}
