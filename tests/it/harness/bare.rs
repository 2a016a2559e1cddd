//! A WebSocket client that hides nothing: it sends the frames it's told to, whole or not, answers none by itself,
//! and shows every frame that comes.

use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};

use super::PATIENCE;
use super::node::Node;

/// First bytes of whole frames.
pub(crate) const TEXT: u8 = 0x81;
pub(crate) const BINARY: u8 = 0x82;
pub(crate) const CLOSE: u8 = 0x88;
pub(crate) const PING: u8 = 0x89;
pub(crate) const PONG: u8 = 0x8a;

/// One connection, past its handshake.
pub(crate) struct Bare {
    stream: BufReader<TcpStream>,
    /// The head of the node's answer.
    pub(crate) head: String,
}

/// A client's frame, with a mask of zeros, so that the payload shows.
pub(crate) fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(short @ 0..=125), _) => frame.push(0x80 | short),
        (_, Ok(medium)) => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(payload);
    frame
}

impl Bare {
    /// Connects with the key of RFC 6455's sample handshake. The path has the query.
    #[track_caller]
    pub(crate) fn open(node: &Node, path: &str) -> Self {
        let bare = Self::open_with_key(node, path, "dGhlIHNhbXBsZSBub25jZQ==");
        assert!(bare.head.starts_with("HTTP/1.1 101 "), "{}", bare.head);
        bare
    }

    /// Connects with this key, whatever is answered.
    #[track_caller]
    pub(crate) fn open_with_key(node: &Node, path: &str, key: &str) -> Self {
        let mut stream = TcpStream::connect(("127.0.0.1", node.port())).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: {key}\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut stream = BufReader::new(stream);
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).unwrap();
            head.push(byte[0]);
        }
        Bare {
            stream,
            head: String::from_utf8(head).unwrap(),
        }
    }

    /// Sends bytes as they are.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends one frame.
    #[track_caller]
    pub(crate) fn send(&mut self, first: u8, payload: &[u8]) {
        self.try_send(&masked(first, payload)).unwrap();
    }

    /// The next frame, its first byte and its payload; none once the node has closed the connection.
    #[track_caller]
    pub(crate) fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let mut head = [0; 2];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) => {
                let is_over = [io::ErrorKind::UnexpectedEof, io::ErrorKind::ConnectionReset];
                assert!(is_over.contains(&error.kind()), "{error}");
                return None;
            }
        }
        assert_eq!(head[1] & 0x80, 0, "a server's frame has no mask: {head:?}");
        let length = match head[1] {
            126 => {
                let mut length = [0; 2];
                self.stream.read_exact(&mut length).unwrap();
                u64::from(u16::from_be_bytes(length))
            }
            127 => {
                let mut length = [0; 8];
                self.stream.read_exact(&mut length).unwrap();
                u64::from_be_bytes(length)
            }
            short => u64::from(short),
        };
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).unwrap();
        Some((head[0], payload))
    }

    /// The next frame, which must be there.
    #[track_caller]
    pub(crate) fn some_frame(&mut self) -> (u8, Vec<u8>) {
        self.frame().expect("a frame before the end")
    }

    /// The sending side, to be used by another thread.
    pub(crate) fn sender(&self) -> TcpStream {
        self.stream.get_ref().try_clone().unwrap()
    }

    /// Ends the connection in both directions.
    pub(crate) fn hang_up(&self) {
        let _ = self.stream.get_ref().shutdown(Shutdown::Both);
    }
}

/// The code of a close frame's payload.
#[track_caller]
pub(crate) fn code(payload: &[u8]) -> u16 {
    u16::from_be_bytes([payload[0], payload[1]])
}
