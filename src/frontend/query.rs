//! The parameters of query strings: what each path takes is declared here, and nowhere else.
//!
//! A parameter that its path doesn't know is refused, as JSON frames refuse an unknown member: a
//! misspelt `from` would otherwise answer with everything. A parameter without a value counts as
//! absent, because a page that has no ID yet writes `?from=`.
//!
//! Three kinds of path look at no name but those they know. The query string of Socket.IO carries
//! members of the application's own. SockJS clients add a time against caches. Pages and their files
//! are opened through links, to which others add what tells them where a visitor came from.

use axum::extract::Query;
use axum::http::Uri;
use percent_encoding::percent_decode_str;
use serde::de::DeserializeOwned;

use super::ApiError;

/// What every path takes: who is asking. [`crate::auth::Credentials`] reads them.
const EVERYWHERE: [&str; 2] = ["token", "user"];

/// So much of an unknown parameter's name is repeated to its sender, in characters.
const NAME_SHOWN: usize = 64;

/// Declares the parameters of a kind of request: a struct, a field for each, and how a URL is read.
macro_rules! parameters {
    ($(#[$about:meta])* $kind:ident { $($(#[$doc:meta])* $field:ident: $name:literal,)* }) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub(crate) struct $kind { $($(#[$doc])* pub(crate) $field: Option<String>,)* }

        impl $kind {
            /// Their names.
            const NAMES: &'static [&'static str] = &[$($name),*];

            /// Reads a URL's query string.
            pub(crate) fn of(uri: &Uri) -> Result<Self, ApiError> {
                let mut read = Self::default();
                for (name, value) in pairs(uri)? {
                    let field = match name.as_str() {
                        $($name => &mut read.$field,)*
                        name if is_known(uri, name) => continue,
                        name => return Err(unknown(name, Self::NAMES)),
                    };
                    put(field, &name, value)?;
                }
                Ok(read)
            }
        }
    };
}

parameters! {
    /// A socket in the room that its path names.
    SocketQuery {
        /// Where to begin.
        from: "from",
        /// `raw` or `json`.
        format: "format",
        /// What a raw socket's frames are: `auto`, `text` or `binary`.
        frames: "frames",
        /// Whether to be told who is here: `1`.
        presence: "presence",
        /// Whether a user's own room comes, too: `1` from now on, `0` not at all, or where to begin.
        inbox: "inbox",
    }
}

parameters! {
    /// A socket at `/`, which may name its room.
    RootQuery {
        /// The room.
        room: "room",
        /// Another name for `room`.
        roomid: "roomid",
        /// As in [`SocketQuery`].
        from: "from",
        /// The same.
        format: "format",
        /// The same.
        frames: "frames",
        /// The same.
        presence: "presence",
        /// The same.
        inbox: "inbox",
    }
}

parameters! {
    /// Server-sent events.
    EventsQuery {
        /// Where to begin.
        from: "from",
        /// `raw` or `json`.
        format: "format",
        /// Whether to be told who is here: `1`.
        presence: "presence",
        /// Where to resume, for clients that can't set a header.
        last_event_id: "last_event_id",
        /// The same, as `event-source-polyfill` adds it by itself when it reconnects.
        last_event_id_of_polyfill: "lastEventId",
    }
}

parameters! {
    /// A page of history.
    HistoryQuery {
        /// Where to begin, as sockets say it.
        from: "from",
        /// Only what follows this ID.
        after: "after",
        /// Only what precedes this ID.
        before: "before",
        /// Most entries.
        limit: "limit",
        /// `asc` or `desc`.
        order: "order",
    }
}

parameters! {
    /// A page of the rooms.
    RoomsQuery {
        /// About so many of them.
        limit: "limit",
        /// The `next` of the page before.
        cursor: "cursor",
    }
}

parameters! {
    /// Who is in a room.
    PresenceQuery {
        /// Most of them.
        limit: "limit",
    }
}

