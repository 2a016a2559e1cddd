//! What the relay delivers as MESSAGE frames: the part that all clients share, encoded once, and
//! what a connection makes of it for each of its subscriptions.
//!
//! An entry's message is the body. Its other fields are headers, as far as they can be: a name or
//! value that is not UTF-8, and a name that the protocol has for itself, is left out, and
//! `x-omitted` says how many were.

use bytes::Bytes;
use memchr::memmem;

use super::frame::{LINE_MAX, Version, encode, put_as, put_header};
use super::request::MESSAGE;
use crate::frontend::carried::Envelope;
use crate::frontend::carrier::Finish;
use crate::frontend::json;
use crate::frontend::record::{self, Kind, Record};
use crate::relay::close::CloseReason;
use crate::relay::entry::{Entry, RoomName};
use crate::relay::format::{Format, Gap, GapFrame};

/// Entries as records, of which [`Frames`] makes frames.
pub(super) static STOMP: Format = Format {
    slot: 8,
    entry,
    gap,
    aside: |_| None,
    close,
};

/// Headers that say something else in a MESSAGE than a field of that name would.
const OWN: [&[u8]; 10] = [
    b"subscription",
    b"destination",
    b"message-id",
    b"ack",
    b"content-length",
    b"timestamp",
    b"x-omitted",
    b"x-gap-after",
    b"x-gap-before",
    b"x-gap-reason",
];

/// Headers behind those of the subscription, blank line, body, NUL.
fn entry(room: &RoomName, entry: &Entry) -> Bytes {
    let message = entry.message();
    let mut out = Vec::with_capacity(160 + entry.size());
    put_header(&mut out, "message-id", &entry.id.to_string());
    put_header(&mut out, "timestamp", &entry.id.ms.to_string());
    let omitted = put_fields(&mut out, entry);
    if omitted > 0 {
        put_header(&mut out, "x-omitted", &omitted.to_string());
    }
    put_body(&mut out, message);
    record::encode(Kind::Entry, room, entry.id, &out)
}

/// Appends the fields beside the message; how many can't be headers. A repeated one is repeated, of
/// which clients take the first.
fn put_fields(out: &mut Vec<u8>, entry: &Entry) -> usize {
    let is_body = |name: &[u8]| name == MESSAGE.as_bytes();
    let mut fields = entry.fields.iter();
    let body = fields.position(|(name, _)| is_body(name)).unwrap_or(0);
    let mut omitted = 0;
    for (at, (name, value)) in entry.fields.iter().enumerate() {
        if at == body {
            continue;
        }
        let can_be = !name.is_empty()
            && !OWN.contains(&name.as_ref())
            && name.len() + value.len() < LINE_MAX / 2;
        match (std::str::from_utf8(name), std::str::from_utf8(value)) {
            (Ok(name), Ok(value)) if can_be => put_header(out, name, value),
            _ => omitted += 1,
        }
    }
    omitted
}

fn put_body(out: &mut Vec<u8>, body: &[u8]) {
    put_header(out, "content-length", &body.len().to_string());
    out.push(b'\n');
    out.extend_from_slice(body);
    out.push(0);
}

/// A gap as a MESSAGE without an ID, whose body says the same as its headers.
fn gap(room: &RoomName, gap: &Gap) -> GapFrame {
    let mut out = Vec::with_capacity(256);
    put_header(&mut out, "x-gap-after", &gap.after.to_string());
    put_header(&mut out, "x-gap-before", &gap.before.to_string());
    put_header(&mut out, "x-gap-reason", gap.reason.as_str());
    put_header(&mut out, "content-type", "application/json");
    put_body(&mut out, &json::gap_json(room, gap, true));
    GapFrame::Frame(record::encode(Kind::Gap, room, gap.before, &out))
}

/// Code, word, NUL, text.
fn close(reason: &CloseReason) -> Bytes {
    let word = match reason {
        CloseReason::Gone => return Bytes::new(),
        // No error: the client comes back, or has said good-bye.
        CloseReason::Drain | CloseReason::Protocol(1000, _) => "",
        reason => reason.word(),
    };
    let code = reason.code().to_be_bytes();
    let text = reason.text();
    record::bare(
        Kind::Close,
        &[&code, word.as_bytes(), b"\0", text.as_bytes()].concat(),
    )
}

/// One of a connection's subscriptions.
struct Subscription {
    id: Box<str>,
    room: RoomName,
    /// `MESSAGE` and the headers that only this one has.
    head: Box<[u8]>,
    acks: bool,
}

/// Makes the frames of one connection.
pub(super) struct Frames {
    envelope: &'static Envelope,
    version: Version,
    subscriptions: Vec<Subscription>,
    /// The client has been told ERROR, or needs none.
    told: bool,
}

