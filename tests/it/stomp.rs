//! STOMP as its published client speaks it, over every carrier: `@stomp/stompjs` over WebSockets, over
//! `sockjs-client`'s transports, and over bare TCP.

mod chat;
mod faults;
mod moments;
mod others;
mod resume;
pub(crate) mod rules;
mod transports;

use serde_json::{Value, json};

use crate::harness::clients::Program;
use crate::harness::node::Node;

/// What carries the messages, as the client's `--transport` names it.
pub(crate) const TRANSPORTS: [&str; 6] = [
    "ws",
    "tcp",
    "websocket",
    "xhr-streaming",
    "xhr-polling",
    "eventsource",
];

/// A node that also listens for bare STOMP, and where.
pub(crate) struct StompNode {
    pub(crate) node: Node,
    tcp: u16,
}

impl StompNode {
    pub(crate) fn start(redis: &str, arguments: &[&str]) -> Self {
        StompNode::listening(arguments, |arguments| Node::start_with(redis, arguments))
    }

    /// One without Redis.
    pub(crate) fn in_memory(arguments: &[&str]) -> Self {
        StompNode::listening(arguments, Node::in_memory)
    }

    fn listening(arguments: &[&str], start: impl FnOnce(&[&str]) -> Node) -> Self {
        let arguments = [&["--stomp-listen", "127.0.0.1:0"], arguments].concat();
        let node = start(&arguments);
        let tcp = node.said_port("takes STOMP on ").unwrap();
        StompNode { node, tcp }
    }

    /// Where a client finds it by that transport.
    pub(crate) fn url(&self, transport: &str) -> String {
        match transport {
            "ws" => self.node.ws_url("/stomp"),
            "tcp" => format!("tcp://127.0.0.1:{}", self.tcp),
            _ => self.node.url("/ws"),
        }
    }

    /// A client that is connected.
    #[track_caller]
    pub(crate) fn client(&self, transport: &str, arguments: &[&str]) -> Stomp {
        let url = self.url(transport);
        Stomp::connect(&[&[&url, "--transport", transport], arguments].concat())
    }
}

/// A published client.
pub(crate) struct Stomp(pub(crate) Program);

impl Stomp {
    #[track_caller]
    pub(crate) fn connect(arguments: &[&str]) -> Self {
        let client = Stomp(Program::stomp(arguments));
        client.next("connected");
        client
    }

    /// The next event, which must be of that name.
    #[track_caller]
    pub(crate) fn next(&self, name: &str) -> Value {
        let event = self.0.json();
        assert_eq!(event["event"], name, "{event}");
        event
    }

    /// Subscribes, and waits until that holds; the ID to resume from.
    #[track_caller]
    pub(crate) fn subscribe(&mut self, destination: &str, headers: &[(&str, &str)]) -> String {
        let mut all = json!({"receipt": "subscribed"});
        for (name, value) in headers {
            all[name] = (*value).into();
        }
        let command = json!({"subscribe": destination, "headers": all});
        self.0.say(&command.to_string());
        let receipt = self.next("receipt");
        let head = receipt["headers"]["last-id"].as_str();
        head.unwrap_or_default().to_owned()
    }

    pub(crate) fn publish(&mut self, destination: &str, body: &str) {
        let command = json!({"publish": destination, "body": body});
        self.0.say(&command.to_string());
    }

    pub(crate) fn say(&mut self, command: &Value) {
        self.0.say(&command.to_string());
    }

    /// The next event, which must be a message: its ID and body.
    #[track_caller]
    pub(crate) fn message(&self) -> (String, String) {
        let message = self.next("message");
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (
            text(&message["headers"]["message-id"]),
            text(&message["body"]),
        )
    }

    /// The next event, which must be an ERROR with that code; its headers.
    #[track_caller]
    pub(crate) fn error(&self, code: &str) -> Value {
        let error = self.next("error");
        assert_eq!(error["headers"]["code"], code, "{error}");
        error["headers"].clone()
    }
}