parameters! {
    /// All rooms at once.
    HomepageQuery {
        /// `1` for what a list of rooms shows, and no more.
        summary: "summary",
    }
}

parameters! {
    /// Who asks.
    MeQuery {
        /// The room in which they'd like to know what they may do.
        room: "room",
    }
}

parameters! {
    /// The numbers of the status page.
    StatusQuery {
        /// `drain`: to be answered once the node drains.
        until: "until",
    }
}

/// What Socket.IO's clients put into their URL, as far as it's ours. It carries members of the
/// application's own beside that.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct SocketioQuery {
    /// The version of Engine.IO.
    pub(crate) version: Option<String>,
    /// `polling` or `websocket`.
    pub(crate) transport: Option<String>,
    /// The session.
    pub(crate) sid: Option<String>,
    /// The room, for clients that don't say it in `auth`.
    pub(crate) room: Option<String>,
    /// Another name for `room`.
    pub(crate) roomid: Option<String>,
    /// As in [`SocketQuery`].
    pub(crate) from: Option<String>,
    /// The same.
    pub(crate) presence: Option<String>,
    /// The same.
    pub(crate) inbox: Option<String>,
}

impl SocketioQuery {
    /// Reads a URL's query string.
    pub(crate) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let mut read = Self::default();
        for (name, value) in pairs(uri)? {
            let field = match name.as_str() {
                "EIO" => &mut read.version,
                "transport" => &mut read.transport,
                // The reference server knows no session of that name.
                "sid" if value.is_empty() => {
                    read.sid = Some(value);
                    continue;
                }
                "sid" => &mut read.sid,
                "room" => &mut read.room,
                "roomid" => &mut read.roomid,
                "from" => &mut read.from,
                "presence" => &mut read.presence,
                "inbox" => &mut read.inbox,
                _ => continue,
            };
            put(field, &name, value)?;
        }
        Ok(read)
    }
}

impl RootQuery {
    /// The room's name, if there is one, and the rest.
    pub(crate) fn split(self) -> (Option<String>, SocketQuery) {
        let rest = SocketQuery {
            from: self.from,
            format: self.format,
            frames: self.frames,
            presence: self.presence,
            inbox: self.inbox,
        };
        (self.room.or(self.roomid), rest)
    }
}

/// Checks that a request brings no parameter but those of every path.
pub(crate) fn check_none(uri: &Uri) -> Result<(), ApiError> {
    for (name, _) in pairs(uri)? {
        if !is_known(uri, &name) {
            return Err(unknown(&name, &[]));
        }
    }
    Ok(())
}

/// Whether a parameter is one that every path takes, or every path of its kind.
fn is_known(uri: &Uri, name: &str) -> bool {
    EVERYWHERE.contains(&name) || (name == "room" && names_room_beside(uri))
}

/// Whether the path is `/rooms/-` or below it, where the parameter `room` may name the room.
fn names_room_beside(uri: &Uri) -> bool {
    let mut segments = uri.path().split('/');
    segments.any(|segment| segment == "rooms") && segments.next() == Some("-")
}

/// The room that the parameter `room` names, if the path leaves it to that. An empty one is a name, too, and
/// refused as such: taken for absent, what was meant for another room would go to the one called `-`.
pub(crate) fn room_beside_path(uri: &Uri) -> Result<Option<String>, ApiError> {
    if !names_room_beside(uri) {
        return Ok(None);
    }
    let mut rooms = pairs(uri)?.into_iter().filter(|(name, _)| name == "room");
    match (rooms.next(), rooms.next()) {
        (Some(_), Some(_)) => Err(twice("room")),
        (room, _) => Ok(room.map(|(_, value)| value)),
    }
}

