//! [`Profile`]: what a test server does in place of rooms. The protocol's own suites expect one that
//! answers what it's sent; `examples/socketio_echo.rs` is that, over the same transports and packets.

use std::fmt::Debug;

use bytes::Bytes;

use super::assembly::Whole;
use super::packet::{Args, Kind, head};
use super::stamp::text_frame;
use crate::frontend::websocket::frame::{Opcode, frame};

/// Answers clients by itself; there are no rooms then.
pub trait Profile: Debug + Send + Sync {
    /// Whether messages are Engine.IO's alone, and go back as they came.
    fn is_raw(&self) -> bool;

    /// An event, as an array, for a client that came into a namespace with this JSON object; none
    /// where there is no such namespace.
    fn on_connect(&self, namespace: &str, auth: &str) -> Option<String>;

    /// The name of the event that an event is answered with; without one it goes back as its
    /// acknowledgement.
    fn on_event(&self, name: &str) -> Option<String>;
}

impl dyn Profile {
    /// A raw message's answer.
    pub(super) fn echo(&self, text: &str) -> String {
        format!("4{text}")
    }
}

/// What an event is answered with: its own arguments and attachments.
pub(super) fn answer(profile: &dyn Profile, whole: &Whole) -> Option<Bytes> {
    let args = Args::of(&whole.json).ok()?;
    let (kind, json, ack) = match (profile.on_event(&args.name().ok()?), whole.ack) {
        (Some(name), _) => {
            let name = serde_json::to_string(&name).ok()?;
            let rest = args.rest();
            let inner = &rest[1..];
            let comma = if inner == "]" { "" } else { "," };
            (Kind::Event, format!("[{name}{comma}{inner}"), None)
        }
        (None, ack) => (Kind::Ack, args.rest(), Some(ack?)),
    };
    let head = head(kind, false, whole.attachments.len(), &whole.namespace, ack);
    let mut out = Vec::new();
    text_frame(&[head.as_bytes(), json.as_bytes()], &mut out);
    for attachment in &whole.attachments {
        out.extend_from_slice(&frame(Opcode::Binary, attachment));
    }
    Some(out.into())
}
