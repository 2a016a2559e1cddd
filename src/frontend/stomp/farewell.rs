//! Farewells: what goes out in the name of a client that is gone, to where it said that it's there.
//!
//! Chat pages say so in a message of their own, as `{"sender":"alice","type":"JOIN"}`, to a
//! destination that the settings mark with `enter:`. When the connection ends, this node says the same
//! with the type `LEAVE`. A node that dies can't; who must know has presence.

use serde_json::{Map, Value};

use super::request::{MESSAGE, Send};

/// Farewells one client may leave.
pub(super) const FAREWELLS_MAX: usize = 16;

/// Who a message says it is from.
pub(super) fn sender(send: &Send) -> Option<String> {
    let (_, body) = send.fields.first()?;
    let said: Map<String, Value> = serde_json::from_slice(body).ok()?;
    let sender = said.get("sender")?.as_str()?;
    (!sender.is_empty()).then(|| sender.to_owned())
}

/// What is to be said in the end, for a message that says somebody came. None, if that is no JSON
/// object.
pub(super) fn of(send: &Send) -> Option<Send> {
    let (_, body) = send.fields.first()?;
    let mut said: Map<String, Value> = serde_json::from_slice(body).ok()?;
    said.shift_remove("content");
    said.insert("type".to_owned(), "LEAVE".into());
    let body = serde_json::to_vec(&said).ok()?;
    let mut fields = send.fields.clone();
    let (name, value) = fields.first_mut()?;
    debug_assert_eq!(name, MESSAGE.as_bytes());
    *value = body.into();
    Some(Send {
        fields,
        key: None,
        ..send.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::stomp::destination::Aliases;
    use bytes::Bytes;

    #[test]
    fn what_is_said() {
        let check = |body: &'static str, want: Option<&str>| {
            let send = Send {
                target: Aliases::default().target("/topic/a").unwrap(),
                fields: Box::new([
                    (Bytes::from(MESSAGE), Bytes::from(body)),
                    (Bytes::from("a"), Bytes::from("b")),
                ]),
                key: Some(Bytes::from("k")),
            };
            let said = of(&send);
            assert_eq!(
                said.as_ref().map(|said| said.fields[0].1.as_ref()),
                want.map(str::as_bytes),
                "{body}"
            );
            assert!(said.is_none_or(|said| said.key.is_none() && said.fields.len() == 2));
        };
        check(
            r#"{"sender":"alice","type":"JOIN"}"#,
            Some(r#"{"sender":"alice","type":"LEAVE"}"#),
        );
        check(
            r#"{"type":"JOIN","content":"hi","sender":"bob","x":1}"#,
            Some(r#"{"type":"LEAVE","sender":"bob","x":1}"#),
        );
        check("alice", None);
        check("[1]", None);
    }
}
