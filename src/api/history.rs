//! `GET /rooms/{room}`: a page of history.

use std::str::FromStr;
use std::time::SystemTime;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use crate::frontend::query::HistoryQuery as Asked;
use crate::frontend::{ApiError, FrontendState, identify, json};
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::hub::{HistoryPage, HistoryQuery};
use crate::relay::position::{Position, PositionError};

/// Entries on a page if the client does not say.
const DEFAULT_LIMIT: usize = 100;

/// What a page holds, and how it's found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    /// As the relay reads it.
    Page(HistoryQuery),
    /// The newest `last` entries, oldest first, and `limit` of those from their beginning.
    Last { last: usize, limit: usize },
}

/// Answers with a page.
pub(crate) async fn page(
    state: &FrontendState,
    room: &RoomName,
    parts: &Parts,
) -> Result<Response, ApiError> {
    let asked = Asked::of(&parts.uri)?;
    let wanted = parse(&asked, state.settings.history_limit, now_ms())?;
    let identity = identify::request(state, parts).await?;
    let history = |query| state.people.history(&identity, room, query);
    let page = match wanted {
        Wanted::Page(query) => history(query).await?,
        Wanted::Last { last, limit } => first_of_last(history(newest(last)).await?, limit),
    };
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (VARY, "accept"),
    ];
    Ok((headers, body(room, &page)).into_response())
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

fn newest(limit: usize) -> HistoryQuery {
    HistoryQuery {
        after: None,
        before: None,
        limit,
        newest_first: true,
    }
}

/// Turns the newest entries into a page from the oldest of them on.
fn first_of_last(newest: HistoryPage, limit: usize) -> HistoryPage {
    let mut entries = newest.entries;
    entries.reverse();
    let has_more = entries.len() > limit;
    entries.truncate(limit);
    let next = entries.last().map(|entry| entry.id).filter(|_| has_more);
    HistoryPage { entries, next }
}

fn parse(asked: &Asked, most: usize, now_ms: u64) -> Result<Wanted, ApiError> {
    let limit = match &asked.limit {
        None => None,
        Some(text) => match usize::from_str(text) {
            Ok(limit) if (1..=most).contains(&limit) => Some(limit),
            _ => {
                return Err(ApiError::bad_request(format!(
                    "limit is a number from 1 to {most}"
                )));
            }
        },
    };
    let newest_first = match asked.order.as_deref() {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(_) => return Err(ApiError::bad_request("order is asc or desc")),
    };
    let from: Option<Position> = asked
        .from
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error: PositionError| ApiError::bad_request(error.to_string()))?;
    let (after, before) = (
        id("after", asked.after.as_deref())?,
        id("before", asked.before.as_deref())?,
    );
    if from.is_some() && after.is_some() {
        return Err(ApiError::bad_request(
            "from and after both say where to begin; send one of them",
        ));
    }
    let after = match from {
        None | Some(Position::Start) => after,
        Some(Position::After(id)) => Some(id),
        Some(Position::Ago(age)) => {
            let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            Some(EntryId::new(now_ms.saturating_sub(age), 0).predecessor())
        }
        Some(Position::Now) => {
            return Err(ApiError::bad_request(
                "a page of history has nothing from now on; leave from out, or open a socket or an event stream",
            ));
        }
        Some(Position::Last(last)) => return last_of(last, before, limit, newest_first, most),
    };
    Ok(Wanted::Page(HistoryQuery {
        after,
        before,
        limit: limit.unwrap_or(DEFAULT_LIMIT.min(most)),
        newest_first,
    }))
}

/// The newest so many, which are on one page unless the client wants fewer at a time.
fn last_of(
    last: usize,
    before: Option<EntryId>,
    limit: Option<usize>,
    newest_first: bool,
    most: usize,
) -> Result<Wanted, ApiError> {
    if !(1..=most).contains(&last) {
        return Err(ApiError::bad_request(format!(
            "a page of history has last:1 to last:{most}; see --history-limit"
        )));
    }
    if before.is_some() {
        return Err(ApiError::bad_request(
            "last:N is counted from the end; with before, say order=desc and limit=N instead",
        ));
    }
    let limit = limit.unwrap_or(last).min(last);
    Ok(match newest_first {
        true => Wanted::Page(newest(limit)),
        false => Wanted::Last { last, limit },
    })
}

fn id(name: &str, text: Option<&str>) -> Result<Option<EntryId>, ApiError> {
    text.map(EntryId::from_str)
        .transpose()
        .map_err(|error| ApiError::bad_request(format!("{name} is {error}")))
}

