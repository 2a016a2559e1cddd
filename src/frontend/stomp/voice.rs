//! What the server itself says to a client: CONNECTED, RECEIPT, ERROR, heart-beats.

use std::sync::Arc;

use bytes::Bytes;

use super::frame::{Version, encode};
use super::message::Frames;
use super::refused::Refused;
use crate::frontend::carried::Envelope;
use crate::frontend::carrier::Lane;
use crate::frontend::record::{self, Kind};
use crate::relay::outlet::Outlet;

/// Speaks to one client. Clones do the same, for answers that come later.
#[derive(Clone)]
pub(super) struct Voice {
    pub(super) lane: Arc<Lane<Frames>>,
    pub(super) envelope: &'static Envelope,
    pub(super) version: Version,
}

impl Voice {
    /// A message, ready for the outlet.
    fn own(&self, message: &[u8]) -> Bytes {
        let mut out = Vec::with_capacity(message.len() + 16);
        self.envelope.put(&mut out, message);
        record::bare(Kind::Own, &out)
    }

    /// A heart-beat.
    pub(super) fn beat(&self) -> Bytes {
        self.own(b"\n")
    }

    /// The answer to a log-in. It's the one frame that is never escaped.
    pub(super) fn connected(&self, headers: &[(&str, &str)]) -> Bytes {
        self.own(&encode("CONNECTED", headers, "", Version::V10))
    }

    /// A receipt, with headers of its own.
    pub(super) fn receipt(&self, receipt: &str, others: &[(&str, &str)]) -> Bytes {
        let headers = [&[("receipt-id", receipt)], others].concat();
        self.own(&encode("RECEIPT", &headers, "", self.version))
    }

    /// Says why, and ends the connection.
    pub(super) fn refuse(&self, outlet: &Arc<Outlet>, receipt: Option<&str>, refused: &Refused) {
        let retry = refused.retry.map(|retry| retry.as_millis().to_string());
        let mut headers = vec![
            ("message", refused.message.as_str()),
            ("code", refused.code),
            ("content-type", "text/plain"),
        ];
        headers.extend(receipt.map(|receipt| ("receipt-id", receipt)));
        headers.extend(retry.as_deref().map(|retry| ("retry-ms", retry)));
        if refused.code == "bad_version" {
            headers.push(("version", "1.0,1.1,1.2"));
        }
        let text = &refused.message;
        outlet.send(self.own(&encode("ERROR", &headers, text, self.version)));
        self.lane.with(Frames::set_told);
        outlet.close(refused.reason.clone());
    }
}
