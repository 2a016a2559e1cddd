//! Publishers of all kinds. Each publish has a message of its own, and its outcome is recorded.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_tungstenite::tungstenite::Message;

use super::fleet::{Ports, id, open};
use super::raw_http::post;
use crate::checker::{Outcome, Publish};

/// Longest wait for an outcome before the connection is taken for dead. Longer than any outcome may
/// take, which is measured.
const GIVE_UP: Duration = Duration::from_secs(8);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// A JSON socket with idempotency keys, which repeats whatever is not stored.
    Keyed,
    /// A JSON socket without.
    Plain,
    /// POST without a key.
    Post,
    /// Straight XADD.
    Xadd,
}

/// How a publisher publishes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    pub(super) way: Way,
    pub(super) every: Duration,
    /// Publishes of a socket on their way at a time.
    pub(super) depth: usize,
}

/// What all publishers of a test were told.
#[derive(Default)]
pub(super) struct Told {
    pub(super) publishes: Mutex<Vec<Publish>>,
    /// Slowest outcome that a node gave.
    pub(super) slowest: Mutex<Duration>,
    /// Codes of the errors.
    pub(super) codes: Mutex<BTreeMap<String, usize>>,
}

impl Told {
    fn record(&self, room: &str, one: &Attempt, outcome: Outcome) {
        self.publishes.lock().unwrap().push(Publish {
            room: room.to_owned(),
            payload: Bytes::from(one.payload.clone()),
            key: one.key.clone(),
            outcome,
        });
    }

    fn answered(&self, since: Instant) {
        let mut slowest = self.slowest.lock().unwrap();
        *slowest = since.elapsed().max(*slowest);
    }

    /// How often this code was told.
    pub(super) fn count(&self, code: &str) -> usize {
        self.codes.lock().unwrap().get(code).copied().unwrap_or(0)
    }

    /// How many were acknowledged.
    pub(super) fn stored(&self) -> usize {
        let publishes = self.publishes.lock().unwrap();
        publishes
            .iter()
            .filter(|publish| matches!(publish.outcome, Outcome::Stored(_)))
            .count()
    }

    fn outcome_of(&self, code: &str) -> Outcome {
        let mut codes = self.codes.lock().unwrap();
        *codes.entry(code.to_owned()).or_default() += 1;
        match code {
            "unknown_outcome" => Outcome::Unknown,
            _ => Outcome::Refused,
        }
    }
}

#[derive(Debug, Clone)]
struct Attempt {
    payload: String,
    key: Option<String>,
}

/// One publisher.
pub(super) struct Publisher {
    pub(super) name: String,
    pub(super) room: String,
    pub(super) pace: Pace,
    pub(super) ports: Ports,
    pub(super) redis: String,
    pub(super) told: Arc<Told>,
    pub(super) seed: u64,
    pub(super) stop: watch::Receiver<bool>,
}

impl Publisher {
    pub(super) async fn run(mut self) {
        match self.pace.way {
            Way::Keyed | Way::Plain => self.run_socket().await,
            Way::Post => self.run_post().await,
            Way::Xadd => self.run_xadd().await,
        }
    }

    fn attempt(&self, number: usize) -> Attempt {
        let payload = format!("{}:{number}", self.name);
        let key = (self.pace.way == Way::Keyed).then(|| payload.clone());
        Attempt { payload, key }
    }

    fn port(&self, random: &mut StdRng) -> u16 {
        let ports = self.ports.lock().unwrap();
        ports[random.random_range(0..ports.len())]
    }

    async fn run_socket(&mut self) {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut repeat: VecDeque<Attempt> = VecDeque::new();
        let mut number = 0;
        let mut give_up = None;
        loop {
            let stopping = *self.stop.borrow();
            let over = *give_up.get_or_insert_with(|| Instant::now() + 2 * GIVE_UP);
            if !stopping {
                give_up = None;
            } else if repeat.is_empty() || Instant::now() > over {
                return;
            }
            let port = self.port(&mut random);
            self.stay(port, &mut repeat, &mut number).await;
            sleep(Duration::from_millis(random.random_range(5..50))).await;
        }
    }