fn body(room: &RoomName, page: &HistoryPage) -> Vec<u8> {
    let mut out = b"{\"room\":".to_vec();
    json::value(&mut out, room.as_str());
    out.extend_from_slice(b",\"entries\":");
    json::entries(&mut out, &page.entries);
    let next = match page.next {
        Some(id) => format!(",\"next\":\"{id}\"}}\n"),
        None => ",\"next\":null}\n".to_owned(),
    };
    out.extend_from_slice(next.as_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::entry::Entry;
    use axum::http::Uri;
    use bytes::Bytes;

    fn read(query: &str) -> Result<Wanted, ApiError> {
        let uri: Uri = format!("/rooms/r?{query}").parse().unwrap();
        Asked::of(&uri).and_then(|asked| parse(&asked, 500, 100_000))
    }

    fn check(query: &str, want: Result<HistoryQuery, &str>) {
        let got = read(query);
        match want {
            Ok(want) => assert_eq!(got.unwrap(), Wanted::Page(want), "{query}"),
            Err(part) => {
                let error = got.unwrap_err();
                assert_eq!(error.status, 400);
                assert!(error.message.contains(part), "{query}: {error}");
            }
        }
    }

    #[test]
    fn queries() {
        let all = HistoryQuery {
            after: None,
            before: None,
            limit: 100,
            newest_first: false,
        };
        check("", Ok(all));
        check("order=asc&token=x", Ok(all));
        check(
            "after=5-1&before=7&limit=500&order=desc",
            Ok(HistoryQuery {
                after: Some(EntryId::new(5, 1)),
                before: Some(EntryId::new(7, 0)),
                limit: 500,
                newest_first: true,
            }),
        );
        check("limit=0", Err("1 to 500"));
        check("limit=501", Err("1 to 500"));
        check("limit=ten", Err("1 to 500"));
        check("limit=&after=&before=&order=&from=", Ok(all));
        check("after=now", Err("after is not an entry ID"));
        check("before=-", Err("before is not an entry ID"));
        check("order=up", Err("asc or desc"));
        check("limit=1&limit=2", Err("limit"));
        check("form=last:2", Err("from, after, before"));
    }

    #[test]
    fn positions() {
        let all = HistoryQuery {
            after: None,
            before: None,
            limit: 100,
            newest_first: false,
        };
        let after = |id: EntryId| HistoryQuery {
            after: Some(id),
            ..all
        };
        check("from=start", Ok(all));
        check("from=5-1", Ok(after(EntryId::new(5, 1))));
        let since = EntryId::new(90_000, 0).predecessor();
        check("from=ago:10s", Ok(after(since)));
        check("from=now", Err("nothing from now on"));
        check("from=yesterday", Err("from is one of"));
        check("from=5-1&after=4-1", Err("one of them"));
        check("from=last:0", Err("last:1 to last:500"));
        check("from=last:501", Err("last:1 to last:500"));
        check("from=last:2&before=5-1", Err("order=desc"));
        check(
            "from=last:200&order=desc",
            Ok(HistoryQuery {
                limit: 200,
                newest_first: true,
                ..all
            }),
        );
        let last = |last, limit| Ok(Wanted::Last { last, limit });
        assert_eq!(read("from=last:200"), last(200, 200));
        assert_eq!(read("from=last:2&limit=1"), last(2, 1));
        assert_eq!(read("from=last:2&limit=9"), last(2, 2));
    }

    #[test]
    fn the_first_of_the_last() {
        let page = |limit| {
            let entry = |seq| Entry::new(EntryId::new(seq, 0), vec![]);
            let newest = HistoryPage {
                entries: [4, 3, 2].map(entry).into(),
                next: Some(EntryId::new(2, 0)),
            };
            let page = first_of_last(newest, limit);
            let ids: Vec<u64> = page.entries.iter().map(|entry| entry.id.ms).collect();
            (ids, page.next.map(|id| id.ms))
        };
        assert_eq!(page(3), (vec![2, 3, 4], None));
        assert_eq!(page(2), (vec![2, 3], Some(3)));
    }

    #[test]
    fn bodies() {
        let room = RoomName::parse("r").unwrap();
        let fields = vec![(Bytes::from("a"), Bytes::from("1"))];
        let mut page = HistoryPage {
            entries: vec![Entry::new(EntryId::new(5, 1), fields)],
            next: Some(EntryId::new(5, 1)),
        };
        assert_eq!(
            body(&room, &page),
            b"{\"room\":\"r\",\"entries\":[{\"id\":\"5-1\",\"fields\":{\"a\":\"1\"}}],\"next\":\"5-1\"}\n"
        );
        page.entries.clear();
        page.next = None;
        assert_eq!(
            body(&room, &page),
            b"{\"room\":\"r\",\"entries\":[],\"next\":null}\n"
        );
    }
}
