//! Reads the texts that one setting alone has: URLs, directories, prefixes, filters.

use std::path::PathBuf;

use redis::IntoConnectionInfo;
use tracing_subscriber::EnvFilter;

use super::table::Setting;
use super::value;
use crate::frontend::{OriginError, Origins};
use crate::people::{RateError, Rates};
use crate::relay::entry::RESERVED_PREFIX;

/// Where a script is, or nothing.
pub(super) fn sockjs_client(text: &str) -> Result<String, String> {
    let is_url = text.is_empty() || text.starts_with("https://") || text.starts_with('/');
    match is_url && !text.contains(['"', '<', '>', ' ']) {
        true => Ok(text.to_owned()),
        false => Err("is no address of a script; write https://HOST/PATH or /PATH".to_owned()),
    }
}

/// Which web pages may connect.
pub(super) fn origins(text: &str) -> Result<Origins, String> {
    text.parse()
        .map_err(|error: OriginError| format!("can't be read: {error}"))
}

/// How often users may publish.
pub(super) fn rates(text: &str) -> Result<Rates, String> {
    text.parse()
        .map_err(|error: RateError| format!("can't be read: {error}"))
}

/// A URL that the Redis client takes.
pub(super) fn redis_url(text: &str, _: &Setting) -> Result<String, String> {
    const HOW: &str = "write it as in redis://user:password@host:6379/0, rediss://host, or unix:///path/to/socket";
    if !text.contains("://") {
        return Err(format!("is no URL; {HOW}"));
    }
    match text.into_connection_info() {
        Ok(_) => Ok(text.to_owned()),
        // The crate's own text may quote the URL, password and all.
        Err(_) => Err(format!("is no Redis URL; {HOW}")),
    }
}

/// Takes `~/`, which no shell expands in a file or behind a flag's equals sign.
pub(super) fn directory(text: &str, home: Option<&str>) -> Result<PathBuf, String> {
    match (text.strip_prefix("~/"), home) {
        (Some(rest), Some(home)) if !home.is_empty() => Ok(PathBuf::from(home).join(rest)),
        // Nobody asked for this place; only a started redis-server needs one at all.
        (Some(_), _) => Ok(PathBuf::from("tailcast-data")),
        (None, _) if text.is_empty() => Err("is empty; write a directory".to_owned()),
        (None, _) => Ok(PathBuf::from(text)),
    }
}

/// A prefix that makes no key of ours.
pub(super) fn key_prefix(text: &str, _: &Setting) -> Result<String, String> {
    if text.chars().any(char::is_control) {
        return Err("has control characters; write it without".to_owned());
    }
    // "tail" and a room "cast:x" would make a key of ours, too.
    let ours = text.starts_with(RESERVED_PREFIX) || RESERVED_PREFIX.starts_with(text);
    if ours && !text.is_empty() {
        return Err(format!(
            "makes keys that start with {RESERVED_PREFIX}, which are tailcast's own; write another, as in rooms:"
        ));
    }
    Ok(text.to_owned())
}

/// A filter that `EnvFilter` takes and that logs something.
pub(super) fn log_filter(text: &str, _: &Setting) -> Result<String, String> {
    // EnvFilter takes a lone misspelt level for a target's name, and logs nothing.
    let level = |word: &str| {
        ["off", "error", "warn", "info", "debug", "trace"]
            .iter()
            .any(|level| level.eq_ignore_ascii_case(word))
    };
    let known = value::list(text).all(|part| part.contains(['=', '[']) || level(part));
    match EnvFilter::try_new(text) {
        Ok(_) if known && !text.trim().is_empty() => Ok(text.to_owned()),
        _ => Err("is no filter; write error, warn, info, debug or trace, or parts as in info,tailcast=debug".to_owned()),
    }
}

/// A node's name, if one is given.
pub(super) fn node_name(text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    if text.len() > 64 || text.chars().any(char::is_control) {
        return Err(
            "is no name; write 1 to 64 bytes without control characters, as in node-1".to_owned(),
        );
    }
    Ok(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_of_pages() {
        for text in [
            "",
            "*",
            "same-host",
            "https://a.example,same-host",
            "https://A/",
        ] {
            assert!(origins(text).is_ok(), "{text}");
        }
        assert_eq!(
            origins("a.example").err().as_deref(),
            Some(
                "can't be read: `a.example` is no origin: write scheme and host, as in \
                 https://app.example or http://localhost:3000, or same-host, null, file://, or *"
            )
        );
    }
}
