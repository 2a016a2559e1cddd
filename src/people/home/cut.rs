//! Bounds a message's size, so that a homepage of long messages stays a page.

use std::sync::Arc;

use bytes::Bytes;

use super::Message;
use crate::relay::entry::Entry;

/// Bytes of names and values shown of one message: a long chat message whole. With ten of them in 200
/// rooms it's 4 MiB at the very most.
const SHOWN_MAX: usize = 2 * 1024;

/// The entry as it's shown.
pub(super) fn message(entry: Arc<Entry>) -> Message {
    if entry.size() <= SHOWN_MAX {
        return Message {
            entry,
            is_cut: false,
        };
    }
    // Who said it comes last, and is never what is left out.
    let user = entry.fields.last().filter(|(name, _)| name == "user");
    let mut left = SHOWN_MAX.saturating_sub(user.map_or(0, |(name, user)| name.len() + user.len()));
    let others = &entry.fields[..entry.fields.len() - usize::from(user.is_some())];
    let mut fields = Vec::with_capacity(entry.fields.len().min(64));
    for (name, value) in others {
        if name.len() >= left {
            continue;
        }
        left -= name.len();
        let shown = head(value, left);
        left -= shown.len();
        fields.push((name.clone(), shown));
    }
    fields.extend(user.cloned());
    Message {
        // Its own bytes: a piece of a large buffer would keep all of it.
        entry: Arc::new(Entry::new(entry.id, own(fields))),
        is_cut: true,
    }
}

/// At most so many bytes of a value, and no character in part. Of what is no text, all or nothing.
fn head(value: &Bytes, most: usize) -> Bytes {
    if value.len() <= most {
        return value.clone();
    }
    match std::str::from_utf8(value) {
        Ok(text) => {
            let ends = (0..=most).rev();
            let end = ends.into_iter().find(|end| text.is_char_boundary(*end));
            value.slice(..end.unwrap_or(0))
        }
        Err(_) => Bytes::new(),
    }
}

fn own(fields: Vec<(Bytes, Bytes)>) -> Vec<(Bytes, Bytes)> {
    let own = |bytes: Bytes| Bytes::copy_from_slice(&bytes);
    let fields = fields.into_iter();
    fields
        .map(|(name, value)| (own(name), own(value)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::entry::EntryId;

    fn check(fields: &[(&str, &[u8])], want: &[(&str, usize)], is_cut: bool) {
        let bytes = |(name, value): &(&str, &[u8])| {
            let name = Bytes::copy_from_slice(name.as_bytes());
            (name, Bytes::copy_from_slice(value))
        };
        let fields: Vec<(Bytes, Bytes)> = fields.iter().map(bytes).collect();
        let shown = message(Arc::new(Entry::new(EntryId::new(1, 0), fields)));
        let sizes = |(name, value): &(Bytes, Bytes)| {
            let name = String::from_utf8_lossy(name).into_owned();
            (name, value.len())
        };
        let got: Vec<(String, usize)> = shown.entry.fields.iter().map(sizes).collect();
        let got: Vec<(&str, usize)> = got.iter().map(|(name, len)| (&**name, *len)).collect();
        assert_eq!((got.as_slice(), shown.is_cut), (want, is_cut));
        assert!(shown.entry.size() <= SHOWN_MAX);
    }

    #[test]
    fn long_messages() {
        let long = "é".repeat(SHOWN_MAX);
        let long = long.as_bytes();
        check(
            &[("message", b"hi"), ("user", b"ann")],
            &[("message", 2), ("user", 3)],
            false,
        );
        // 2048 - 7 for the two names' rest, and whole characters.
        check(
            &[("message", long), ("user", b"ann")],
            &[("message", 2034), ("user", 3)],
            true,
        );
        check(
            &[("a", &[0xff; 4096]), ("message", b"hi")],
            &[("a", 0), ("message", 2)],
            true,
        );
        check(&[("m", long), ("n", b"x")], &[("m", 2046)], true);
        let long_name = "n".repeat(SHOWN_MAX + 1);
        check(&[(&long_name, b"x"), ("m", b"hi")], &[("m", 2)], true);
    }
}
