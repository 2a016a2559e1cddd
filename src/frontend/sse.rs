//! Server-sent events: one room, one way.
//!
//! An entry's event has its ID as `id:`, so a browser resumes by itself. Its `data:` is the entry as
//! JSON or, with `format=raw`, its message: one `data:` line per line of it, and `event: base64` with
//! the message in base64 if it's not UTF-8. (Of a message's line ends, SSE keeps only that there was
//! one: `\r\n` and `\r` come out as `\n`.) A gap is `event: gap`, without an ID. Before anything else
//! comes, for who begins with `now`, the ID that was joined at, without data, so that a client which
//! reconnects before the first entry misses nothing. (With any other `from`, asking again does.)
//!
//! If the connection ends by our doing, the last event is `event: error` with a code and a message;
//! in a drain it's a new `retry:`, so that clients come back spread out.

use std::io;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tracing::debug;

use super::{ApiError, FrontendState, Run, Socket, SocketQuery, Taken, is_on, json};
use crate::auth::{AuthError, Identity, Right};
use crate::drain::retry_ms;
use crate::metrics::Kind;
use crate::people::session::Join;
use crate::relay::aside::Aside;
use crate::relay::close::CloseReason;
use crate::relay::connection::NotJoined;
use crate::relay::entry::{Entry, EntryId, RoomName};
use crate::relay::format::{Format, Gap, GapFrame};
use crate::relay::log::LogError;
use crate::relay::position::{Position, PositionError};

/// Comes first. Two seconds: less than a person waits, more than a node takes to restart.
const PREFACE: &[u8] = b"retry: 2000\n: tailcast\n\n";

const HEARTBEAT: &[u8] = b":\n\n";

/// Whatever the settings say: more often is only noise, and never is not an interval.
const MIN_HEARTBEAT: Duration = Duration::from_secs(1);

/// A client has nothing to say here. One that goes on all the same is cut off.
const MAX_IDLE_TALK: usize = 4096;

static JSON: Format = Format {
    slot: 2,
    entry: json_event,
    gap: gap_event,
    aside: |aside| Some(aside_event(aside)),
    close: close_event,
};

static RAW: Format = Format {
    slot: 3,
    entry: raw_event,
    gap: gap_event,
    aside: |_| None,
    close: close_event,
};

/// Accepts a request for events: what to answer, and what to run then.
pub(super) fn accept(
    state: Arc<FrontendState>,
    headers: &HeaderMap,
    query: &SocketQuery,
    room: RoomName,
    identity: Identity,
) -> Result<(Bytes, Run), ApiError> {
    let from = position(headers, query)?;
    let presence = is_on(query.presence.as_deref(), "presence")?;
    if from != Position::Now {
        state.people.may_now(&identity, &room, Right::History)?;
    }
    let format = match query.format.as_deref() {
        None | Some("json") => &JSON,
        Some("raw") => &RAW,
        Some(_) => return Err(ApiError::bad_request("format is raw or json")),
    };
    let mut head = b"HTTP/1.1 200 OK\r\n\
        content-type: text/event-stream\r\n\
        cache-control: no-cache\r\n\
        x-accel-buffering: no\r\n\
        connection: close\r\n\
        vary: accept\r\n"
        .to_vec();
    let mut cors = HeaderMap::new();
    state.settings.allowed_origins.mark(headers, &mut cors);
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
    let run: Run = Box::new(move |taken| serve(state, room, identity, join, format, taken).boxed());
    Ok((head.into(), run))
}

