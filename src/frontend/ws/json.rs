//! The JSON format: requests in, and what becomes of them.

use std::sync::Arc;

use super::request::{self, Ref, Refusal, Request};
use super::talk::{Talk, append_code};
use super::wire;
use crate::relay::connection::{JoinError, Joined, Publish};
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::hub::{HistoryPage, HistoryQuery};
use crate::relay::log::{AppendError, LogError};

/// Pages of history that one socket may wait for at a time.
const HISTORIES_MAX: usize = 4;

/// About the bytes of one page of history. What is left out, `next` leads to.
const HISTORY_BYTES: usize = 1 << 20;

/// Answers one text frame.
pub(super) fn on_text(talk: &mut Talk, text: &str) {
    let (reference, request) = request::parse(text, talk.state.settings.max_fields);
    match request {
        Ok(request) => on_request(talk, reference, request),
        Err(refusal) => talk.send(wire::error(&reference, None, &refusal)),
    }
}

/// Refuses one binary frame.
pub(super) fn on_binary(talk: &Talk) {
    let refusal = Refusal::new(
        "not_text",
        "a JSON socket takes text frames only; bytes go as {\"base64\":\"…\"}",
    );
    talk.send(wire::error(&None, None, &refusal));
}

/// What a join has to say once it's done.
pub(super) fn joined(room: RoomName) -> Joined {
    Box::new(move |outcome| {
        Some(match outcome {
            Ok(head) => wire::joined(&room, head),
            Err(error) => wire::error(&None, Some(&room), &log_refusal(&error)),
        })
    })
}

fn on_request(talk: &mut Talk, reference: Ref, request: Request) {
    match request {
        Request::Publish { room, fields, key } => {
            let room = room.unwrap_or_else(|| talk.room.clone());
            let told = room.clone();
            talk.connection.publish(
                Publish {
                    key,
                    ..Publish::new(room, fields)
                },
                Box::new(move |outlet, outcome| {
                    outlet.send(match outcome {
                        Ok(id) => wire::ack(&reference, &told, id),
                        Err(error) => wire::error(&reference, Some(&told), &append_refusal(&error)),
                    });
                }),
            );
        }
        Request::Join { room, from } => {
            let outcome = talk
                .connection
                .join(room.clone(), from, false, joined(room.clone()));
            if let Err(error) = outcome {
                let code = match error {
                    JoinError::AlreadyIn => "already_in",
                    JoinError::TooMany(_) => "too_many_rooms",
                };
                let refusal = Refusal::new(code, error.to_string());
                talk.send(wire::error(&reference, Some(&room), &refusal));
            }
        }
        Request::Leave { room } => {
            if talk.connection.leave(&room) {
                talk.send(wire::left(&room));
            } else {
                let refusal = Refusal::new("not_in_room", "this socket is not in that room");
                talk.send(wire::error(&reference, Some(&room), &refusal));
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
            history(talk, reference, room, query);
        }
        Request::Ping => talk.send(wire::pong()),
    }
}

/// Reads a page aside, so that the socket can go on meanwhile.
fn history(talk: &mut Talk, reference: Ref, room: RoomName, query: HistoryQuery) {
    let running = talk.histories.get_or_insert_default();
    if Arc::strong_count(running) > HISTORIES_MAX {
        let message = format!("at most {HISTORIES_MAX} pages of history at a time");
        let refusal = Refusal::new("busy", message);
        return talk.send(wire::error(&reference, Some(&room), &refusal));
    }
    let running = running.clone();
    let outlet = talk.connection.outlet().clone();
    let relay = talk.state.relay.clone();
    tokio::spawn(async move {
        let page = relay.history(&room, query).await;
        // The next page may be asked for as soon as this one is there.
        drop(running);
        if outlet.is_closing() {
            return;
        }
        outlet.send(match page {
            Ok(page) => {
                let (shown, next) = cut(&page, HISTORY_BYTES);
                wire::history(&reference, &room, &page.entries[..shown], next)
            }
            Err(error) => wire::error(&reference, Some(&room), &log_refusal(&error)),
        });
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

fn log_refusal(error: &LogError) -> Refusal {
    Refusal::new(error.code(), error.to_string())
}

fn append_refusal(error: &AppendError) -> Refusal {
    Refusal::new(append_code(error), error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::entry::Entry;
    use bytes::Bytes;

    #[test]
    fn publish_outcomes() {
        let check = |error: AppendError, code: &str, words: &str| {
            let refusal = append_refusal(&error);
            assert_eq!(refusal.code, code);
            assert!(refusal.message.contains(words), "{}", refusal.message);
        };
        check(
            AppendError::Refused(LogError::WrongType),
            "wrong_type",
            "not stored",
        );
        check(AppendError::Refused(LogError::Busy), "busy", "not stored");
        check(
            AppendError::Unknown(LogError::Loading),
            "unknown_outcome",
            "may or may not",
        );
        check(
            AppendError::NotReplicated(EntryId::new(1, 2)),
            "not_replicated",
            "stored as 1-2",
        );
    }

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
