//! `GET /homepage_json`: all rooms at once, from memory. With `?summary=1`, what a list of rooms shows of them:
//! it's small, and changes only with what such a list shows.

use std::io::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, IF_NONE_MATCH, VARY,
};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use ring::digest::{SHA256, digest};

use crate::frontend::query::HomepageQuery;
use crate::frontend::{ApiError, FrontendState, identify, json};
use crate::people::home::{Card, Page, View};
use crate::relay::entry::Entry;

/// Bytes of a digest that go into a validator: none will be met twice.
const ETAG_BYTES: usize = 16;

/// A body of fewer bytes is not compressed: the packet that carries it would be no smaller.
const COMPRESSED_MIN: usize = 1_000;

/// What comes after a validator of the compressed body, before the quote: its bytes are others.
const COMPRESSED_TAG: &str = "-gzip";

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
    let query = HomepageQuery::of(&parts.uri)?;
    let view = match query.summary.as_deref() {
        None | Some("0") => View::Full,
        Some("1") => View::Summary {
            is_away: state.relay().health().is_err(),
        },
        Some(_) => {
            return Err(ApiError::bad_request(
                "summary is 1, or 0 for the full answer",
            ));
        }
    };
    let identity = identify::request(&state, &parts).await?;
    let snapshot = state.people.homepage().await?;
    let page = snapshot.page(&identity, view, |cards, is_truncated| {
        page(cards, is_truncated, view)
    });
    let compressed = takes_gzip(&parts.headers)
        .then(|| page.compressed(compress))
        .flatten();
    let etag = match compressed {
        Some(_) => format!("{}{COMPRESSED_TAG}\"", page.etag.trim_end_matches('"')),
        None => page.etag.clone(),
    };
    let headers = [
        (ETAG, etag.as_str()),
        // To be asked for again each time, and by nobody else: others may see other rooms.
        (CACHE_CONTROL, "private, no-cache"),
        (VARY, "authorization, cookie, x-api-key, accept-encoding"),
    ];
    if has(&parts.headers, &etag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let kind = [(CONTENT_TYPE, "application/json")];
    Ok(match compressed {
        Some(body) => {
            let coding = [(CONTENT_ENCODING, "gzip")];
            (headers, kind, coding, body.clone()).into_response()
        }
        None => (headers, kind, page.body.clone()).into_response(),
    })
}

/// Whether the client takes a body in gzip.
fn takes_gzip(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(ACCEPT_ENCODING).iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| {
            let (coding, rest) = item.split_once(';').unwrap_or((item, ""));
            let weight = rest.trim().strip_prefix("q=").map(str::trim);
            let is_refused = weight.is_some_and(|weight| weight.parse() == Ok(0.0_f32));
            coding.trim().eq_ignore_ascii_case("gzip") && !is_refused
        })
}

/// The body in gzip, once per change for all who ask. At the fastest level: a page changes often.
fn compress(body: &Bytes) -> Option<Bytes> {
    if body.len() < COMPRESSED_MIN {
        return None;
    }
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    encoder.write_all(body).ok()?;
    encoder.finish().ok().map(Bytes::from)
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

fn page(cards: &[&Card], is_truncated: bool, view: View) -> Page {
    let encode = match view {
        View::Full => encode,
        View::Summary { .. } => sum_up,
    };
    let rooms = cards.iter().map(|card| card.encoded(view, encode));
    let rooms: Vec<&Bytes> = rooms.collect();
    let size: usize = rooms.iter().map(|room| room.len() + 1).sum();
    let mut body = Vec::with_capacity(size + 64);
    body.extend_from_slice(b"{\"rooms\":[");
    for (at, room) in rooms.into_iter().enumerate() {
        if at > 0 {
            body.push(b',');
        }
        body.extend_from_slice(room);
    }
    body.extend_from_slice(format!("],\"truncated\":{is_truncated}").as_bytes());
    if let View::Summary { is_away } = view {
        let redis = if is_away { "away" } else { "ready" };
        body.extend_from_slice(format!(",\"redis\":\"{redis}\"").as_bytes());
    }
    body.extend_from_slice(b"}\n");
    let digest = digest(&SHA256, &body);
    let mut etag = String::from("\"");
    for byte in &digest.as_ref()[..ETAG_BYTES] {
        etag.push_str(&format!("{byte:02x}"));
    }
    etag.push('"');
    Page::new(body.into(), etag)
}

/// A room as a list of rooms shows it: of its newest messages, those that could be unread, and by whom.
fn sum_up(card: &Card) -> Bytes {
    let mut out = b"{\"room\":".to_vec();
    json::value(&mut out, card.room.as_str());
    if let Some(topic) = &card.topic {
        out.extend_from_slice(b",\"topic\":");
        json::value(&mut out, topic);
    }
    out.extend_from_slice(format!(",\"count\":{},\"last\":", card.count).as_bytes());
    json::value(&mut out, &card.last.map(|last| last.to_string()));
    out.extend_from_slice(b",\"recent\":[");
    for (at, message) in card.messages.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        let entry = &message.entry;
        out.extend_from_slice(format!("{{\"id\":\"{}\"", entry.id).as_bytes());
        for name in ["user", "event"] {
            if let Some(value) = text_of(entry, name) {
                out.extend_from_slice(format!(",\"{name}\":").as_bytes());
                json::value(&mut out, value);
            }
        }
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    out.into()
}

/// The text of a field, the last one of that name; none if it's no text.
fn text_of<'a>(entry: &'a Entry, name: &str) -> Option<&'a str> {
    let mut fields = entry.fields.iter().rev();
    let (_, value) = fields.find(|(other, _)| other.as_ref() == name.as_bytes())?;
    std::str::from_utf8(value).ok()
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
        let one = page(&[], false, View::Full);
        assert_eq!(one.body, "{\"rooms\":[],\"truncated\":false}\n");
        assert_eq!(one.etag.len(), 2 * ETAG_BYTES + 2);
        assert_ne!(one.etag, page(&[], true, View::Full).etag);
        let summary = page(&[], false, View::Summary { is_away: true });
        let want = "{\"rooms\":[],\"truncated\":false,\"redis\":\"away\"}\n";
        assert_eq!(summary.body, want);
    }

    #[test]
    fn codings() {
        let check = |sent: &str, want: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, sent.parse().unwrap());
            assert_eq!(takes_gzip(&headers), want, "{sent}");
        };
        check("gzip, deflate, br, zstd", true);
        check("br, GZIP;q=0.5", true);
        check("gzip;q=0, br", false);
        check("gzip;q=0.000", false);
        check("identity", false);
        check("x-gzip", false);
        assert!(!takes_gzip(&HeaderMap::new()));
        assert_eq!(compress(&Bytes::from_static(b"short")), None);
    }
}
