//! What the relay delivers as MESSAGE frames: the part that all clients share, encoded once for each
//! [`Coding`], and what a connection makes of it for each of its subscriptions.
//!
//! ```text
//! the body of a record
//! 0         4 bytes
//! +---------+-------------+------------------+--------------------+
//! | oldest, | length of   | for any client   | for clients that   |
//! | BINARY  | the next *  |                  | said `x-binary` *  |
//! +---------+-------------+------------------+--------------------+
//! * only with the bit BINARY
//! ```
//!
//! The first byte has the oldest version whose clients can read the rest as it stands. For older ones,
//! which escape less in headers, each connection writes it anew.
//!
//! An entry's message is the body. Its other fields are headers, as far as [`header::of`] says that
//! they can be; the others are left out, and `x-omitted` says how many they were. Many clients end a
//! frame at the first NUL byte, whatever `content-length` says, so that a body with one comes in base64
//! unless the client said that it can read it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use memchr::{memchr, memmem};

use super::frame::{Version, encode, put_as, put_header};
use super::header;
use super::request::MESSAGE;
use crate::frontend::carried::{Coding, Envelope, quoted};
use crate::frontend::carrier::Finish;
use crate::frontend::json;
use crate::frontend::record::{self, Kind, Record};
use crate::relay::close::CloseReason;
use crate::relay::entry::{Entry, EntryId, RoomName};
use crate::relay::format::{Format, Gap, GapFrame};

/// Entries as records, of which [`Frames`] makes frames.
static BYTES: Format = Format {
    slot: 8,
    entry: |room, entry| encode_entry(Coding::Bytes, room, entry),
    gap: |room, gap| encode_gap(Coding::Bytes, room, gap),
    aside: |_| None,
    close,
};

/// The same for carriers of text.
static QUOTED: Format = Format {
    slot: 10,
    entry: |room, entry| encode_entry(Coding::Quoted, room, entry),
    gap: |room, gap| encode_gap(Coding::Quoted, room, gap),
    ..BYTES
};

/// The format for a carrier's coding.
pub(super) fn format(coding: Coding) -> &'static Format {
    match coding {
        Coding::Bytes => &BYTES,
        Coding::Quoted => &QUOTED,
    }
}

/// Counts the fields that a MESSAGE does not have.
const OMITTED: &str = "x-omitted";

const LENGTH: &str = "content-length";

/// Says that a record has two forms.
const BINARY: u8 = 0x80;

/// How a body is written that can't be as it is.
const ENCODING: &str = "content-transfer-encoding";

/// Headers behind those of the subscription, blank line, body, NUL. A body that is no text is base64
/// where only text passes, and one with a NUL byte for clients that may not read past it.
fn encode_entry(coding: Coding, room: &RoomName, entry: &Entry) -> Bytes {
    let message = entry.message();
    let is_unfit = coding == Coding::Quoted && std::str::from_utf8(message).is_err();
    let has_nul = memchr(0, message).is_some();
    let any = written(entry, is_unfit || has_nul);
    let binary = (has_nul && !is_unfit).then(|| written(entry, false));
    share(Kind::Entry, coding, room, entry.id, &any, binary.as_deref())
}

fn written(entry: &Entry, is_base64: bool) -> Vec<u8> {
    let message = entry.message();
    let mut out = Vec::with_capacity(160 + entry.size());
    put_header(&mut out, "message-id", &entry.id.to_string());
    put_header(&mut out, "timestamp", &entry.id.ms.to_string());
    if is_base64 {
        put_header(&mut out, ENCODING, "base64");
    }
    let omitted = put_fields(&mut out, entry);
    if omitted > 0 {
        put_header(&mut out, OMITTED, &omitted.to_string());
    }
    match is_base64 {
        true => put_body(&mut out, STANDARD.encode(message).as_bytes()),
        false => put_body(&mut out, message),
    }
    out
}

/// The record of what is shared, written as in STOMP 1.2: for any client, and for those that can read
/// NUL bytes in a body, if that is something else.
fn share(
    kind: Kind,
    coding: Coding,
    room: &RoomName,
    id: EntryId,
    any: &[u8],
    binary: Option<&[u8]>,
) -> Bytes {
    let (lines, _) = split(any);
    // Where nothing is escaped, all versions agree; on CR the last two don't.
    let oldest = match memchr(b'\\', lines) {
        None => Version::V10,
        Some(_) if memmem::find(lines, br"\r").is_none() => Version::V11,
        Some(_) => Version::V12,
    };
    let length = any.len() + binary.map_or(0, <[u8]>::len);
    let mut body = Vec::with_capacity(8 + length + length / 8);
    body.push(oldest as u8);
    if binary.is_some() {
        body.extend_from_slice(&[0; 4]);
    }
    let begin = body.len();
    coding.put(&mut body, any);
    if let Some(binary) = binary {
        // A frame in has at most some MiB, and Redis takes no more than half a GiB.
        let length = (body.len() - begin) as u32;
        body[0] |= BINARY;
        body[1..begin].copy_from_slice(&length.to_be_bytes());
        coding.put(&mut body, binary);
    }
    record::encode(kind, room, id, &body)
}

