//! The JSON format: requests in, and what becomes of them.

use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;

use super::request::{self, Publish, Ref, Refused, Request};
use super::talk::{Resumed, Talk};
use super::wire;
use crate::auth::{AuthError, Credentials, Identity};
use crate::frontend::json;
use crate::people::Refusal;
use crate::people::session::{Entry, Join, Joined};
use crate::relay::close::CloseReason;
use crate::relay::connection::NotJoined;
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::hub::{HistoryPage, HistoryQuery};

/// Answers that one socket may wait for at a time, of those that are worked on aside.
const ASIDES_MAX: usize = 4;

/// About the bytes of one page of history. What is left out, `next` leads to.
const HISTORY_BYTES: usize = 1 << 20;

/// Users in an answer that lists them, if the client does not say.
const USERS: usize = 100;

/// Answers one text frame.
pub(super) fn on_text(talk: &mut Talk, text: &str) {
    let (reference, request) = request::parse(text, talk.state.settings.max_fields);
    let request = match request {
        Ok(Request::Auth { token }) => return authenticate(talk, reference, token),
        _ if talk.is_outside() => return send_away(talk),
        Ok(request) => request,
        Err(refused) => return talk.send(wire::error(&reference, None, &refused)),
    };
    let room = request.speaks_in(&talk.room);
    match room.and_then(|room| talk.session.knows(room)) {
        None => on_request(talk, reference, request),
        Some(known) => {
            talk.pending = Some(Box::pin(async move {
                known.await;
                Resumed::Request(reference, request)
            }));
        }
    }
}

/// Nothing is done, nor even said to be wrong, for somebody who is not known.
fn send_away(talk: &Talk) {
    let why = AuthError::Missing.to_string();
    talk.close(CloseReason::Forbidden(why.into()));
}

/// Refuses one binary frame.
pub(super) fn on_binary(talk: &Talk) {
    if talk.is_outside() {
        return send_away(talk);
    }
    let refused = Refused::new(
        "not_text",
        "a JSON socket takes text frames only; bytes go as {\"base64\":\"…\"}",
    );
    talk.send(wire::error(&None, None, &refused));
}

/// The same of the room of the socket's URL. Who may not be there has no business with the socket.
pub(super) fn joined_home(talk: &Talk) -> Joined {
    // Weak, as the outlet may keep the join, and so this.
    let outlet = Arc::downgrade(talk.connection().outlet());
    let joined = joined(talk.room.clone());
    Box::new(move |outcome| {
        if let (Err(NotJoined::Barred(barred)), Some(outlet)) = (&outcome, outlet.upgrade()) {
            outlet.close(CloseReason::Forbidden(barred.to_string().into()));
            return None;
        }
        joined(outcome)
    })
}

/// What a join has to say once it's done.
pub(super) fn joined(room: RoomName) -> Joined {
    Box::new(move |outcome| {
        Some(match outcome {
            Ok(began) => wire::joined(&room, began.head),
            Err(error) => {
                let refused = Refused::new(error.code(), error.to_string());
                wire::error(&None, Some(&room), &refused)
            }
        })
    })
}

fn authenticate(talk: &mut Talk, reference: Ref, token: String) {
    let state = talk.state.clone();
    // Nothing more is read before it's known who speaks.
    talk.pending = Some(Box::pin(async move {
        let who = state.auth.identify(&Credentials::token(&token)).await;
        Resumed::Who(reference, who)
    }));
}

/// A fresh token of a client that is in already.
pub(super) fn renew(talk: &mut Talk, reference: Ref, who: Result<Identity, AuthError>) {
    let identity = match who {
        Ok(identity) => identity,
        // The old one still counts.
        Err(error) => {
            let refused = Refused::new("unauthenticated", error.to_string());
            return talk.send(wire::error(&reference, None, &refused));
        }
    };
    let expires = identity.expires();
    match talk.session.renew(identity) {
        Ok(lost) => {
            talk.deadline = expires;
            talk.send(wire::authenticated(&reference, talk.session.identity()));
            for room in lost {
                talk.send(wire::left(&room));
            }
        }
        Err(refusal) => talk.refuse(&reference, None, &refusal),
    }
}

