//! Server-sent events: one room, one way.
//!
//! An entry's event has its ID as `id:`, so a browser resumes by itself. Its `data:` is the entry as
//! JSON or, with `format=raw`, its message: one `data:` line per line of it, and `event: base64` with
//! the message in base64 if it's not UTF-8. (Of a message's line ends, SSE keeps only that there was
//! one: `\r\n` and `\r` come out as `\n`.) A gap is `event: gap`, without an ID.
//!
//! Before anything else comes `event: joined`, with the ID that the stream goes on from. A client that
//! loses its connection before the first entry resumes from there and misses nothing. The event has
//! data because most clients forget the ID of an event without data, though the standard has them
//! keep it. It has a name of its own because listeners for messages are not to get it.
//!
//! A blank line follows only on an event with data, as some clients make an event of every blank
//! line. So `retry:` and comments are lines by themselves.
//!
//! If the connection ends by our doing, the last event is `event: error` with a code and a message;
//! in a drain it's a new `retry:`, so that clients come back spread out.
//!
//! The body goes past hyper. It is in chunks for clients of HTTP/1.1, because many of them read a
//! body without chunks in blocks of some size and hold back what doesn't fill one. A frame has its
//! chunk around it when it's encoded, once for all clients, so that the fan-out writes it as it is.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::request::Parts;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::debug;

use super::origin::Credentialed;
use super::query::EventsQuery;
use super::takeover::{Framing, LAST_CHUNK, chunk};
use super::{ApiError, FrontendState, Run, Socket, Taken, is_on, json};
use crate::auth::{AuthError, Identity, Right};
use crate::drain::retry_ms;
use crate::metrics::Kind;
use crate::people::session::Join;
use crate::relay::aside::Aside;
use crate::relay::close::CloseReason;
use crate::relay::connection::{Began, NotJoined};
use crate::relay::entry::{Entry, RoomName};
use crate::relay::format::{Format, Gap, GapFrame};
use crate::relay::log::LogError;
use crate::relay::position::{Position, PositionError};

/// Comes first. Two seconds: less than a person waits, more than a node takes to restart. It is a part of
/// the event that follows.
const PREFACE: &[u8] = b"retry: 2000\n";

/// A comment.
const HEARTBEAT: &[u8] = b":\n";

/// Whatever the settings say: more often is only noise, and never is not an interval.
const MIN_HEARTBEAT: Duration = Duration::from_secs(1);

/// A client has nothing to say here. One that goes on all the same is cut off.
const MAX_IDLE_TALK: usize = 4096;

/// One format of events, in both framings.
struct Events {
    plain: Format,
    chunked: Format,
}

static JSON: Events = Events {
    plain: json_format::<PLAIN>(2),
    chunked: json_format::<CHUNKED>(11),
};

static RAW: Events = Events {
    plain: raw_format::<PLAIN>(3),
    chunked: raw_format::<CHUNKED>(12),
};

const PLAIN: bool = false;
const CHUNKED: bool = true;

const fn json_format<const IN_CHUNKS: bool>(slot: u8) -> Format {
    Format {
        slot,
        entry: |room, entry| framed::<IN_CHUNKS>(json_event(room, entry)),
        gap: |room, gap| GapFrame::Frame(framed::<IN_CHUNKS>(gap_event(room, gap))),
        aside: |aside| Some(framed::<IN_CHUNKS>(aside_event(aside))),
        close: closing::<IN_CHUNKS>,
    }
}

const fn raw_format<const IN_CHUNKS: bool>(slot: u8) -> Format {
    Format {
        slot,
        entry: |room, entry| framed::<IN_CHUNKS>(raw_event(room, entry)),
        gap: |room, gap| GapFrame::Frame(framed::<IN_CHUNKS>(gap_event(room, gap))),
        aside: |_| None,
        close: closing::<IN_CHUNKS>,
    }
}

fn framed<const IN_CHUNKS: bool>(event: Vec<u8>) -> Bytes {
    match IN_CHUNKS {
        true => chunk(&event),
        false => event.into(),
    }
}

/// The last event, and the end of the body. A client that is gone gets neither.
fn closing<const IN_CHUNKS: bool>(reason: &CloseReason) -> Bytes {
    let event = close_event(reason);
    if event.is_empty() || !IN_CHUNKS {
        return event.into();
    }
    [&chunk(&event), LAST_CHUNK].concat().into()
}

