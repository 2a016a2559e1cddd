//! Walks over a server's WebSocket frames without looking at their payloads, to answer pings and
//! to know why a socket was closed.

/// Where in the frames a socket's byte stream stands.
#[derive(Default)]
pub(super) struct Frames {
    /// Bytes of the present data frame still to come.
    skip: u64,
    /// A header, or a whole control frame, of which only a part has come.
    partial: Vec<u8>,
}

/// What needs doing about a frame.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Control {
    /// To be answered with the same bytes.
    Ping(Vec<u8>),
    /// The server closes, with this code.
    Close(u16),
    /// A one-byte text frame `2`: Engine.IO's ping.
    EnginePing,
}

impl Frames {
    /// Takes the next bytes of the stream.
    pub(super) fn walk(&mut self, mut bytes: &[u8], mut found: impl FnMut(Control)) {
        if !self.partial.is_empty() {
            // Headers are cut only now and then, so they may cost a copy.
            let mut joined = std::mem::take(&mut self.partial);
            joined.extend_from_slice(bytes);
            self.walk(&joined, found);
            return;
        }
        loop {
            if self.skip >= bytes.len() as u64 {
                self.skip -= bytes.len() as u64;
                return;
            }
            bytes = &bytes[self.skip as usize..];
            self.skip = 0;
            let Some((header, length)) = header(bytes) else {
                self.partial.extend_from_slice(bytes);
                return;
            };
            let opcode = bytes[0] & 0x0f;
            let whole = header + length.min(125) as usize;
            if opcode >= 8 || length == 1 {
                if bytes.len() < whole {
                    self.partial.extend_from_slice(bytes);
                    return;
                }
                let payload = &bytes[header..whole];
                match opcode {
                    1 if payload == b"2" => found(Control::EnginePing),
                    8 => found(Control::Close(match payload {
                        [high, low, ..] => u16::from_be_bytes([*high, *low]),
                        _ => 1005,
                    })),
                    9 => found(Control::Ping(payload.to_vec())),
                    _ => {}
                }
            }
            bytes = &bytes[header..];
            self.skip = length;
        }
    }
}

/// Lengths of a frame's header and payload, once the header is there.
fn header(bytes: &[u8]) -> Option<(usize, u64)> {
    match *bytes {
        [_, short, ..] if short & 0x7f < 126 => Some((2, u64::from(short & 0x7f))),
        [_, 126, a, b, ..] => Some((4, u64::from(u16::from_be_bytes([a, b])))),
        [_, 127, a, b, c, d, e, f, g, h, ..] => {
            Some((10, u64::from_be_bytes([a, b, c, d, e, f, g, h])))
        }
        _ => None,
    }
}

/// One client frame. The mask is zero, which is a mask like any other and leaves the payload as
/// it is.
pub(super) fn client_frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 14);
    frame.push(0x80 | opcode);
    match payload.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..65_536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controls_are_found_at_every_split() {
        let mut stream = vec![0x81, 5];
        stream.extend_from_slice(b"hello");
        stream.extend_from_slice(&[0x89, 2, b'h', b'i']);
        stream.extend_from_slice(&[0x82, 126, 1, 0]);
        stream.extend_from_slice(&[0x89; 256]);
        stream.extend_from_slice(&[0x81, 1, b'2']);
        stream.extend_from_slice(&[0x82, 127, 0, 0, 0, 0, 0, 1, 0, 1]);
        stream.extend_from_slice(&[0x88; 65_537]);
        stream.extend_from_slice(&[0x88, 2, 0x03, 0xe8]);
        let want = [
            Control::Ping(b"hi".to_vec()),
            Control::EnginePing,
            Control::Close(1000),
        ];
        for split in (0..300).chain(stream.len() - 20..stream.len()) {
            let mut frames = Frames::default();
            let mut got = Vec::new();
            frames.walk(&stream[..split], |control| got.push(control));
            frames.walk(&stream[split..], |control| got.push(control));
            assert_eq!(got, want, "split at {split}");
        }
    }
}