/// The oldest version that a record's frame stands as it is for, and the frame, for a client that can
/// read NUL bytes in a body or may not.
fn shared(body: &[u8], is_binary: bool) -> Option<(u8, &[u8])> {
    let (first, rest) = body.split_first()?;
    if first & BINARY == 0 {
        return Some((*first, rest));
    }
    let (length, rest) = rest.split_first_chunk()?;
    let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
    let (any, binary) = rest.split_at_checked(length)?;
    Some((first & !BINARY, if is_binary { binary } else { any }))
}

/// The header lines, and what follows them.
fn split(frame: &[u8]) -> (&[u8], &[u8]) {
    let end = memmem::find(frame, b"\n\n").map_or(frame.len(), |at| at + 1);
    frame.split_at(end)
}

/// Appends the fields beside the message; how many can't be headers. A repeated one is repeated, of
/// which most clients take the first and some the last.
fn put_fields(out: &mut Vec<u8>, entry: &Entry) -> usize {
    let is_body = |name: &[u8]| name == MESSAGE.as_bytes();
    let mut fields = entry.fields.iter();
    let body = fields.position(|(name, _)| is_body(name)).unwrap_or(0);
    let (mut written, mut omitted) = (0, 0);
    for (at, (name, value)) in entry.fields.iter().enumerate() {
        if at == body {
            continue;
        }
        let header = header::of(name, value)
            .filter(|(name, _)| written < header::FIELDS_MAX || header::is_user(name));
        match header {
            Some((name, value)) => {
                written += 1;
                put_header(out, name, value);
            }
            None => omitted += 1,
        }
    }
    omitted
}

/// Adds to the count of fields that header lines do not have, which stands where [`written`] puts it:
/// in front of the length.
fn recount(lines: &mut Vec<u8>, more: usize) {
    let of = |line: &[u8], name: &str| {
        let rest = line.strip_prefix(name.as_bytes());
        rest.is_some_and(|rest| rest.starts_with(b":"))
    };
    let mut counted = 0;
    let mut out = Vec::with_capacity(lines.len() + 16);
    for line in lines.split_inclusive(|byte| *byte == b'\n') {
        if of(line, OMITTED) {
            let count = String::from_utf8_lossy(&line[OMITTED.len() + 1..]);
            counted = count.trim_end().parse().unwrap_or(0);
            continue;
        }
        if of(line, LENGTH) {
            put_header(&mut out, OMITTED, &(counted + more).to_string());
        }
        out.extend_from_slice(line);
    }
    *lines = out;
}

fn put_body(out: &mut Vec<u8>, body: &[u8]) {
    put_header(out, LENGTH, &body.len().to_string());
    out.push(b'\n');
    out.extend_from_slice(body);
    out.push(0);
}

/// A gap as a MESSAGE without an ID, whose body says the same as its headers.
fn encode_gap(coding: Coding, room: &RoomName, gap: &Gap) -> GapFrame {
    let mut out = Vec::with_capacity(256);
    put_header(&mut out, "x-gap-after", &gap.after.to_string());
    put_header(&mut out, "x-gap-before", &gap.before.to_string());
    put_header(&mut out, "x-gap-reason", gap.reason.as_str());
    put_header(&mut out, "content-type", "application/json");
    put_body(&mut out, &json::gap_json(room, gap, true));
    GapFrame::Frame(share(Kind::Gap, coding, room, gap.before, &out, None))
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
    /// `MESSAGE` and the headers that only this one has, coded.
    head: Box<[u8]>,
    acks: bool,
}

/// Subscriptions that a connection has of one room. Each makes a frame of its own of every entry, so
/// that without a bound one entry could fill the memory.
const SUBSCRIPTIONS_MAX: usize = 32;

/// What became of a new subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Subscribed {
    /// It's the first of its room, which is to be joined.
    First,
    /// It shares the place of another, or is there already.
    Shares,
    /// It will, once the room is joined; its receipt is said then.
    Waits,
    /// There is one of that name for another destination.
    Exists,
    /// There are too many of that room.
    TooMany,
}

/// A room that is being joined, with the receipts of subscriptions that wait for it.
type Joining = (RoomName, Vec<Box<str>>);

/// Makes the frames of one connection.
pub(super) struct Frames {
    envelope: &'static Envelope,
    version: Version,
    /// The client reads as many bytes of a body as `content-length` says, whatever they are.
    is_binary: bool,
    subscriptions: Vec<Subscription>,
    /// Mostly none.
    joining: Vec<Joining>,
    /// The client has been told ERROR, or needs none.
    told: bool,
}