impl Events {
    fn in_framing(&'static self, framing: Framing) -> &'static Format {
        match framing {
            Framing::Chunked => &self.chunked,
            Framing::ToTheEnd => &self.plain,
        }
    }
}

/// Accepts a request for events: what to answer, and what to run then.
pub(super) fn accept(
    state: Arc<FrontendState>,
    parts: &Parts,
    query: &EventsQuery,
    room: RoomName,
    identity: Identity,
) -> Result<(Bytes, Run), ApiError> {
    let headers = &parts.headers;
    let from = position(headers, query)?;
    let presence = is_on(query.presence.as_deref(), "presence")?;
    if from != Position::Now {
        state.people.may_now(&identity, &room, Right::History)?;
    }
    let events = match query.format.as_deref() {
        None | Some("json") => &JSON,
        Some("raw") => &RAW,
        Some(_) => return Err(ApiError::bad_request("format is raw or json")),
    };
    let framing = Framing::of(parts);
    // In both framings the connection closes after the body.
    let mut head = b"HTTP/1.1 200 OK\r\n\
        content-type: text/event-stream\r\n\
        cache-control: no-cache\r\n\
        x-accel-buffering: no\r\n\
        connection: close\r\n\
        vary: accept\r\n"
        .to_vec();
    if framing == Framing::Chunked {
        head.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    let mut cors = HeaderMap::new();
    let origins = &state.settings.allowed_origins;
    origins.mark(headers, Credentialed::Known, &mut cors);
    for (name, value) in &cors {
        head.extend_from_slice(format!("{name}: ").as_bytes());
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    let join = Join {
        from,
        presence,
        is_home: true,
    };
    let run: Run =
        Box::new(move |taken| serve(state, room, identity, join, events, framing, taken).boxed());
    Ok((head.into(), run))
}

/// The newest ID a client knows goes before the URL, which stays as it was at its first connection. Of the
/// parameters, `lastEventId` is what a polyfill adds by itself, so it's newer than the other.
fn position(headers: &HeaderMap, query: &EventsQuery) -> Result<Position, ApiError> {
    let header = match headers.get("last-event-id") {
        Some(value) => Some(value.to_str().map_err(|_| bad_event_id())?),
        None => None,
    };
    let resume = header
        .filter(|id| !id.is_empty())
        .or(query.last_event_id_of_polyfill.as_deref())
        .or(query.last_event_id.as_deref());
    match (resume, query.from.as_deref()) {
        (Some(id), _) => id.parse().map(Position::After).map_err(|_| bad_event_id()),
        (None, Some(from)) => from
            .parse()
            .map_err(|error: PositionError| ApiError::bad_request(error.to_string())),
        (None, None) => Ok(Position::Now),
    }
}

fn bad_event_id() -> ApiError {
    ApiError::bad_request("Last-Event-ID is an entry ID, as in 1700000000000-0")
}

async fn serve(
    state: Arc<FrontendState>,
    room: RoomName,
    identity: Identity,
    join: Join,
    events: &'static Events,
    framing: Framing,
    taken: Taken,
) {
    let Taken { socket, peer, .. } = taken;
    debug!(%room, ?peer, "events begin");
    let _open = state.metrics.opened(Kind::Sse);
    let drain = state.drain.register();
    let format = events.in_framing(framing);
    let connection = state.relay().connect(socket.wire(), format);
    let outlet = connection.outlet().clone();
    let expires = identity.expires();
    let mut session = state.people.session(connection, identity);
    outlet.send(framing.frame(PREFACE));
    let in_room = room.clone();

    let (joined, mut failed) = oneshot::channel();
    let begun = session.join(
        room.clone(),
        join,
        Box::new(move |result| match result {
            Ok(began) => Some(framing.frame(&joined_event(&in_room, join.from, &began))),
            Err(error) => {
                let _ = joined.send(error);
                None
            }
        }),
    );
    if let Err(error) = begun {
        outlet.close(CloseReason::Forbidden(error.to_string().into()));
    }

    let reason = {
        let mut closed = std::pin::pin!(outlet.closed());
        let mut ended = std::pin::pin!(until_end(&socket));
        let mut told = std::pin::pin!(drain.told());
        let mut expired = until(expires).boxed();
        let mut has_expired = false;
        let mut join_known = false;
        let mut draining = false;
        let mut heartbeat = interval(state.settings.sse_heartbeat.max(MIN_HEARTBEAT));
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        heartbeat.reset();
        loop {
            tokio::select! {
                reason = &mut closed => break reason,
                () = &mut ended => break CloseReason::Gone,
                _ = &mut told, if !draining => {
                    draining = true;
                    outlet.close(CloseReason::Drain);
                }
                error = &mut failed, if !join_known => {
                    join_known = true;
                    if let Ok(error) = error {
                        outlet.close(join_failed(&error));
                    }
                }
                () = &mut expired, if !has_expired => {
                    has_expired = true;
                    outlet.close(CloseReason::Unauthenticated(AuthError::Expired.to_string().into()));
                }
                _ = heartbeat.tick() => outlet.send(framing.frame(HEARTBEAT)),
            }
        }
    };
    state.metrics.closed(reason.code());
    debug!(%room, ?peer, ?reason, "events end");
    socket.shutdown(Shutdown::Write);
}

async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// Reads, and forgets, until the client is gone.
async fn until_end(socket: &Socket) {
    let mut heard = 0;
    while heard <= MAX_IDLE_TALK && socket.readable().await.is_ok() {
        // Small, because it's part of every connection's memory.
        let mut buffer = [0; 64];
        match socket.try_read(&mut buffer) {
            Ok(0) => return,
            Ok(count) => heard += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

fn join_failed(error: &NotJoined) -> CloseReason {
    match error {
        NotJoined::Barred(barred) => CloseReason::Forbidden(barred.to_string().into()),
        NotJoined::Log(LogError::WrongType) => CloseReason::BadRequest(error.to_string().into()),
        NotJoined::Log(_) => CloseReason::Internal(error.to_string().into()),
    }
}

/// Where the stream goes on from. `start` is asked for again, as its ID would tell what was trimmed long
/// ago as a gap. Where a gap is told first, its ID is not there yet: the client might go away in between.
fn joined_event(room: &RoomName, from: Position, began: &Began) -> Vec<u8> {
    let mut out = b"event: joined\n".to_vec();
    if from != Position::Start && began.gap.is_none() {
        out.extend_from_slice(format!("id: {}\n", began.head).as_bytes());
    }
    out.extend_from_slice(b"data: {\"room\":");
    json::value(&mut out, room.as_str());
    out.extend_from_slice(format!(",\"head\":\"{}\"}}\n\n", began.head).as_bytes());
    out
}

fn json_event(room: &RoomName, entry: &Entry) -> Vec<u8> {
    let json = json::entry_json(room, entry, false);
    let mut out = Vec::with_capacity(json.len() + 64);
    out.extend_from_slice(format!("id: {}\ndata: ", entry.id).as_bytes());
    out.extend_from_slice(&json);
    out.extend_from_slice(b"\n\n");
    out
}

fn aside_event(aside: &Aside) -> Vec<u8> {
    let mut out = Vec::with_capacity(aside.json().len() + 64);
    out.extend_from_slice(format!("event: {}\ndata: ", aside.kind).as_bytes());
    out.extend_from_slice(aside.json());
    out.extend_from_slice(b"\n\n");
    out
}

fn raw_event(_room: &RoomName, entry: &Entry) -> Vec<u8> {
    let message = entry.message();
    let mut out = Vec::with_capacity(message.len() + 64);
    out.extend_from_slice(format!("id: {}\n", entry.id).as_bytes());
    match std::str::from_utf8(message) {
        Ok(text) => data_lines(&mut out, text),
        Err(_) => {
            out.extend_from_slice(b"event: base64\n");
            data_lines(&mut out, &STANDARD.encode(message));
        }
    }
    out.push(b'\n');
    out
}

/// `data:` lines. Every line end must be one here too, or what follows it would be read as a field.
fn data_lines(out: &mut Vec<u8>, text: &str) {
    let mut rest = text;
    loop {
        let end = rest.find(['\r', '\n']);
        let (line, next) = match end {
            None => (rest, None),
            Some(at) if rest[at..].starts_with("\r\n") => (&rest[..at], Some(&rest[at + 2..])),
            Some(at) => (&rest[..at], Some(&rest[at + 1..])),
        };
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(line.as_bytes());
        out.push(b'\n');
        match next {
            Some(next) => rest = next,
            None => return,
        }
    }
}

fn gap_event(room: &RoomName, gap: &Gap) -> Vec<u8> {
    let mut out = b"event: gap\ndata: ".to_vec();
    out.extend_from_slice(&json::gap_json(room, gap, false));
    out.extend_from_slice(b"\n\n");
    out
}

fn close_event(reason: &CloseReason) -> Vec<u8> {
    match reason {
        CloseReason::Gone => return Vec::new(),
        CloseReason::Drain => return format!("retry: {}\n", retry_ms()).into(),
        _ => {}
    }
    let error = serde_json::json!({"code": reason.word(), "message": reason.text()});
    format!("event: error\ndata: {error}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::entry::EntryId;
    use crate::relay::format::GapReason;

    fn entry(message: &[u8]) -> Entry {
        let fields = vec![(Bytes::from("message"), Bytes::copy_from_slice(message))];
        Entry::new(EntryId::new(5, 1), fields)
    }

    fn check_raw(message: &[u8], want: &str) {
        let room = RoomName::parse("r").unwrap();
        assert_eq!(raw_event(&room, &entry(message)), want.as_bytes());
    }

    #[test]
    fn raw_events() {
        check_raw(b"hi", "id: 5-1\ndata: hi\n\n");
        check_raw(b"", "id: 5-1\ndata: \n\n");
        check_raw(
            b"a\nb\r\nc\rd\n",
            "id: 5-1\ndata: a\ndata: b\ndata: c\ndata: d\ndata: \n\n",
        );
        check_raw(b"\n\nid: 9-9", "id: 5-1\ndata: \ndata: \ndata: id: 9-9\n\n");
        check_raw(b"\xff", "id: 5-1\nevent: base64\ndata: /w==\n\n");
    }

    #[test]
    fn json_events() {
        let room = RoomName::parse("r").unwrap();
        assert_eq!(
            json_event(&room, &entry(b"a\nb")),
            b"id: 5-1\ndata: {\"room\":\"r\",\"id\":\"5-1\",\"fields\":{\"message\":\"a\\nb\"}}\n\n"
        );
        let gap = Gap {
            after: EntryId::new(1, 0),
            before: EntryId::new(5, 1),
            reason: GapReason::Deleted,
        };
        assert_eq!(
            gap_event(&room, &gap),
            b"event: gap\ndata: {\"room\":\"r\",\"after\":\"1-0\",\"before\":\"5-1\",\"reason\":\"deleted\"}\n\n"
        );
    }

    #[test]
    fn last_events() {
        assert!(close_event(&CloseReason::Gone).is_empty());
        let drain = String::from_utf8(close_event(&CloseReason::Drain)).unwrap();
        assert!(drain.starts_with("retry: ") && drain.ends_with('\n'));
        assert!(!drain.ends_with("\n\n"), "a blank line makes an event");
        assert_eq!(
            close_event(&CloseReason::BadRequest("no \"such\" thing".into())),
            b"event: error\ndata: {\"code\":\"bad_request\",\"message\":\"no \\\"such\\\" thing\"}\n\n"
        );
    }

    #[test]
    fn what_was_joined() {
        let room = RoomName::parse("a\"b").unwrap();
        let check = |from: Position, gap: Option<Gap>, id: &str| {
            let head = EntryId::new(5, 1);
            let began = Began {
                head,
                gap,
                is_whole: true,
            };
            let want =
                format!("event: joined\n{id}data: {{\"room\":\"a\\\"b\",\"head\":\"5-1\"}}\n\n");
            assert_eq!(joined_event(&room, from, &began), want.as_bytes());
        };
        check(Position::Now, None, "id: 5-1\n");
        check(Position::Last(2), None, "id: 5-1\n");
        check(Position::Start, None, "");
        let gap = Gap {
            after: EntryId::new(1, 0),
            before: EntryId::new(5, 2),
            reason: GapReason::Trimmed,
        };
        check(Position::After(gap.after), Some(gap), "");
    }

    #[test]
    fn events_in_chunks() {
        let room = RoomName::parse("r").unwrap();
        let format = RAW.in_framing(Framing::Chunked);
        let entry = entry(b"0123456789");
        let event = "id: 5-1\ndata: 0123456789\n\n";
        assert_eq!((format.entry)(&room, &entry), format!("1a\r\n{event}\r\n"));
        let plain = RAW.in_framing(Framing::ToTheEnd);
        assert_eq!((plain.entry)(&room, &entry), event);
        // Each keeps its own frame.
        assert_ne!(entry.frame(&room, format), entry.frame(&room, plain));
        let close = CloseReason::BadRequest("no".into());
        let last = (format.close)(&close);
        assert!(last.ends_with(b"\n\n\r\n0\r\n\r\n"), "{last:?}");
        assert!((plain.close)(&close).ends_with(b"}\n\n"));
        assert!((format.close)(&CloseReason::Gone).is_empty());
        assert_eq!(Framing::Chunked.frame(HEARTBEAT), "2\r\n:\n\r\n");
        assert_eq!(Framing::ToTheEnd.frame(HEARTBEAT), ":\n");
    }

    #[test]
    fn where_to_begin() {
        let check = |header: Option<&str>, query: &str| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("last-event-id", header.parse().unwrap());
            }
            let query = EventsQuery::of(&format!("/rooms/r?{query}").parse().unwrap()).unwrap();
            position(&headers, &query).ok()
        };
        let after = |ms| Some(Position::After(EntryId::new(ms, 0)));
        assert_eq!(check(None, ""), Some(Position::Now));
        assert_eq!(check(None, "from=start"), Some(Position::Start));
        let all = "from=start&last_event_id=2-0&lastEventId=4-0";
        assert_eq!(check(Some("3-0"), all), after(3));
        assert_eq!(check(None, all), after(4));
        assert_eq!(check(None, "last_event_id=2-0&from=start"), after(2));
        assert_eq!(check(Some(""), "last_event_id=2-0"), after(2));
        assert_eq!(check(Some(""), "lastEventId=&from="), Some(Position::Now));
        assert_eq!(check(Some("x"), "from=start"), None);
        assert_eq!(check(None, "from=x"), None);
        assert_eq!(check(None, "lastEventId=x"), None);
    }
}
