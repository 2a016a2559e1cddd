//! Session IDs. A transport's is a secret between client and server and names the node that has the
//! session, so that any node can pass a request on. A socket's is for everybody to see.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Random bytes: nobody guesses 120 bits.
const RANDOM: usize = 15;

/// A transport's ID, as a client shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sid<'a> {
    /// The node that has the session.
    pub(super) node: &'a str,
    /// What only the client knows.
    pub(super) secret: [u8; RANDOM],
}

impl<'a> Sid<'a> {
    /// A new one of this node.
    pub(super) fn new(node: &'a str) -> Self {
        Sid {
            node,
            secret: rand::random(),
        }
    }

    /// Reads one.
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (secret, node) = text.split_once('.')?;
        let secret = URL_SAFE_NO_PAD.decode(secret).ok()?.try_into().ok()?;
        let plain = |b: u8| b.is_ascii_alphanumeric();
        let is_node = !node.is_empty() && node.len() <= 64 && node.bytes().all(plain);
        is_node.then_some(Sid { node, secret })
    }

    /// It as text.
    pub(super) fn text(&self) -> String {
        format!("{}.{}", URL_SAFE_NO_PAD.encode(self.secret), self.node)
    }
}

/// A new public ID of a socket.
pub(super) fn public() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; RANDOM]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn read_back() {
        let sid = Sid::new("00ff");
        let text = sid.text();
        assert_eq!(Sid::parse(&text), Some(sid));
        assert_eq!(text.len(), 20 + 1 + 4);
        assert_ne!(Sid::new("00ff").text(), text);
        let long = format!("{}{}", text, "f".repeat(64));
        for bad in [
            "",
            ".",
            ".00ff",
            "AAAA.00ff",
            &text[..20],
            &text[..21],
            &format!("{text}/x"),
            &format!("{text}@host"),
            &long,
        ] {
            assert_eq!(Sid::parse(bad), None, "{bad}");
        }
        assert_eq!(public().len(), 20);
    }
}