/// `Last-Event-ID` is the newest a client knows; the URL stays as it was at its first connection.
fn position(headers: &HeaderMap, query: &SocketQuery) -> Result<Position, ApiError> {
    let header = match headers.get("last-event-id") {
        Some(value) => Some(value.to_str().map_err(|_| bad_event_id())?),
        None => None,
    };
    let resume = [header, query.last_event_id.as_deref()]
        .into_iter()
        .flatten()
        .find(|id| !id.is_empty());
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
    format: &'static Format,
    taken: Taken,
) {
    let Taken { socket, peer, .. } = taken;
    debug!(%room, ?peer, "events begin");
    let _open = state.metrics.opened(Kind::Sse);
    let drain = state.drain.register();
    let connection = state.relay().connect(socket.wire(), format);
    let outlet = connection.outlet().clone();
    let expires = identity.expires();
    let mut session = state.people.session(connection, identity);
    outlet.send(Bytes::from_static(PREFACE));

    let (joined, mut failed) = oneshot::channel();
    let begun = session.join(
        room.clone(),
        join,
        Box::new(move |result| match result {
            Ok(began) => (join.from == Position::Now).then(|| joined_event(began.head)),
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
                _ = heartbeat.tick() => outlet.send(Bytes::from_static(HEARTBEAT)),
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

/// An ID without data sets the client's last event ID and shows nothing.
fn joined_event(head: EntryId) -> Bytes {
    format!("id: {head}\n\n").into()
}

fn json_event(room: &RoomName, entry: &Entry) -> Bytes {
    let json = json::entry_json(room, entry, false);
    let mut out = Vec::with_capacity(json.len() + 64);
    out.extend_from_slice(format!("id: {}\ndata: ", entry.id).as_bytes());
    out.extend_from_slice(&json);
    out.extend_from_slice(b"\n\n");
    out.into()
}

fn aside_event(aside: &Aside) -> Bytes {
    let mut out = Vec::with_capacity(aside.json().len() + 64);
    out.extend_from_slice(format!("event: {}\ndata: ", aside.kind).as_bytes());
    out.extend_from_slice(aside.json());
    out.extend_from_slice(b"\n\n");
    out.into()
}

fn raw_event(_room: &RoomName, entry: &Entry) -> Bytes {
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
    out.into()
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

fn gap_event(room: &RoomName, gap: &Gap) -> GapFrame {
    let mut out = b"event: gap\ndata: ".to_vec();
    out.extend_from_slice(&json::gap_json(room, gap, false));
    out.extend_from_slice(b"\n\n");
    GapFrame::Frame(out.into())
}

fn close_event(reason: &CloseReason) -> Bytes {
    match reason {
        CloseReason::Gone => return Bytes::new(),
        CloseReason::Drain => return format!("retry: {}\n\n", retry_ms()).into(),
        _ => {}
    }
    let error = serde_json::json!({"code": reason.word(), "message": reason.text()});
    format!("event: error\ndata: {error}\n\n").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::format::GapReason;

    fn entry(message: &[u8]) -> Entry {
        let fields = vec![(Bytes::from("message"), Bytes::copy_from_slice(message))];
        Entry::new(EntryId::new(5, 1), fields)
    }

    fn check_raw(message: &[u8], want: &str) {
        let room = RoomName::parse("r").unwrap();
        assert_eq!(raw_event(&room, &entry(message)), want);
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
            "id: 5-1\ndata: {\"room\":\"r\",\"id\":\"5-1\",\"fields\":{\"message\":\"a\\nb\"}}\n\n"
        );
        let gap = Gap {
            after: EntryId::new(1, 0),
            before: EntryId::new(5, 1),
            reason: GapReason::Deleted,
        };
        let GapFrame::Frame(frame) = gap_event(&room, &gap) else {
            panic!("a frame");
        };
        assert_eq!(
            frame,
            "event: gap\ndata: {\"room\":\"r\",\"after\":\"1-0\",\"before\":\"5-1\",\"reason\":\"deleted\"}\n\n"
        );
    }

    #[test]
    fn last_events() {
        assert!(close_event(&CloseReason::Gone).is_empty());
        assert!(close_event(&CloseReason::Drain).starts_with(b"retry: "));
        assert_eq!(
            close_event(&CloseReason::BadRequest("no \"such\" thing".into())),
            "event: error\ndata: {\"code\":\"bad_request\",\"message\":\"no \\\"such\\\" thing\"}\n\n"
        );
    }

    #[test]
    fn where_to_begin() {
        let check = |header: Option<&str>, id: Option<&str>, from: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(header) = header {
                headers.insert("last-event-id", header.parse().unwrap());
            }
            let query = SocketQuery {
                from: from.map(str::to_owned),
                last_event_id: id.map(str::to_owned),
                ..SocketQuery::default()
            };
            position(&headers, &query).ok()
        };
        let after = |ms| Some(Position::After(EntryId::new(ms, 0)));
        assert_eq!(check(None, None, None), Some(Position::Now));
        assert_eq!(check(None, None, Some("start")), Some(Position::Start));
        assert_eq!(check(Some("3-0"), Some("2-0"), Some("start")), after(3));
        assert_eq!(check(None, Some("2-0"), Some("start")), after(2));
        assert_eq!(check(Some(""), Some("2-0"), None), after(2));
        assert_eq!(check(Some("x"), None, Some("start")), None);
        assert_eq!(check(None, None, Some("x")), None);
    }
}
