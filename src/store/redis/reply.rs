//! Replies of Redis, read without panics: whatever came over the network may be anything.

use std::time::Duration;

use bytes::Bytes;
use redis::{ErrorKind, RedisError, ServerError, Value};

use crate::relay::entry::{Entry, EntryId};
use crate::relay::log::{LogError, StreamState};

fn malformed(what: &str) -> LogError {
    LogError::Other(format!("a reply that is not {what}"))
}

/// An error reply becomes an `Err`.
pub(super) fn check(value: Value) -> Result<Value, LogError> {
    match value {
        Value::ServerError(error) => Err(refusal(&error)),
        value => Ok(value),
    }
}

/// What an error reply means.
pub(super) fn refusal(error: &ServerError) -> LogError {
    classify(error.code(), error.details().unwrap_or_default())
}

/// What a failure of the redis crate means.
pub(super) fn fault(error: &RedisError) -> LogError {
    if error.kind() == ErrorKind::AuthenticationFailed {
        return LogError::Denied(error.to_string());
    }
    match error.code() {
        Some(code) => classify(code, error.detail().unwrap_or_default()),
        // The library's words for it are of a parser's insides, over several lines.
        None if error.kind() == ErrorKind::Parse => LogError::Unavailable(
            "what answers there speaks another protocol; name a Redis with --redis".to_owned(),
        ),
        None => LogError::Unavailable(error.to_string()),
    }
}

fn classify(code: &str, detail: &str) -> LogError {
    let text = || format!("{code} {detail}").trim_end().to_owned();
    match code {
        "LOADING" => LogError::Loading,
        "READONLY" | "MASTERDOWN" | "NOREPLICAS" => LogError::ReadOnly(text()),
        "OOM" | "MISCONF" => LogError::Full(text()),
        "WRONGTYPE" => LogError::WrongType,
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => LogError::Denied(text()),
        // They pass, and say that nothing was executed.
        "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "UNBLOCKED" => LogError::Unavailable(text()),
        "ERR" if detail.starts_with("max number of clients") => LogError::Unavailable(text()),
        "ERR" if detail.starts_with("ACL failure in script") => LogError::Denied(text()),
        // Before 7.0 an error inside a script comes wrapped:
        // "ERR Error running script (call to f_…): @user_script:1: @user_script: 1: -OOM command…"
        "ERR" => match detail.split_once(": -") {
            Some((_, inner)) => {
                let (code, detail) = inner.split_once(' ').unwrap_or((inner, ""));
                match code {
                    "ERR" => LogError::Other(text()),
                    _ => classify(code, detail),
                }
            }
            None => LogError::Other(text()),
        },
        _ => LogError::Other(text()),
    }
}

/// A number of things.
pub(super) fn count(value: Value) -> Result<u64, LogError> {
    match check(value)? {
        Value::Int(count) => u64::try_from(count).map_err(|_| malformed("a count")),
        _ => Err(malformed("a count")),
    }
}

/// The answer to TIME: the time since the Unix epoch.
pub(super) fn time(value: Value) -> Result<Duration, LogError> {
    let parts = <[Value; 2]>::try_from(list(value)?).map_err(|_| malformed("a time"))?;
    let [seconds, micros] = parts.map(|part| text(part)?.parse().map_err(|_| malformed("a time")));
    let micros = Duration::from_micros(micros?);
    let time = Duration::from_secs(seconds?).checked_add(micros);
    time.ok_or_else(|| malformed("a time"))
}

/// An entry ID.
pub(super) fn entry_id(value: &Value) -> Result<EntryId, LogError> {
    let text = match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text.as_str()),
        _ => None,
    };
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| malformed("an entry ID"))
}

/// A string.
pub(super) fn bytes(value: Value) -> Result<Bytes, LogError> {
    match value {
        // The vector's memory becomes the entry's: nothing is copied.
        Value::BulkString(bytes) => Ok(Bytes::from(bytes)),
        Value::SimpleString(text) => Ok(Bytes::from(text)),
        Value::Okay => Ok(Bytes::from_static(b"OK")),
        _ => Err(malformed("a string")),
    }
}