/// Reads a form, which is written as a query string is. Its buttons may have names, too, so that an
/// unknown one is left alone.
pub(crate) fn form<T: DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    check_utf8(uri)?;
    Query::try_from_uri(uri)
        .map(|query| query.0)
        .map_err(|error| ApiError::bad_request(error.body_text()))
}

/// The names and values of a query string, as forms and `URLSearchParams` write them.
fn pairs(uri: &Uri) -> Result<Vec<(String, String)>, ApiError> {
    form(uri)
}

/// What reads a query string would put U+FFFD for what is not UTF-8, and so find another room.
fn check_utf8(uri: &Uri) -> Result<(), ApiError> {
    let query = percent_decode_str(uri.query().unwrap_or_default());
    match query.decode_utf8() {
        Ok(_) => Ok(()),
        Err(_) => Err(ApiError::bad_request(
            "a query string is UTF-8, percent-encoded",
        )),
    }
}

fn put(field: &mut Option<String>, name: &str, value: String) -> Result<(), ApiError> {
    if value.is_empty() {
        return Ok(());
    }
    match field.replace(value) {
        None => Ok(()),
        Some(_) => Err(twice(name)),
    }
}

fn twice(name: &str) -> ApiError {
    ApiError::bad_request(format!("the parameter {name} is there twice; send it once"))
}

fn unknown(name: &str, names: &[&str]) -> ApiError {
    let mut shown: String = name.chars().take(NAME_SHOWN).collect();
    if shown.len() < name.len() {
        shown.push('…');
    }
    let there_are = match names {
        [] => "it takes none".to_owned(),
        names => format!("it takes {}", names.join(", ")),
    };
    let everywhere = EVERYWHERE.join(" and ");
    ApiError::bad_request(format!(
        "this request has no parameter {shown:?}; {there_are} (besides {everywhere}, which every path takes)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uri(query: &str) -> Uri {
        format!("/rooms/r?{query}").parse().unwrap()
    }

    #[test]
    fn what_is_declared_is_read() {
        let read = HistoryQuery::of(&uri("from=last%3A5&&limit=&token=x&user=ann&order=asc+x"));
        let want = HistoryQuery {
            from: Some("last:5".into()),
            order: Some("asc x".into()),
            ..HistoryQuery::default()
        };
        assert_eq!(read.unwrap(), want);
        assert_eq!(check_none(&uri("token=x&token=y")), Ok(()));
        let (room, rest) = RootQuery::of(&uri("roomid=a%20b&format=raw"))
            .unwrap()
            .split();
        assert_eq!(room.as_deref(), Some("a b"));
        assert_eq!(rest.format.as_deref(), Some("raw"));
    }

    #[test]
    fn what_is_not_is_refused_by_name() {
        let check = |query: &str, parts: &[&str]| {
            let error = HistoryQuery::of(&uri(query)).unwrap_err();
            assert_eq!((error.status.as_u16(), error.code), (400, "bad_request"));
            for part in parts {
                assert!(error.message.contains(part), "{query}: {error}");
            }
        };
        check("form=last:2", &["\"form\"", "from, after, before, limit"]);
        check("From=", &["\"From\""]);
        check("limit=1&limit=2", &["limit is there twice"]);
        check("x%0Ay=1", &["\"x\\ny\""]);
        check(&"x".repeat(1_000), &["xx…\""]);
        check("from=%ff", &["UTF-8"]);
        let error = check_none(&uri("a=b")).unwrap_err();
        assert!(error.message.contains("it takes none"), "{error}");
    }

    #[test]
    fn socketio_leaves_an_application_its_own() {
        let read = SocketioQuery::of(&uri("EIO=4&transport=polling&t=abc&username=ann&from="));
        let read = read.unwrap();
        assert_eq!(read.version.as_deref(), Some("4"));
        assert_eq!((read.from, read.sid), (None, None));
        let read = SocketioQuery::of(&uri("EIO=4&sid=")).unwrap();
        assert_eq!(read.sid.as_deref(), Some(""));
    }
}