impl Frames {
    pub(super) fn new(envelope: &'static Envelope) -> Self {
        Frames {
            envelope,
            version: Version::V10,
            is_binary: false,
            subscriptions: Vec::new(),
            joining: Vec::new(),
            told: false,
        }
    }

    /// The client has logged in with that version, and said whether a body may have NUL bytes.
    pub(super) fn agree(&mut self, version: Version, is_binary: bool) {
        self.version = version;
        self.is_binary = is_binary;
    }

    /// The client has been told why the connection ends.
    pub(super) fn set_told(&mut self) {
        self.told = true;
    }

    /// Adds a subscription. One that is the same in everything is not added again.
    pub(super) fn subscribe(
        &mut self,
        id: &str,
        destination: &str,
        room: &RoomName,
        acks: bool,
        receipt: Option<&str>,
    ) -> Subscribed {
        let head = self.head(id, destination);
        let mut subscriptions = self.subscriptions.iter();
        let same = subscriptions.find(|other| *other.id == *id);
        if same.is_some_and(|same| same.room != *room || same.head != head) {
            return Subscribed::Exists;
        }
        let is_new = same.is_none();
        let others = self.subscriptions.iter();
        let others = others.filter(|other| other.room == *room).count();
        if is_new && others >= SUBSCRIPTIONS_MAX {
            return Subscribed::TooMany;
        }
        let subscribed = match self.joining.iter_mut().find(|(other, _)| other == room) {
            Some((_, receipts)) => {
                receipts.extend(receipt.map(Box::from));
                Subscribed::Waits
            }
            None if others > 0 => Subscribed::Shares,
            None => {
                let receipts = receipt.map(Box::from).into_iter().collect();
                self.joining.push((room.clone(), receipts));
                Subscribed::First
            }
        };
        if is_new {
            self.subscriptions.push(Subscription {
                id: id.into(),
                room: room.clone(),
                head,
                acks,
            });
        }
        subscribed
    }

    /// What is in front of every MESSAGE of a subscription, coded.
    fn head(&self, id: &str, destination: &str) -> Box<[u8]> {
        let mut lines = Vec::new();
        // A client of 1.0 that gave no name goes by the destination.
        if id != destination || self.version != Version::V10 {
            put_header(&mut lines, "subscription", id);
        }
        put_header(&mut lines, "destination", destination);
        let mut head = b"MESSAGE\n".to_vec();
        put_as(&mut head, &lines, self.version);
        let mut coded = Vec::with_capacity(head.len() + 8);
        self.envelope.coding.put(&mut coded, &head);
        coded.into()
    }

    /// A room is joined, or won't be: the receipts that waited for it.
    pub(super) fn joined(&mut self, room: &RoomName) -> Vec<Box<str>> {
        let at = self.joining.iter().position(|(other, _)| other == room);
        let receipts = at.map(|at| self.joining.swap_remove(at).1);
        receipts.unwrap_or_default()
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
            let mut line = Vec::new();
            put_header(&mut line, "ack", &record.id.to_string());
            self.envelope.coding.put(&mut ack, &line);
        }
        (self.envelope.wrap)(out, &[&to.head, &ack, rest]);
    }

    /// The shared part as a client of an older version can read it.
    fn adapted(&self, shared: &[u8]) -> Vec<u8> {
        let coding = self.envelope.coding;
        let plain = match coding {
            Coding::Bytes => Cow::Borrowed(shared),
            Coding::Quoted => quoted::read(shared).unwrap_or_default().into_bytes().into(),
        };
        let (lines, rest) = split(&plain);
        let mut adapted = Vec::with_capacity(plain.len());
        let omitted = put_as(&mut adapted, lines, self.version);
        if omitted > 0 {
            recount(&mut adapted, omitted);
        }
        adapted.extend_from_slice(rest);
        let mut out = Vec::with_capacity(shared.len());
        coding.put(&mut out, &adapted);
        out
    }

    fn close(&self, body: &[u8], out: &mut Vec<u8>) {
        let Some((code, rest)) = body.split_first_chunk() else {
            return;
        };
        let rest = String::from_utf8_lossy(rest);
        let (word, text) = rest.split_once('\0').unwrap_or_default();
        if !self.told && !word.is_empty() {
            let headers = [("message", text), ("code", word)];
            let error = encode("ERROR", &headers, text, self.version);
            self.envelope.put(out, &error);
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
                let Some((oldest, shared)) = shared(record.body, self.is_binary) else {
                    return;
                };
                let rest = match self.version as u8 >= oldest {
                    true => Cow::Borrowed(shared),
                    false => Cow::Owned(self.adapted(shared)),
                };
                to.for_each(|to| self.message(to, &record, &rest, out));
            }
            // Nothing is told beside the streams, and what is the connection's own never comes here.
            Kind::Aside | Kind::Own => {}
        }
    }
}

#[cfg(test)]
mod tests;
