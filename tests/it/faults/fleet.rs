//! Clients of all kinds, as good programs would write them: they come back, with a backoff, to any
//! node, and say from where to go on. What they get is recorded for the checker.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;
use tailcast::relay::entry::EntryId;
use tailcast::relay::format::GapReason;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use super::raw_http::{HANDSHAKE, connect};
use crate::checker::Event;

/// The ports of the nodes that clients know of.
pub(super) type Ports = Arc<Mutex<Vec<u16>>>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Json,
    Sse,
    Raw,
    /// A published client of another process.
    Guest,
}

/// How a client behaves.
#[derive(Debug, Clone)]
pub(super) struct Habit {
    pub(super) kind: Kind,
    /// Leaves and comes back after so long at most; never if `None`.
    pub(super) churn: Option<Duration>,
    /// A receive buffer of this size.
    pub(super) receive_buffer: Option<u32>,
    /// Reads only while this is true.
    pub(super) reads: watch::Receiver<bool>,
}

/// One client's record.
pub(super) struct Client {
    pub(super) name: String,
    pub(super) kind: Kind,
    connections: AtomicUsize,
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Of clients that get IDs.
    pub(super) events: Vec<Event>,
    pub(super) cursor: Option<EntryId>,
    /// What the newest entry or joined head said, which is all that an `EventSource` knows.
    last_event_id: Option<EntryId>,
    /// Of raw clients: each stay in the room by itself.
    pub(super) stays: Vec<Vec<RawEvent>>,
    pub(super) errors: Vec<String>,
    /// Promises that were broken, which the checker has no way to see.
    pub(super) wrong: Vec<String>,
}

/// What a raw client sees.
#[derive(Debug, Clone)]
pub(super) enum RawEvent {
    /// It came after a gap, and asked for what follows.
    Resumed {
        from: EntryId,
    },
    Message(Bytes),
    /// The close that tells of a gap, and from where to go on.
    Gap {
        from: EntryId,
        reason: GapReason,
    },
}

impl Client {
    pub(super) fn new(name: String, kind: Kind) -> Arc<Self> {
        Arc::new(Client {
            name,
            kind,
            connections: AtomicUsize::new(0),
            seen: Mutex::default(),
        })
    }

