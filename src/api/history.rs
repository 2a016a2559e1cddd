//! `GET /rooms/{room}`: a page of history.

use std::str::FromStr;

use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, VARY};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;

use crate::frontend::{self, ApiError, FrontendState, identify, json};
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::hub::{HistoryPage, HistoryQuery};

/// Entries on a page if the client does not say.
const DEFAULT_LIMIT: usize = 100;

#[derive(Debug, Default, Deserialize)]
struct Query {
    after: Option<String>,
    before: Option<String>,
    limit: Option<String>,
    order: Option<String>,
}

/// Answers with a page.
pub(crate) async fn page(
    state: &FrontendState,
    room: &RoomName,
    parts: &Parts,
) -> Result<Response, ApiError> {
    let query = parse(&frontend::query(&parts.uri)?, state.settings.history_limit)?;
    let identity = identify::request(state, parts).await?;
    let page = state.people.history(&identity, room, query).await?;
    let headers = [
        (CONTENT_TYPE, "application/json"),
        (CACHE_CONTROL, "no-store"),
        (VARY, "accept"),
    ];
    Ok((headers, body(room, &page)).into_response())
}

fn parse(query: &Query, most: usize) -> Result<HistoryQuery, ApiError> {
    let limit = match &query.limit {
        None => DEFAULT_LIMIT.min(most),
        Some(text) => match usize::from_str(text) {
            Ok(limit) if (1..=most).contains(&limit) => limit,
            _ => {
                return Err(ApiError::bad_request(format!(
                    "limit is a number from 1 to {most}"
                )));
            }
        },
    };
    let newest_first = match query.order.as_deref() {
        None | Some("asc") => false,
        Some("desc") => true,
        Some(_) => return Err(ApiError::bad_request("order is asc or desc")),
    };
    Ok(HistoryQuery {
        after: id("after", query.after.as_deref())?,
        before: id("before", query.before.as_deref())?,
        limit,
        newest_first,
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

    fn check(query: &str, want: Result<HistoryQuery, &str>) {
        let uri: Uri = format!("/rooms/r?{query}").parse().unwrap();
        let got = frontend::query(&uri).and_then(|query| parse(&query, 500));
        match want {
            Ok(want) => assert_eq!(got.unwrap(), want, "{query}"),
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
        check("limit=", Err("1 to 500"));
        check("after=now", Err("after is not an entry ID"));
        check("before=-", Err("before is not an entry ID"));
        check("order=up", Err("asc or desc"));
        check("limit=1&limit=2", Err("limit"));
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