/// A string, or nothing.
pub(super) fn bytes_or_nil(value: Value) -> Result<Option<Bytes>, LogError> {
    match check(value)? {
        Value::Nil => Ok(None),
        value => bytes(value).map(Some),
    }
}

/// A string of text.
pub(super) fn text(value: Value) -> Result<String, LogError> {
    String::from_utf8(bytes(check(value)?)?.to_vec()).map_err(|_| malformed("text"))
}

/// A list, or a set.
pub(super) fn list(value: Value) -> Result<Vec<Value>, LogError> {
    match check(value)? {
        Value::Array(list) | Value::Set(list) => Ok(list),
        _ => Err(malformed("a list")),
    }
}

/// The answer to SCAN or HSCAN: the next cursor, and what was found.
pub(super) fn scanned(value: Value) -> Result<(u64, Value), LogError> {
    let parts = <[Value; 2]>::try_from(list(value)?).map_err(|_| malformed("a page"))?;
    let [cursor, found] = parts;
    let cursor = text(cursor)?.parse().map_err(|_| malformed("a cursor"))?;
    Ok((cursor, found))
}

/// The first error among replies, those within a transaction included.
pub(super) fn all_well(values: Vec<Value>) -> Result<(), LogError> {
    let mut aborted = None;
    for value in values {
        match value {
            Value::Array(values) => all_well(values)?,
            // What it was aborted for says more.
            Value::ServerError(error) if error.code() == "EXECABORT" => {
                aborted = Some(refusal(&error));
            }
            value => drop(check(value)?),
        }
    }
    aborted.map_or(Ok(()), Err)
}

fn entry(value: Value) -> Result<Entry, LogError> {
    let Value::Array(parts) = value else {
        return Err(malformed("an entry"));
    };
    let Ok([id, fields]) = <[Value; 2]>::try_from(parts) else {
        return Err(malformed("an entry"));
    };
    let id = entry_id(&id)?;
    let fields = pairs(fields)?
        .into_iter()
        .map(|(name, value)| Ok((bytes(name)?, bytes(value)?)))
        .collect::<Result<Vec<_>, LogError>>()?;
    Ok(Entry::new(id, fields))
}

/// A map of RESP3, or the flat list that RESP2 writes for one.
pub(super) fn pairs(value: Value) -> Result<Vec<(Value, Value)>, LogError> {
    match value {
        Value::Map(pairs) => Ok(pairs),
        Value::Array(flat) if flat.len() % 2 == 0 => {
            let mut pairs = Vec::with_capacity(flat.len() / 2);
            let mut flat = flat.into_iter();
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                pairs.push((name, value));
            }
            Ok(pairs)
        }
        _ => Err(malformed("a map")),
    }
}

/// The answer to XRANGE or XREVRANGE.
pub(super) fn entries(value: Value) -> Result<Vec<Entry>, LogError> {
    match check(value)? {
        Value::Array(list) => list.into_iter().map(entry).collect(),
        Value::Nil => Ok(Vec::new()),
        _ => Err(malformed("a list of entries")),
    }
}

/// The answer to XREAD: streams that have something, by key.
pub(super) fn streams(value: Value) -> Result<Vec<(Bytes, Vec<Entry>)>, LogError> {
    let list = match check(value)? {
        Value::Nil => return Ok(Vec::new()),
        Value::Map(pairs) => pairs,
        Value::Array(list) => list
            .into_iter()
            .map(|stream| match stream {
                Value::Array(parts) => <[Value; 2]>::try_from(parts)
                    .map(|[key, entries]| (key, entries))
                    .map_err(|_| malformed("a stream")),
                _ => Err(malformed("a stream")),
            })
            .collect::<Result<_, _>>()?,
        _ => return Err(malformed("a list of streams")),
    };
    list.into_iter()
        .map(|(key, list)| Ok((bytes(key)?, entries(list)?)))
        .collect()
}

/// The answer to XREAD of one stream.
pub(super) fn stream(value: Value) -> Result<Vec<Entry>, LogError> {
    Ok(streams(value)?
        .pop()
        .map(|(_, entries)| entries)
        .unwrap_or_default())
}

