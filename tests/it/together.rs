//! Every client people have, in one room, on three nodes: each publishes, and all see one order.

use std::collections::HashMap;

use bytes::Bytes;
use tailcast::relay::entry::EntryId;

use crate::checker::{self, Client, Event, Outcome, Publish, Room, Run};
use crate::harness::clients::Program;
use crate::harness::node::Node;
use crate::harness::redis_server::RedisServer;

/// What each of them publishes.
const EACH: usize = 20;
const LAST: &str = "the last one";
const ROOM: &str = "together";

/// The published clients, and the page in a browser.
const KINDS: [&str; 6] = ["ws", "eventsource", "socketio", "stomp", "js", "page"];

/// One client, and what it told.
struct Guest {
    name: String,
    program: Program,
    is_in: bool,
    /// The ID if it's told, and the text.
    got: Vec<(Option<EntryId>, Bytes)>,
    stored: Vec<String>,
}

impl Guest {
    fn new(kind: &str, node: &Node, number: usize) -> Self {
        let url = node.url("");
        let program = match kind {
            "page" => Program::node("together/page.mjs", &[&url, ROOM, LAST]),
            _ => Program::node("together/client.mjs", &[kind, &url, ROOM]),
        };
        Guest {
            name: format!("{kind} {number}"),
            program,
            is_in: false,
            got: Vec::new(),
            stored: Vec::new(),
        }
    }

    /// Takes the next line in.
    fn hear(&mut self) {
        let told = self.program.json();
        let text = || told["text"].as_str().unwrap().to_owned();
        match told["event"].as_str().unwrap() {
            "joined" => self.is_in = true,
            "entry" => {
                let id = told["id"].as_str().map(id);
                self.got.push((id, text().into()));
            }
            "stored" => self.stored.push(text()),
            _ => panic!("{}: {told}", self.name),
        }
    }

    fn has_last(&self) -> bool {
        self.got.iter().any(|(_, text)| text == LAST)
    }
}

fn id(text: &str) -> EntryId {
    text.trim().parse().unwrap()
}

#[test]
fn all_clients_in_one_room_see_one_order() {
    let redis = RedisServer::start();
    let nodes: Vec<Node> = (0..3)
        .map(|_| Node::start_with(&redis.url(), &["--frame-rate", "0"]))
        .collect();
    // Something to be before everybody, so that each has a head.
    let head = id(&redis.cli(&["XADD", ROOM, "*", "message", "the first one"]));
    let mut guests: Vec<Guest> = KINDS
        .iter()
        .enumerate()
        .flat_map(|(at, kind)| {
            // Each on two of the nodes.
            [at, at + 1].map(|number| Guest::new(kind, &nodes[number % 3], number))
        })
        .collect();
    let mut wscat: Vec<Program> = nodes
        .iter()
        .map(|node| Program::wscat(&["-c", &node.ws_url(&format!("/rooms/{ROOM}?from=start"))]))
        .collect();
    for guest in &mut guests {
        while !guest.is_in {
            guest.hear();
        }
    }

    let mut publishes = Vec::new();
    let mut publish = |text: String, outcome: Outcome| {
        publishes.push(Publish {
            room: ROOM.to_owned(),
            payload: text.into(),
            key: None,
            outcome,
        });
    };
    for number in 0..EACH {
        for guest in &mut guests {
            guest.program.say(&format!("{} says {number}", guest.name));
        }
        for (at, wscat) in wscat.iter_mut().enumerate() {
            wscat.say(&format!("wscat {at} says {number}"));
        }
        let text = format!("redis-cli says {number}");
        let stored = id(&redis.cli(&["XADD", ROOM, "*", "message", &text]));
        publish(text, Outcome::Stored(stored));
    }
    for guest in &mut guests {
        while guest.stored.len() < EACH {
            guest.hear();
        }
    }
    let total = 1 + EACH * (guests.len() + wscat.len() + 1);
    crate::contract::wait_for("all is stored", || {
        redis.cli(&["XLEN", ROOM]).trim() == total.to_string()
    });
    let last = id(&redis.cli(&["XADD", ROOM, "*", "message", LAST]));
    publish(LAST.to_owned(), Outcome::Stored(last));

    let truth = redis.entries(ROOM);
    let ids: HashMap<&Bytes, EntryId> = truth.iter().map(|(id, text)| (text, *id)).collect();
    let mut clients = Vec::new();
    for mut guest in guests {
        while !guest.has_last() {
            guest.hear();
        }
        for text in &guest.stored {
            let stored = ids[&Bytes::from(text.clone())];
            publish(text.clone(), Outcome::Stored(stored));
        }
        // Who shows no IDs shows the room from its beginning.
        let is_told = guest.got.iter().all(|(id, _)| id.is_some());
        let from = if is_told { head } else { EntryId::ZERO };
        clients.push((guest.name, from, guest.got));
    }
    for (at, wscat) in wscat.iter().enumerate() {
        let mut got = Vec::new();
        while got.last().is_none_or(|(_, text)| text != LAST) {
            // Its prompt taken off.
            let text = Bytes::from(wscat.line().trim_start_matches("> ").to_owned());
            if ids.contains_key(&text) {
                got.push((None, text));
            }
        }
        clients.push((format!("wscat {at}"), EntryId::ZERO, got));
    }
    let clients = clients
        .into_iter()
        .map(|(name, head, got)| {
            let entry = |(id, payload): (Option<EntryId>, Bytes)| Event::Entry {
                id: id.unwrap_or_else(|| ids[&payload]),
                payload,
            };
            Client {
                name,
                room: ROOM.to_owned(),
                events: std::iter::once(Event::Joined { head })
                    .chain(got.into_iter().map(entry))
                    .collect(),
                complete_to: Some(last),
            }
        })
        .collect();
    let room = Room {
        entries: truth,
        ..Room::default()
    };
    let run = Run {
        rooms: [(ROOM.to_owned(), room)].into(),
        clients,
        publishes,
    };
    checker::assert_clean(&run, 0);
}