    pub(super) fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap()
    }

    /// How often it has connected.
    pub(super) fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Whether it's in the room.
    pub(super) fn joined(&self) -> bool {
        let seen = self.seen();
        match self.kind {
            Kind::Raw => !seen.stays.is_empty(),
            _ => seen.cursor.is_some(),
        }
    }

    /// How often it was told of a gap that is no trimming, and of one that is.
    pub(super) fn gaps(&self) -> (usize, usize) {
        let seen = self.seen();
        let of_events = seen.events.iter().filter_map(|event| match event {
            Event::Gap { reason, .. } => Some(*reason),
            _ => None,
        });
        let of_stays = seen.stays.iter().flatten().filter_map(|event| match event {
            RawEvent::Gap { reason, .. } => Some(*reason),
            RawEvent::Message(_) | RawEvent::Resumed { .. } => None,
        });
        let reasons: Vec<_> = of_events.chain(of_stays).collect();
        let trimmed = reasons
            .iter()
            .filter(|reason| **reason == GapReason::Trimmed)
            .count();
        (reasons.len() - trimmed, trimmed)
    }

    /// Runs it until `stop` says so.
    pub(super) async fn run(
        self: Arc<Self>,
        room: String,
        ports: Ports,
        habit: Habit,
        seed: u64,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut random = StdRng::seed_from_u64(seed);
        let mut backoff = Duration::from_millis(5);
        loop {
            let known = ports.lock().unwrap().clone();
            let port = known[random.random_range(0..known.len())];
            let leave = habit
                .churn
                .map(|most| random.random_range(Duration::ZERO..most));
            let stay = self.stay(&room, port, &habit, leave);
            let came = tokio::select! {
                came = stay => came,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            if came && habit.churn.is_some() {
                backoff = Duration::from_millis(1);
            } else if came {
                backoff = Duration::from_millis(5);
            } else {
                backoff = (backoff * 2).min(Duration::from_millis(300));
            }
            let jittered = backoff.mul_f64(random.random_range(0.5..1.0));
            tokio::select! {
                () = sleep(jittered) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
        }
    }

    /// One connection, to its end. Whether it came to one at all.
    async fn stay(&self, room: &str, port: u16, habit: &Habit, leave: Option<Duration>) -> bool {
        match self.kind {
            Kind::Json | Kind::Raw => self.stay_socket(room, port, habit, leave).await,
            Kind::Sse => self.stay_sse(room, port, leave).await,
            Kind::Guest => unreachable!("it runs by itself"),
        }
        .is_some()
    }

    async fn stay_socket(
        &self,
        room: &str,
        port: u16,
        habit: &Habit,
        leave: Option<Duration>,
    ) -> Option<()> {
        let is_json = self.kind == Kind::Json;
        let from = self.seen().cursor;
        let position = from.map_or("now".to_owned(), |id| id.to_string());
        let format = if is_json { "json" } else { "raw" };
        let mut socket = open(
            port,
            &format!("/rooms/{room}?format={format}&from={position}"),
            habit.receive_buffer,
        )
        .await?;
        self.connections.fetch_add(1, Ordering::Relaxed);
        match from {
            Some(from) if is_json => self.seen().events.push(Event::Reconnected { from }),
            Some(from) => self.seen().stays.push(vec![RawEvent::Resumed { from }]),
            None if is_json => {}
            None => self.seen().stays.push(Vec::new()),
        }
        let mut in_room = false;
        let leave = leave.map(|after| Instant::now() + after);
        let mut reads = habit.reads.clone();
        loop {
            let next = async {
                let _ = reads.wait_for(|reads| *reads).await;
                socket.next().await
            };
            let next = match leave {
                None => next.await,
                Some(at) => match timeout_at(at, next).await {
                    Ok(next) => next,
                    Err(_) => {
                        // Half of them say goodbye, half of them vanish.
                        if at.elapsed().subsec_nanos() % 2 == 0 {
                            let _ = timeout(HANDSHAKE, socket.close(None)).await;
                        }
                        break;
                    }
                },
            };
            match next {
                Some(Ok(Message::Text(text))) if is_json => {
                    if self.on_plain_entry(&text) {
                        continue;
                    }
                    let frame: Value = serde_json::from_str(&text).unwrap();
                    if !self.on_frame(&frame, &mut in_room) {
                        break;
                    }
                }
                Some(Ok(Message::Text(text))) => self.on_raw(Bytes::from(text)),
                Some(Ok(Message::Binary(bytes))) => self.on_raw(bytes),
                Some(Ok(Message::Close(Some(close)))) if u16::from(close.code) == 4409 => {
                    self.on_raw_gap(&close.reason);
                    break;
                }
                Some(Ok(Message::Close(_)) | Err(_)) | None => break,
                Some(Ok(_)) => {}
            }
        }
        if !is_json {
            // Without IDs there is no going on but from where a gap said.
            let mut seen = self.seen();
            let gap = seen.stays.last().and_then(|stay| stay.last()).cloned();
            seen.cursor = match gap {
                Some(RawEvent::Gap { from, .. }) => Some(from),
                _ => None,
            };
        }
        Some(())
    }

    /// Whether the connection is still of use.
    fn on_frame(&self, frame: &Value, in_room: &mut bool) -> bool {
        match frame["type"].as_str().unwrap() {
            "joined" => {
                *in_room = true;
                self.on_joined(id(&frame["head"]));
            }
            "entry" => self.on_entry(frame),
            "gap" => self.on_gap(frame),
            "bye" => return false,
            "error" => {
                self.seen().errors.push(frame.to_string());
                return *in_room;
            }
            _ => {}
        }
        true
    }

    fn on_joined(&self, head: EntryId) {
        let mut seen = self.seen();
        seen.events.push(Event::Joined { head });
        if seen.cursor.is_none() {
            seen.cursor = Some(head);
            seen.last_event_id = Some(head);
        }
    }

    /// Takes the usual entry without reading JSON: a crowd in a debug build has no time for it.
    fn on_plain_entry(&self, text: &str) -> bool {
        let entry = text
            .strip_prefix("{\"type\":\"entry\",\"room\":\"room\",\"id\":\"")
            .and_then(|rest| rest.split_once("\",\"fields\":{\"message\":\""))
            .and_then(|(id, rest)| Some((id, rest.strip_suffix("\"}}")?)));
        match entry {
            Some((id, message)) if !message.contains(['"', '\\']) => {
                self.on_message(id.parse().unwrap(), message);
                true
            }
            _ => false,
        }
    }

    fn on_entry(&self, entry: &Value) {
        let message = &entry["fields"]["message"];
        self.on_message(id(&entry["id"]), message.as_str().unwrap());
    }

    fn on_message(&self, id: EntryId, message: &str) {
        let payload = Bytes::from(message.to_owned());
        let mut seen = self.seen();
        seen.events.push(Event::Entry { id, payload });
        seen.cursor = Some(id);
        seen.last_event_id = Some(id);
    }

    fn on_gap(&self, gap: &Value) {
        let text = |name: &str| gap[name].as_str().unwrap();
        self.on_told_gap(text("after"), text("before"), text("reason"));
    }

    fn on_told_gap(&self, after: &str, before: &str, word: &str) {
        let after: EntryId = after.parse().unwrap();
        let before: EntryId = before.parse().unwrap();
        let reason = reason(word);
        let mut seen = self.seen();
        seen.events.push(Event::Gap {
            after,
            before,
            reason,
        });
        seen.cursor = Some(before.predecessor());
    }

    /// Takes a line of `tests/clients/faults/guests.mjs`, whose head says what the words are.
    pub(super) fn hear(&self, event: &str, rest: &str) {
        let words: Vec<&str> = rest.splitn(3, '\t').collect();
        match (event, words.as_slice()) {
            ("entry", [id, text]) => self.on_message(id.parse().unwrap(), text),
            ("gap", [after, before, reason]) => self.on_told_gap(after, before, reason),
            ("joined", [head]) => {
                self.connections.fetch_add(1, Ordering::Relaxed);
                self.on_joined(head.parse().unwrap());
            }
            ("back", [from]) => {
                self.connections.fetch_add(1, Ordering::Relaxed);
                let from = from.parse().unwrap();
                self.seen().events.push(Event::Reconnected { from });
            }
            ("error", _) => self.seen().errors.push(rest.to_owned()),
            ("wrong", _) => self.seen().wrong.push(rest.to_owned()),
            _ => panic!("{event} {rest}"),
        }
    }

    fn on_raw(&self, message: Bytes) {
        let mut seen = self.seen();
        let stay = seen.stays.last_mut().unwrap();
        stay.push(RawEvent::Message(message));
    }

    /// `gap (deleted); go on with from=1-1`.
    fn on_raw_gap(&self, text: &str) {
        let (word, from) = text
            .strip_prefix("gap (")
            .and_then(|text| text.split_once("); go on with from="))
            .unwrap();
        let gap = RawEvent::Gap {
            from: from.parse().unwrap(),
            reason: reason(word),
        };
        self.seen().stays.last_mut().unwrap().push(gap);
    }

    async fn stay_sse(&self, room: &str, port: u16, leave: Option<Duration>) -> Option<()> {
        let from = self.seen().last_event_id;
        let resume = from.map_or(String::new(), |id| format!("last-event-id: {id}\r\n"));
        let request = format!(
            "GET /rooms/{room} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\naccept: text/event-stream\r\n{resume}\r\n"
        );
        let mut stream = connect(port, None).await.ok()?;
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut lines = BufReader::new(stream).lines();
        let head = timeout(HANDSHAKE, head(&mut lines)).await.ok()??;
        if !head.starts_with("HTTP/1.1 200") {
            return None;
        }
        self.connections.fetch_add(1, Ordering::Relaxed);
        if let Some(from) = from {
            self.seen().events.push(Event::Reconnected { from });
        }
        let events = self.events(&mut lines);
        match leave {
            None => events.await,
            Some(after) => {
                let _ = timeout(after, events).await;
            }
        }
        Some(())
    }

    /// Reads events by their lines. Chunks hold whole events, so that their sizes are lines of their own, which no
    /// field's name begins, and their ends are empty lines behind the one that ends an event.
    async fn events(&self, lines: &mut Lines<BufReader<TcpStream>>) {
        let (mut event, mut event_id, mut data) = (String::new(), None, None);
        while let Ok(Some(line)) = lines.next_line().await {
            if let Some(text) = line.strip_prefix("id: ") {
                event_id = Some(text.parse::<EntryId>().unwrap());
            } else if let Some(text) = line.strip_prefix("event: ") {
                event = text.to_owned();
            } else if let Some(text) = line.strip_prefix("data: ") {
                data = Some(serde_json::from_str::<Value>(text).unwrap());
            } else if line.is_empty() {
                match (event.as_str(), event_id, &data) {
                    ("joined", Some(head), _) => self.on_joined(head),
                    ("", Some(_), Some(entry)) => self.on_entry(entry),
                    ("gap", _, Some(gap)) => self.on_gap(gap),
                    ("error", _, Some(error)) => {
                        self.seen().errors.push(error.to_string());
                        return;
                    }
                    _ => {}
                }
                (event, event_id, data) = (String::new(), None, None);
            }
        }
    }
}

/// Opens a socket; none if that fails or takes too long.
pub(super) async fn open(
    port: u16,
    path: &str,
    receive_buffer: Option<u32>,
) -> Option<WebSocketStream<TcpStream>> {
    let request = format!("ws://127.0.0.1:{port}{path}");
    let request = request.into_client_request().unwrap();
    let stream = connect(port, receive_buffer).await.ok()?;
    let opening = tokio_tungstenite::client_async(request, stream);
    let (socket, _) = timeout(HANDSHAKE, opening).await.ok()?.ok()?;
    Some(socket)
}

async fn head(lines: &mut Lines<BufReader<TcpStream>>) -> Option<String> {
    let head = lines.next_line().await.ok()??;
    while !lines.next_line().await.ok()??.is_empty() {}
    Some(head)
}

/// An ID in JSON.
pub(super) fn id(value: &Value) -> EntryId {
    value.as_str().unwrap().parse().unwrap()
}

fn reason(word: &str) -> GapReason {
    [GapReason::Trimmed, GapReason::Deleted, GapReason::Rewound]
        .into_iter()
        .find(|reason| reason.as_str() == word)
        .unwrap()
}