/// The answer to XINFO STREAM; `None` if there is no such key.
pub(super) fn stream_state(value: Value) -> Result<Option<StreamState>, LogError> {
    if let Value::ServerError(error) = &value
        && error.code() == "ERR"
        && error.details() == Some("no such key")
    {
        return Ok(None);
    }
    let number = |value: &Value| match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    let (mut first, mut last, mut len, mut added) = (None, None, None, None);
    for (name, value) in pairs(check(value)?)? {
        match bytes(name)?.as_ref() {
            b"length" => len = number(&value),
            b"entries-added" => added = number(&value),
            b"last-generated-id" => last = Some(entry_id(&value)?),
            b"first-entry" => {
                first = match value {
                    Value::Nil => None,
                    Value::Array(parts) if parts.is_empty() => None,
                    value => Some(entry(value)?.id),
                }
            }
            _ => {}
        }
    }
    match (last, len) {
        (Some(last), Some(len)) => Ok(Some(StreamState {
            first,
            last,
            len,
            added,
        })),
        _ => Err(malformed("a stream's state")),
    }
}

/// Reads a reply in every way there is.
#[cfg(fuzzing)]
pub(crate) fn fuzz(value: &Value) {
    let _ = entry_id(value);
    let _ = check(value.clone());
    let _ = entries(value.clone());
    let _ = stream_state(value.clone());
    let _ = scanned(value.clone());
    let _ = pairs(value.clone());
    let _ = text(value.clone());
    let _ = all_well(vec![value.clone()]);
    let last = stream(value.clone());
    match streams(value.clone()) {
        Ok(mut streams) => {
            let want = streams.pop().map_or(0, |(_, entries)| entries.len());
            assert_eq!(last.map(|entries| entries.len()), Ok(want));
        }
        Err(error) => assert_eq!(last.map(drop), Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(wire: &str) -> Value {
        redis::parse_redis_value(wire.as_bytes()).unwrap()
    }

    #[test]
    fn error_replies() {
        use LogError::*;
        let read_only = |text: &str| ReadOnly(text.to_owned());
        let full = |text: &str| Full(text.to_owned());
        let denied = |text: &str| Denied(text.to_owned());
        let no_perm = "NOPERM this user has no permissions to run the 'xread' command";
        let oom = "OOM command not allowed when used memory > 'maxmemory'.";
        let oom_7 = "OOM command not allowed when used memory > 'maxmemory'. script: 0af1, on @user_script:1.";
        let oom_6 = "ERR Error running script (call to f_0af1): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.";
        let misconf = "MISCONF Errors writing to the AOF file: No space left on device";
        let no_auth = "NOAUTH Authentication required.";
        let wrong_pass = "WRONGPASS invalid username-password pair or user is disabled.";
        let replica = "READONLY You can't write against a read only replica.";
        let stale =
            "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.";
        let few = "NOREPLICAS Not enough good replicas to write.";
        let clients = "ERR max number of clients reached";
        let acl =
            "ERR ACL failure in script: this user has no permissions to run the 'set' command";
        let end = "ERR The stream has exhausted the last possible ID, unable to add more items";
        let down = "CLUSTERDOWN The cluster is down";
        for (line, want) in [
            ("LOADING Redis is loading the dataset in memory", Loading),
            (replica, read_only(replica)),
            (stale, read_only(stale)),
            (few, read_only(few)),
            (oom, full(oom)),
            (oom_7, full(oom_7)),
            (oom_6, full(oom)),
            (misconf, full(misconf)),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value",
                WrongType,
            ),
            (no_auth, denied(no_auth)),
            (wrong_pass, denied(wrong_pass)),
            (no_perm, denied(no_perm)),
            (acl, denied(acl)),
            (clients, Unavailable(clients.to_owned())),
            (down, Unavailable(down.to_owned())),
            (end, Other(end.to_owned())),
            ("ODD", Other("ODD".to_owned())),
        ] {
            let error = check(parse(&format!("-{line}\r\n"))).unwrap_err();
            assert_eq!(error, want, "{line}");
        }
    }

    #[test]
    fn reads_of_both_protocols() {
        let entry = "*2\r\n$3\r\n5-1\r\n*4\r\n$1\r\na\r\n$2\r\n\u{e9}\r\n$1\r\na\r\n$0\r\n\r\n";
        for wire in [
            format!("*1\r\n*2\r\n$1\r\nk\r\n*1\r\n{entry}"),
            format!("%1\r\n$1\r\nk\r\n*1\r\n{entry}"),
        ] {
            let mut streams = streams(parse(&wire)).unwrap();
            let (key, entries) = streams.pop().unwrap();
            assert_eq!((key.as_ref(), streams.len()), (&b"k"[..], 0));
            assert_eq!(entries.len(), 1);
            assert_eq!(entries[0].id, EntryId::new(5, 1));
            assert_eq!(entries[0].fields.len(), 2);
            assert_eq!(entries[0].fields[0].1, "\u{e9}");
            assert_eq!(entries[0].fields[1].1, "");
        }
        for nil in ["*-1\r\n", "_\r\n"] {
            assert!(streams(parse(nil)).unwrap().is_empty());
        }
        assert!(entries(parse("*0\r\n")).unwrap().is_empty());
    }

    #[test]
    fn malformed_replies_are_errors() {
        for wire in [
            ":1\r\n",
            "+OK\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n*1\r\n$1\r\nk\r\n",
            "*1\r\n*2\r\n$1\r\nk\r\n:3\r\n",
            "*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$1\r\nx\r\n*0\r\n",
            "*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$3\r\n5-1\r\n*1\r\n$1\r\na\r\n",
            "*1\r\n*2\r\n$1\r\nk\r\n*1\r\n*2\r\n$3\r\n5-1\r\n_\r\n",
        ] {
            assert!(streams(parse(wire)).is_err(), "{wire}");
            assert!(stream_state(parse(wire)).is_err(), "{wire}");
        }
    }

    #[test]
    fn states() {
        let head = "$6\r\nlength\r\n:2\r\n$17\r\nlast-generated-id\r\n$3\r\n9-0\r\n";
        let first = "$11\r\nfirst-entry\r\n*2\r\n$3\r\n5-1\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        let state = |wire: String| stream_state(parse(&wire)).unwrap();
        let want = StreamState {
            first: Some(EntryId::new(5, 1)),
            last: EntryId::new(9, 0),
            len: 2,
            added: None,
        };
        // As 6.2 answers.
        assert_eq!(state(format!("*6\r\n{head}{first}")), Some(want));
        let added = "$13\r\nentries-added\r\n:7\r\n";
        let want = StreamState {
            added: Some(7),
            ..want
        };
        assert_eq!(state(format!("%4\r\n{head}{added}{first}")), Some(want));
        let want = StreamState {
            first: None,
            ..want
        };
        let none = "$11\r\nfirst-entry\r\n$-1\r\n";
        assert_eq!(state(format!("*8\r\n{head}{added}{none}")), Some(want));
        assert_eq!(state("-ERR no such key\r\n".to_owned()), None);
    }

    #[test]
    fn pages_and_transactions() {
        let page = "*2\r\n$2\r\n17\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n";
        let (cursor, found) = scanned(parse(page)).unwrap();
        assert_eq!((cursor, pairs(found).unwrap().len()), (17, 1));
        for wire in [":1\r\n", "*1\r\n$1\r\n0\r\n", "*2\r\n$1\r\nx\r\n*0\r\n"] {
            assert!(scanned(parse(wire)).is_err(), "{wire}");
        }
        let well = |wires: &[&str]| all_well(wires.iter().map(|wire| parse(wire)).collect());
        let (queued, oom) = ("+QUEUED\r\n", "-OOM command not allowed\r\n");
        let abort = "-EXECABORT Transaction discarded because of previous errors.\r\n";
        assert_eq!(well(&["+OK\r\n", queued, "*1\r\n:1\r\n"]), Ok(()));
        assert_eq!(
            well(&[queued, oom, abort]).unwrap_err().code(),
            "redis_full"
        );
        assert_eq!(well(&[abort]).unwrap_err().code(), "redis_error");
        let inside = "*2\r\n:1\r\n-WRONGTYPE Operation\r\n";
        assert_eq!(well(&[queued, inside]), Err(LogError::WrongType));
    }
}