    /// One socket, until it ends or all is done. What has to be tried again is in `repeat` then.
    async fn stay(&mut self, port: u16, repeat: &mut VecDeque<Attempt>, number: &mut usize) {
        let room = self.room.clone();
        let path = format!("/rooms/{room}?format=json&from=now");
        let Some(mut socket) = open(port, &path, None).await else {
            return;
        };
        // Only outcomes matter here; others read the room.
        let leave = json!({"type": "leave", "room": room}).to_string();
        if socket.send(Message::text(leave)).await.is_err() {
            return;
        }
        let mut on_their_way: HashMap<usize, (Attempt, Instant)> = HashMap::new();
        let mut reference = 0;
        let mut tick = interval(self.pace.every);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let stopping = *self.stop.borrow();
            let room_for_more = on_their_way.len() < self.pace.depth;
            if stopping && repeat.is_empty() && on_their_way.is_empty() {
                let _ = timeout(Duration::from_secs(1), socket.close(None)).await;
                return;
            }
            let oldest = on_their_way.values().map(|(_, since)| *since).min();
            let silence = oldest.map_or(GIVE_UP, |since| GIVE_UP.saturating_sub(since.elapsed()));
            tokio::select! {
                _ = tick.tick(), if room_for_more && !(stopping && repeat.is_empty()) => {
                    let one = repeat.pop_front().unwrap_or_else(|| {
                        *number += 1;
                        self.attempt(*number)
                    });
                    reference += 1;
                    let mut frame = json!({
                        "type": "publish", "room": room, "message": one.payload, "ref": reference,
                    });
                    if let Some(key) = &one.key {
                        frame["key"] = json!(key);
                    }
                    on_their_way.insert(reference, (one, Instant::now()));
                    if socket.send(Message::text(frame.to_string())).await.is_err() {
                        break;
                    }
                }
                next = timeout(silence, socket.next()) => {
                    let Ok(Some(Ok(message))) = next else {
                        break;
                    };
                    if let Message::Text(text) = message {
                        let frame: Value = serde_json::from_str(&text).unwrap();
                        self.on_frame(&frame, &mut on_their_way, repeat);
                    }
                }
            }
        }
        for (_, (one, _)) in on_their_way {
            self.told.record(&room, &one, Outcome::Unknown);
            if one.key.is_some() {
                repeat.push_back(one);
            }
        }
    }

    fn on_frame(
        &self,
        frame: &Value,
        on_their_way: &mut HashMap<usize, (Attempt, Instant)>,
        repeat: &mut VecDeque<Attempt>,
    ) {
        let Some(reference) = frame["ref"].as_u64() else {
            return;
        };
        let (one, since) = on_their_way.remove(&(reference as usize)).unwrap();
        self.told.answered(since);
        let outcome = match frame["type"].as_str().unwrap() {
            "ack" => Outcome::Stored(id(&frame["id"])),
            _ => self.told.outcome_of(frame["code"].as_str().unwrap()),
        };
        self.told.record(&self.room, &one, outcome);
        if !matches!(outcome, Outcome::Stored(_)) && one.key.is_some() {
            repeat.push_back(one);
        }
    }

    async fn run_post(&mut self) {
        let mut random = StdRng::seed_from_u64(self.seed);
        let mut number = 0;
        while !*self.stop.borrow() {
            number += 1;
            let one = self.attempt(number);
            let path = format!("/rooms/{}", self.room);
            let since = Instant::now();
            let port = self.port(&mut random);
            let answer = post(port, &path, None, &one.payload, GIVE_UP).await;
            let outcome = match answer {
                Err(_) => Outcome::Unknown,
                Ok((201, body)) => {
                    self.told.answered(since);
                    Outcome::Stored(id(&body["id"]))
                }
                Ok((_, body)) => {
                    self.told.answered(since);
                    self.told
                        .outcome_of(body["error"]["code"].as_str().unwrap())
                }
            };
            self.told.record(&self.room, &one, outcome);
            sleep(self.pace.every).await;
        }
    }

    async fn run_xadd(&mut self) {
        let client = redis::Client::open(self.redis.as_str()).unwrap();
        let mut connection = None;
        let mut number = 0;
        while !*self.stop.borrow() {
            sleep(self.pace.every).await;
            let mut redis = match connection.take() {
                Some(redis) => redis,
                None => {
                    let connecting = client.get_multiplexed_async_connection();
                    match timeout(Duration::from_secs(1), connecting).await {
                        Ok(Ok(redis)) => redis,
                        _ => continue,
                    }
                }
            };
            number += 1;
            let one = self.attempt(number);
            let mut command = redis::cmd("XADD");
            command
                .arg(&self.room)
                .arg("*")
                .arg("message")
                .arg(&one.payload);
            let adding = command.query_async::<String>(&mut redis);
            let outcome = match timeout(GIVE_UP, adding).await {
                Ok(Ok(id)) => {
                    connection = Some(redis);
                    Outcome::Stored(id.parse().unwrap())
                }
                Ok(Err(error)) if error.code().is_some() => {
                    connection = Some(redis);
                    Outcome::Refused
                }
                _ => Outcome::Unknown,
            };
            self.told.record(&self.room, &one, outcome);
        }
    }
}
