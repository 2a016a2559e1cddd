//! `GET /homepage_json`: all rooms at once, from memory.

use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use ring::digest::{SHA256, digest};

use crate::frontend::{ApiError, FrontendState, identify, json};
use crate::people::home::{Card, Page};

/// Bytes of a digest that go into a validator: none will be met twice.
const ETAG_BYTES: usize = 16;

/// Answers with the rooms that who asks may follow and read.
pub(crate) async fn homepage(
    State(state): State<Arc<FrontendState>>,
    parts: Parts,
) -> Result<Response, ApiError> {
    if state.people.settings().homepage_rooms == 0 {
        return Err(ApiError::new(
            404,
            "not_found",
            "this node keeps no homepage; see --homepage-rooms",
        ));
    }
    let identity = identify::request(&state, &parts).await?;
    let snapshot = state.people.homepage().await?;
    let page = snapshot.page(&identity, page);
    let headers = [
        (ETAG, page.etag.as_str()),
        // To be asked for again each time, and by nobody else: others may see other rooms.
        (CACHE_CONTROL, "private, no-cache"),
        (VARY, "authorization, cookie, x-api-key"),
    ];
    if has(&parts.headers, &page.etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let kind = [(CONTENT_TYPE, "application/json")];
    Ok((headers, kind, page.body.clone()).into_response())
}

/// Whether the client has this page already.
fn has(headers: &HeaderMap, etag: &str) -> bool {
    let known = headers.get_all(IF_NONE_MATCH).iter();
    known
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|known| known.trim())
        .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == etag)
}

fn page(cards: &[&Card], is_truncated: bool) -> Page {
    let rooms: Vec<&Bytes> = cards.iter().map(|card| card.encoded(encode)).collect();
    let size: usize = rooms.iter().map(|room| room.len() + 1).sum();
    let mut body = Vec::with_capacity(size + 64);
    body.extend_from_slice(b"{\"rooms\":[");
    for (at, room) in rooms.into_iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(room);
    }
    body.extend_from_slice(format!("],\"truncated\":{is_truncated}}}\n").as_bytes());
    let digest = digest(&SHA256, &body);
    let mut etag = String::from("\"");
    for byte in &digest.as_ref()[..ETAG_BYTES] {
        etag.push_str(&format!("{byte:02x}"));
    }
    etag.push('"');
    Page {
        body: body.into(),
        etag,
    }
}

fn encode(card: &Card) -> Bytes {
    let mut out = b"{\"room\":".to_vec();
    json::value(&mut out, card.room.as_str());
    if let Some(topic) = &card.topic {
        out.extend_from_slice(b",\"topic\":");
        json::value(&mut out, topic);
    }
    out.extend_from_slice(b",\"properties\":");
    json::value(&mut out, &card.properties);
    out.extend_from_slice(format!(",\"count\":{},\"last\":", card.count).as_bytes());
    json::value(&mut out, &card.last.map(|last| last.to_string()));
    out.extend_from_slice(b",\"messages\":[");
    for (at, message) in card.messages.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let entry = &message.entry;
        out.extend_from_slice(format!("{{\"id\":\"{}\",\"fields\":", entry.id).as_bytes());
        json::fields(&mut out, &entry.fields);
        if message.is_cut {
            out.extend_from_slice(b",\"truncated\":true");
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn validators() {
        let check = |sent: &str, want: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(IF_NONE_MATCH, sent.parse().unwrap());
            assert_eq!(has(&headers, "\"ab\""), want, "{sent}");
        };
        assert!(!has(&HeaderMap::new(), "\"ab\""));
        check("\"ab\"", true);
        check("\"cd\", W/\"ab\"", true);
        check("*", true);
        check("ab", false);
        check("\"abc\"", false);
    }

    #[test]
    fn nothing_yet() {
        let one = page(&[], false);
        assert_eq!(one.body, "{\"rooms\":[],\"truncated\":false}\n");
        assert_eq!(one.etag.len(), 2 * ETAG_BYTES + 2);
        assert_ne!(one.etag, page(&[], true).etag);
    }
}