impl Frames {
    pub(super) fn new(envelope: &'static Envelope) -> Self {
        Frames {
            envelope,
            version: Version::V10,
            subscriptions: Vec::new(),
            told: false,
        }
    }

    /// The client has logged in with that version.
    pub(super) fn agree(&mut self, version: Version) {
        self.version = version;
    }

    /// The client has been told why the connection ends.
    pub(super) fn set_told(&mut self) {
        self.told = true;
    }

    /// Adds a subscription; whether it's the first of its room, or none if there is one of that name.
    pub(super) fn subscribe(
        &mut self,
        id: &str,
        destination: &str,
        room: &RoomName,
        acks: bool,
    ) -> Option<bool> {
        if self.subscriptions.iter().any(|other| *other.id == *id) {
            return None;
        }
        let is_first = !self.has(room);
        let mut lines = Vec::new();
        // A client of 1.0 that gave no name goes by the destination.
        if id != destination || self.version != Version::V10 {
            put_header(&mut lines, "subscription", id);
        }
        put_header(&mut lines, "destination", destination);
        let mut head = b"MESSAGE\n".to_vec();
        put_as(&mut head, &lines, self.version);
        self.subscriptions.push(Subscription {
            id: id.into(),
            room: room.clone(),
            head: head.into(),
            acks,
        });
        Some(is_first)
    }

    fn has(&self, room: &RoomName) -> bool {
        self.subscriptions.iter().any(|other| other.room == *room)
    }

    /// Ends a subscription; its room, and whether it was the last one of that.
    pub(super) fn unsubscribe(&mut self, id: &str) -> Option<(RoomName, bool)> {
        let mut subscriptions = self.subscriptions.iter();
        let at = subscriptions.position(|other| *other.id == *id)?;
        let room = self.subscriptions.remove(at).room;
        let is_last = !self.has(&room);
        Some((room, is_last))
    }

    /// One MESSAGE, for one subscription.
    fn message(&self, to: &Subscription, record: &Record<'_>, rest: &[u8], out: &mut Vec<u8>) {
        let mut ack = Vec::new();
        if to.acks && record.kind == Kind::Entry && self.version == Version::V12 {
            put_header(&mut ack, "ack", &record.id.to_string());
        }
        (self.envelope.wrap)(out, &[&to.head, &ack, rest]);
    }

    /// The shared part as this client can read it; none if it's as it stands.
    fn adapted(&self, shared: &[u8]) -> Option<Vec<u8>> {
        let is_fit = !self.envelope.text_only || std::str::from_utf8(shared).is_ok();
        if is_fit && self.version == Version::V12 {
            return None;
        }
        let end = memmem::find(shared, b"\n\n").map_or(shared.len(), |at| at + 1);
        let (lines, rest) = shared.split_at(end);
        let mut out = Vec::with_capacity(shared.len());
        if is_fit {
            put_as(&mut out, lines, self.version);
            out.extend_from_slice(rest);
            return Some(out);
        }
        let lines = lines.split_inclusive(|byte| *byte == b'\n');
        for line in lines.filter(|line| !line.starts_with(b"content-length:")) {
            put_as(&mut out, line, self.version);
        }
        let body = rest.strip_prefix(b"\n").unwrap_or(rest);
        let body = body.strip_suffix(&[0]).unwrap_or(body);
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, body);
        put_header(&mut out, "content-transfer-encoding", "base64");
        put_body(&mut out, body.as_bytes());
        Some(out)
    }

    fn close(&self, body: &[u8], out: &mut Vec<u8>) {
        let Some((code, rest)) = body.split_first_chunk() else {
            return;
        };
        let rest = String::from_utf8_lossy(rest);
        let (word, text) = rest.split_once('\0').unwrap_or_default();
        if !self.told && !word.is_empty() {
            let headers = [("message", text), ("code", word)];
            let error = encode("ERROR", &headers, text.as_bytes(), self.version);
            (self.envelope.wrap)(out, &[&error]);
        }
        (self.envelope.close)(out, u16::from_be_bytes(*code), text);
    }
}

impl Finish for Frames {
    fn finish(&mut self, record: Record<'_>, out: &mut Vec<u8>) {
        match record.kind {
            Kind::Close => self.close(record.body, out),
            Kind::Entry | Kind::Gap => {
                let all = self.subscriptions.iter();
                let mut to = all.filter(|to| to.room.as_str() == record.room).peekable();
                if to.peek().is_none() {
                    return;
                }
                let adapted = self.adapted(record.body);
                let rest = adapted.as_deref().unwrap_or(record.body);
                to.for_each(|to| self.message(to, &record, rest, out));
            }
            // Nothing is told beside the streams, and what is the connection's own never comes here.
            Kind::Aside | Kind::Own => {}
        }
    }
}

#[cfg(test)]
mod tests;