pub(super) fn on_request(talk: &mut Talk, reference: Ref, request: Request) {
    match request {
        // Dealt with already.
        Request::Auth { .. } => {}
        Request::Publish(publish) => on_publish(talk, reference, publish),
        Request::Join {
            room,
            from,
            presence,
        } => {
            let join = Join {
                from,
                presence,
                is_home: false,
            };
            let outcome = talk.session.join(room.clone(), join, joined(room.clone()));
            if let Err(error) = outcome {
                let refused = Refused::new(error.code(), error.to_string());
                talk.send(wire::error(&reference, Some(&room), &refused));
            }
        }
        Request::Leave { room } => {
            if talk.session.leave(&room) {
                talk.send(wire::left(&room));
            } else {
                let refused = Refused::new("not_in_room", "this socket is not in that room");
                talk.send(wire::error(&reference, Some(&room), &refused));
            }
        }
        Request::History {
            room,
            after,
            before,
            limit,
            newest_first,
        } => {
            let room = room.unwrap_or_else(|| talk.room.clone());
            let most = talk.state.settings.history_limit;
            let query = HistoryQuery {
                after,
                before,
                limit: limit.unwrap_or(most).min(most),
                newest_first,
            };
            let (state, allowed) = (talk.state.clone(), talk.session.may_read(&room));
            let (told, of) = (reference.clone(), room.clone());
            aside(talk, reference, room, async move {
                allowed.await?;
                let page = state.relay().history(&of, query).await?;
                let (shown, next) = cut(&page, HISTORY_BYTES);
                Ok(wire::history(&told, &of, &page.entries[..shown], next))
            });
        }
        Request::Presence { room, limit } => {
            let room = room.unwrap_or_else(|| talk.room.clone());
            let limit = limit.unwrap_or(USERS);
            let (state, identity) = (talk.state.clone(), talk.session.identity().clone());
            let (told, of) = (reference.clone(), room.clone());
            aside(talk, reference, room, async move {
                let presence = state.people.presence(&identity, &of, limit).await?;
                Ok(wire::users(&told, &of, &presence))
            });
        }
        Request::React { room, reaction } => {
            let room = room.unwrap_or_else(|| talk.room.clone());
            // Its answer is the totals that everybody gets.
            if let Err(refusal) = talk.session.react(&room, &reaction) {
                talk.refuse(&reference, Some(&room), &refusal);
            }
        }
        Request::Moderate { room, act, reason } => {
            let room = room.unwrap_or_else(|| talk.room.clone());
            let acting = talk.session.moderate(room.clone(), act, reason);
            let (told, of) = (reference.clone(), room.clone());
            aside(talk, reference, room, async move {
                let done = acting.await?;
                Ok(wire::done(&told, &of, &done))
            });
        }
        Request::Ping => talk.send(wire::pong()),
    }
}

fn on_publish(talk: &mut Talk, reference: Ref, publish: Publish) {
    let room = publish.room.unwrap_or_else(|| talk.room.clone());
    let entry = Entry {
        room: room.clone(),
        fields: publish.fields,
        key: publish.key,
        echo: publish.echo,
        socket: None,
    };
    if publish.ephemeral {
        let user = talk.session.identity().user();
        let json = json::ephemeral_json(&room, user.map(|user| user.as_str()), &entry.fields);
        return match talk.session.whisper(entry, json) {
            Ok(()) => talk.send(wire::shown(&reference, &room)),
            Err(refusal) => talk.refuse(&reference, Some(&room), &refusal),
        };
    }
    talk.session.publish(
        entry,
        Box::new(move |outlet, outcome| {
            outlet.send(match outcome {
                Ok(id) => wire::ack(&reference, &room, id),
                Err(refusal) => wire::refused(&reference, Some(&room), &refusal),
            });
        }),
    );
}

/// Works on an answer aside, so that the socket can go on meanwhile.
fn aside(
    talk: &mut Talk,
    reference: Ref,
    room: RoomName,
    answer: impl Future<Output = Result<Bytes, Refusal>> + Send + 'static,
) {
    let running = talk.asides.get_or_insert_default();
    if Arc::strong_count(running) > ASIDES_MAX {
        let message = format!("at most {ASIDES_MAX} such requests at a time");
        let refused = Refused::new("busy", message);
        return talk.send(wire::error(&reference, Some(&room), &refused));
    }
    let running = running.clone();
    let outlet = talk.connection().outlet().clone();
    tokio::spawn(async move {
        let answer = answer.await;
        // The next one may be asked for as soon as this one is there.
        drop(running);
        if !outlet.is_closing() {
            outlet.send(match answer {
                Ok(frame) => frame,
                Err(refusal) => wire::refused(&reference, Some(&room), &refusal),
            });
        }
    });
}

/// How many of a page's entries fit, and where the next page begins then. One always fits.
fn cut(page: &HistoryPage, most: usize) -> (usize, Option<EntryId>) {
    let mut bytes = 0;
    let fitting = page
        .entries
        .iter()
        .take_while(|entry| {
            bytes += entry.size();
            bytes <= most
        })
        .count();
    let shown = fitting.max(1).min(page.entries.len());
    if shown < page.entries.len() {
        (shown, page.entries[..shown].last().map(|entry| entry.id))
    } else {
        (shown, page.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::entry::Entry;

    #[test]
    fn pages_are_cut() {
        let check = |sizes: &[usize], next: Option<u64>, want: (usize, Option<u64>)| {
            let entries = sizes
                .iter()
                .enumerate()
                .map(|(at, size)| {
                    let fields = vec![(Bytes::new(), Bytes::from(vec![0; *size]))];
                    Entry::new(EntryId::new(at as u64, 0), fields)
                })
                .collect();
            let id = |ms: u64| EntryId::new(ms, 0);
            let page = HistoryPage {
                entries,
                next: next.map(id),
            };
            assert_eq!(cut(&page, 100), (want.0, want.1.map(id)), "{sizes:?}");
        };
        check(&[], None, (0, None));
        check(&[50, 50], None, (2, None));
        check(&[50, 50], Some(1), (2, Some(1)));
        check(&[50, 51], None, (1, Some(0)));
        check(&[500], None, (1, None));
        check(&[500, 1], Some(1), (1, Some(0)));
    }
}
