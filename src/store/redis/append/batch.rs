//! One pipeline of appends, and what its replies mean for each of them.
//!
//! # Order
//!
//! What one lane appends to one room is stored in the order of the calls, whatever is sent again.
//! An append is sent again in two cases: Redis refused it for a reason that passes, or it has an
//! idempotency key and the connection broke. Neither may bring it behind an append that was called
//! later and is stored already. Three rules see to that:
//!
//! - In a batch, all of a room's appends from the first that needs the script on are **one** call of it,
//!   and the last command for that room. Redis runs a call as a whole or not at all. So a call that
//!   fails (NOSCRIPT after a SCRIPT FLUSH, LOADING, READONLY) has nothing of its room behind it; and
//!   after a broken connection either all of a call was stored, and its keys say so, or none was.
//! - A plain XADD without an answer is never sent again. One that was refused for a reason that passes is
//!   refused for good if a later one of its room was stored.
//! - What is sent again goes out first, in its order.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redis::{Cmd, Pipeline, Value};
use tokio::time::Instant;

use super::queue::Pending;
use super::script;
use crate::relay::entry::{EntryId, RoomName};
use crate::relay::log::{AppendError, LogError};
use crate::store::rate;
use crate::store::redis::keys::Keys;
use crate::store::redis::{Durability, Retention, Settings, millis, reply};

/// Rooms whose next PEXPIRE is remembered; more would only cost memory.
const EXPIRIES: usize = 65_536;

/// How much later than asked WAIT may answer: the timers of an idle Redis tick every 100 ms.
const WAIT_MARGIN: Duration = Duration::from_millis(150);

/// How appends are written.
pub(super) struct Plan {
    keys: Keys,
    keep: Retention,
    durability: Durability,
    window: Duration,
    expire_after: Option<Duration>,
    /// When a room's PEXPIRE is due again.
    expiries: HashMap<RoomName, Instant>,
}

/// A pipeline, and which command is whose.
pub(super) struct Batch {
    pub(super) pipe: Pipeline,
    /// Per command.
    roles: Vec<Role>,
    replicas: Option<u32>,
}

enum Role {
    /// An XADD, of the append at this place in the batch.
    Append(usize),
    /// A call of the script, with these appends of one room.
    Run(Vec<usize>),
    Expire(RoomName),
    Wait,
}

/// What became of a batch.
#[derive(Default)]
pub(super) struct Settled {
    /// To be told.
    pub(super) done: Vec<(Pending, Result<EntryId, AppendError>)>,
    /// To be sent again, in order.
    pub(super) again: Vec<Pending>,
    /// Why, if that takes patience.
    pub(super) error: Option<LogError>,
    /// The script must be loaded again.
    pub(super) no_script: bool,
}

impl Plan {
    pub(super) fn new(settings: &Settings, keys: Keys) -> Self {
        Plan {
            keys,
            keep: settings.keep,
            durability: settings.durability,
            window: settings.idempotency_window,
            expire_after: settings.expire_after,
            expiries: HashMap::new(),
        }
    }

    /// Another server may have other keys.
    pub(super) fn forget_expiries(&mut self) {
        self.expiries.clear();
    }

    /// How long before its deadline an append is no longer worth sending again.
    pub(super) fn margin(&self) -> Duration {
        match self.durability {
            Durability::Fast => Duration::ZERO,
            Durability::Replicated { .. } => WAIT_MARGIN,
        }
    }

    /// Writes a batch.
    pub(super) fn batch(&mut self, appends: &[Pending], now: Instant) -> Batch {
        let mut pipe = Pipeline::with_capacity(appends.len() + 1);
        let mut roles = Vec::with_capacity(appends.len() + 1);
        let mut runs: Vec<(&RoomName, Vec<usize>)> = Vec::new();
        let mut run_of: HashMap<&RoomName, usize> = HashMap::new();
        for (index, append) in appends.iter().enumerate() {
            let room = &append.room;
            if let Some(run) = run_of.get(room) {
                runs[*run].1.push(index);
            } else if append.needs_script() {
                run_of.insert(room, runs.len());
                runs.push((room, vec![index]));
            } else {
                let key = self.keys.room(room);
                let mut command = redis::cmd("XADD");
                command.arg(key.as_ref());
                self.add_words(&mut command, append);
                pipe.add_command(command);
                roles.push(Role::Append(index));
                self.push_expiry(&mut pipe, &mut roles, &key, room, now);
            }
        }
        for (room, run) in runs {
            let key = self.keys.room(room);
            pipe.add_command(self.script_call(&key, appends, &run));
            roles.push(Role::Run(run));
            self.push_expiry(&mut pipe, &mut roles, &key, room, now);
        }
        let replicas = match self.durability {
            Durability::Fast => None,
            Durability::Replicated { replicas, timeout } => {
                // Answered before the first deadline, or that append would be unknown for no
                // reason. WAIT 0 would wait for ever.
                let first = appends.iter().map(|append| append.deadline).min();
                let left = first.map_or(timeout, |first| first.saturating_duration_since(now));
                let timeout = timeout.min(left.saturating_sub(WAIT_MARGIN));
                pipe.cmd("WAIT").arg(replicas).arg(millis(timeout).max(1));
                roles.push(Role::Wait);
                Some(replicas)
            }
        };
        Batch {
            pipe,
            roles,
            replicas,
        }
    }

    /// How to trim, the ID and the fields, as XADD takes them after the key.
    fn add_words(&self, command: &mut Cmd, append: &Pending) {
        if let Some((kind, threshold)) = self.keep.threshold() {
            command.arg(kind).arg("~").arg(threshold);
        }
        command.arg("*");
        for (name, value) in &append.fields {
            command.arg(name.as_ref()).arg(value.as_ref());
        }
    }

    /// How many words [`Plan::add_words`] adds.
    fn words(&self, append: &Pending) -> usize {
        let trim = self.keep.threshold().map_or(0, |_| 3);
        trim + 1 + 2 * append.fields.len()
    }

    /// Appends to one room, some of which ask for more than XADD.
    fn script_call(&self, key: &[u8], appends: &[Pending], run: &[usize]) -> Cmd {
        let appends = || run.iter().map(|index| &appends[*index]);
        let keys = |append: &Pending| append.limits.len() + usize::from(append.key.is_some());
        let mut command = redis::cmd("EVALSHA");
        command.arg(script::HASH.as_str());
        command.arg(1 + appends().map(keys).sum::<usize>());
        command.arg(key);
        for append in appends() {
            for limit in &append.limits {
                command.arg(self.keys.rate(&append.room, &limit.name));
            }
            if let Some(idempotency) = &append.key {
                command.arg(Keys::idempotency(key, idempotency));
            }
        }
        command.arg(millis(self.window).max(1));
        for append in appends() {
            command.arg(append.limits.len());
            command.arg(usize::from(append.key.is_some()));
            command.arg(self.words(append));
            for limit in &append.limits {
                let (interval, burst) = rate::terms(limit);
                command.arg(interval).arg(burst);
            }
            self.add_words(&mut command, append);
        }
        command
    }

    /// Adds the PEXPIRE of a room that was just appended to, if it's due.
    fn push_expiry(
        &mut self,
        pipe: &mut Pipeline,
        roles: &mut Vec<Role>,
        key: &[u8],
        room: &RoomName,
        now: Instant,
    ) {
        if let Some(after) = self.expiry_due(room, now) {
            pipe.cmd("PEXPIRE").arg(key).arg(millis(after));
            roles.push(Role::Expire(room.clone()));
        }
    }

    /// A room's expiry is pushed back a twentieth of its length ahead: often enough that a room
    /// in use never expires, and far from once per append.
    fn expiry_due(&mut self, room: &RoomName, now: Instant) -> Option<Duration> {
        let after = self.expire_after?;
        let every = (after / 20).clamp(Duration::from_secs(1), Duration::from_secs(600));
        if self.expiries.get(room).is_some_and(|due| *due > now) {
            return None;
        }
        if self.expiries.len() >= EXPIRIES {
            self.expiries.retain(|_, due| *due > now);
            if self.expiries.len() >= EXPIRIES {
                self.expiries.clear();
            }
        }
        self.expiries.insert(room.clone(), now + every);
        Some(after)
    }
}

/// Errors that pass by themselves. The replies carry them, so nothing was executed.
fn passes(error: &LogError) -> bool {
    matches!(
        error,
        LogError::Loading | LogError::ReadOnly(_) | LogError::Unavailable(_)
    )
}

/// What one call of the script means for each of `count` appends.
fn fates(value: Value, count: usize) -> Vec<Fate> {
    match value {
        Value::Array(values) if values.len() == count => values.into_iter().map(fate).collect(),
        // An error of the call itself: it stored nothing.
        value @ Value::ServerError(_) => (0..count).map(|_| fate(value.clone())).collect(),
        _ => {
            let error = LogError::Other("a reply that is no list of outcomes".to_owned());
            (0..count).map(|_| Fate::Unknown(error.clone())).collect()
        }
    }
}

enum Fate {
    Stored(EntryId),
    Refused(LogError),
    Passing(LogError),
    NoScript,
    TooFast { limit: usize, retry: Duration },
    Unknown(LogError),
}

fn fate(value: Value) -> Fate {
    match value {
        Value::ServerError(error) if error.code() == "NOSCRIPT" => Fate::NoScript,
        Value::ServerError(error) if error.code() == "KEYLOST" => Fate::Unknown(LogError::Denied(
            error.details().unwrap_or_default().to_owned(),
        )),
        Value::ServerError(error) => match reply::refusal(&error) {
            error if passes(&error) => Fate::Passing(error),
            error => Fate::Refused(error),
        },
        Value::Array(parts) => match parts[..] {
            [Value::Int(limit), Value::Int(retry)] => Fate::TooFast {
                limit: usize::try_from(limit).unwrap_or(0),
                retry: Duration::from_millis(u64::try_from(retry).unwrap_or(0)),
            },
            _ => Fate::Unknown(LogError::Other("a reply that is no outcome".to_owned())),
        },
        value => match reply::entry_id(&value) {
            Ok(id) => Fate::Stored(id),
            Err(error) => Fate::Unknown(error),
        },
    }
}

impl Batch {
    /// Reads the replies. `appends` are those the batch was made of.
    pub(super) fn settle(
        &self,
        plan: &mut Plan,
        values: Vec<Value>,
        appends: impl Iterator<Item = Pending>,
    ) -> Settled {
        let appends: Vec<Pending> = appends.collect();
        let mut by_place: Vec<Option<Fate>> = appends.iter().map(|_| None).collect();
        let mut confirmed = true;
        for (role, value) in self.roles.iter().zip(values) {
            match role {
                Role::Append(index) => by_place[*index] = Some(fate(value)),
                Role::Run(run) => {
                    for (index, fate) in run.iter().zip(fates(value, run.len())) {
                        by_place[*index] = Some(fate);
                    }
                }
                Role::Expire(room) => {
                    if value != Value::Int(1) {
                        plan.expiries.remove(room);
                    }
                }
                Role::Wait => {
                    let wanted = i64::from(self.replicas.unwrap_or(0));
                    confirmed = matches!(value, Value::Int(got) if got >= wanted);
                }
            }
        }
        let mut settled = Settled::default();
        // Backwards, to know whether a later append of the same room was stored.
        let mut stored: HashSet<RoomName> = HashSet::new();
        for (mut append, fate) in appends.into_iter().zip(by_place).rev() {
            append.out = false;
            let fate = fate.unwrap_or_else(|| {
                Fate::Unknown(LogError::Unavailable("a reply is missing".to_owned()))
            });
            let refuse = |append: &Pending, error| match append.in_doubt {
                true => AppendError::Unknown(error),
                false => AppendError::Refused(error),
            };
            let outcome = match fate {
                Fate::Stored(id) => {
                    stored.insert(append.room.clone());
                    match confirmed {
                        true => Ok(id),
                        false => Err(AppendError::NotReplicated(id)),
                    }
                }
                Fate::Unknown(error) => Err(AppendError::Unknown(error)),
                // Certain even where it was in doubt: had it been stored, its key would say so.
                Fate::TooFast { limit, retry } => Err(AppendError::TooFast { limit, retry }),
                Fate::Refused(error) => Err(refuse(&append, error)),
                // Sent again it would come after one that was published later.
                Fate::Passing(error) if stored.contains(&append.room) => {
                    Err(refuse(&append, error))
                }
                Fate::Passing(error) => {
                    settled.error = Some(error);
                    settled.again.push(append);
                    continue;
                }
                Fate::NoScript => {
                    settled.no_script = true;
                    settled.again.push(append);
                    continue;
                }
            };
            settled.done.push((append, outcome));
        }
        settled.done.reverse();
        settled.again.reverse();
        settled
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::mpsc;

    use bytes::Bytes;

    use super::super::queue::Queue;
    use super::*;
    use crate::relay::log::{Append, Limit};

    fn plan(settings: Settings) -> Plan {
        Plan::new(&settings, Keys::new("p:"))
    }

    /// Appends to these rooms; a room with a colon has its idempotency key after it.
    fn appends(rooms: &[&str]) -> Vec<Pending> {
        let queue = Queue::new(99, 9999);
        for room in rooms {
            let (room, key) = match room.split_once(':') {
                Some((room, key)) => (room, Some(Bytes::copy_from_slice(key.as_bytes()))),
                None => (*room, None),
            };
            queue.push(Append {
                room: RoomName::parse(room).unwrap(),
                fields: Box::new([(Bytes::from("f"), Bytes::from("v"))]),
                key,
                limits: Box::default(),
                lane: Default::default(),
                deadline: Instant::now() + Duration::from_secs(5),
                done: Box::new(|_| {}),
            });
        }
        let mut batch = Vec::new();
        queue.take_batch(&mut VecDeque::new(), &mut batch);
        batch
    }

    fn words(batch: &Batch) -> Vec<String> {
        let arg = |arg: redis::Arg<&[u8]>| match arg {
            redis::Arg::Simple(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            _ => "?".to_owned(),
        };
        let command = |command: &Cmd| command.args_iter().map(arg).collect::<Vec<_>>().join(" ");
        batch.pipe.cmd_iter().map(command).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn commands() {
        let mut plan = plan(Settings {
            keep: Retention::Entries(7),
            expire_after: Some(Duration::from_secs(100)),
            durability: Durability::Replicated {
                replicas: 2,
                timeout: Duration::from_millis(300),
            },
            ..Settings::default()
        });
        let mut appends = appends(&["r", "r", "s:k"]);
        let now = Instant::now();
        let hash = script::HASH.as_str();
        assert_eq!(
            words(&plan.batch(&appends, now)),
            [
                "XADD p:r MAXLEN ~ 7 * f v",
                "PEXPIRE p:r 100000",
                "XADD p:r MAXLEN ~ 7 * f v",
                &format!(
                    "EVALSHA {hash} 2 p:s tailcast:idem:{{p:s}}:k 300000 0 1 6 MAXLEN ~ 7 * f v"
                ),
                "PEXPIRE p:s 100000",
                "WAIT 2 300",
            ]
        );
        // A twentieth later it's due again.
        assert_eq!(words(&plan.batch(&appends[..1], now)).len(), 2);
        let later = now + Duration::from_secs(5);
        assert_eq!(words(&plan.batch(&appends[..1], later)).len(), 3);

        let limit = |name, ms, burst| Limit {
            name: Bytes::from_static(name),
            interval: Duration::from_millis(ms),
            burst,
        };
        for append in &mut appends {
            append.limits = Box::new([limit(b"u", 1500, 20), limit(b"*", 0, 0)]);
        }
        let rates = |room| format!("tailcast:{{p:}}rate:1:{room}:u tailcast:{{p:}}rate:1:{room}:*");
        let terms = |key| format!("300000 2 {key} 6 1500000 20 1000 1 MAXLEN ~ 7 * f v");
        assert_eq!(
            words(&plan.batch(&appends[1..], later))[..2],
            [
                format!("EVALSHA {hash} 3 p:r {} {}", rates("r"), terms(0)),
                format!(
                    "EVALSHA {hash} 4 p:s {} tailcast:idem:{{p:s}}:k {}",
                    rates("s"),
                    terms(1)
                ),
            ]
        );
    }

    /// What becomes of each append, by index, and which are sent again.
    fn settle(rooms: &[&str], replies: &[&str]) -> (Vec<(usize, String)>, usize) {
        let mut plan = plan(Settings::default());
        let mut pending = appends(rooms);
        for (index, pending) in pending.iter_mut().enumerate() {
            pending.deadline += Duration::from_millis(index as u64);
        }
        let first = pending[0].deadline;
        let batch = plan.batch(&pending, Instant::now());
        let parse = |wire: &&str| redis::parse_redis_value(wire.as_bytes()).unwrap();
        let values = replies.iter().map(parse).collect();
        let mut settled = batch.settle(&mut plan, values, pending.drain(..));
        let (tell, told) = mpsc::channel();
        for (pending, outcome) in settled.done.drain(..) {
            let index = (pending.deadline - first).as_millis() as usize;
            let outcome = match outcome {
                Ok(id) => id.to_string(),
                Err(AppendError::TooFast { limit, .. }) => format!("too fast {limit}"),
                Err(AppendError::Refused(error)) => format!("refused {}", error.code()),
                Err(AppendError::Unknown(error)) => format!("unknown {}", error.code()),
                Err(AppendError::NotReplicated(id)) => format!("not replicated {id}"),
            };
            tell.send((index, outcome)).unwrap();
        }
        (told.try_iter().collect(), settled.again.len())
    }

    #[tokio::test(start_paused = true)]
    async fn each_reply_concerns_its_own_append() {
        let (id, odd) = ("$3\r\n5-1\r\n", ":1\r\n");
        let loading = "-LOADING Redis is loading the dataset in memory\r\n";
        let wrong = "-WRONGTYPE Operation against a key holding the wrong kind of value\r\n";
        let lost = "-KEYLOST stored as 5-1, but its key is not kept: NOPERM\r\n";
        let no_script = "-NOSCRIPT No matching script. Please use EVAL.\r\n";
        let told = |index: usize, text: &str| (index, text.to_owned());
        let (done, again) = settle(&["r", "s", "t"], &[id, wrong, odd]);
        assert_eq!(again, 0);
        assert_eq!(done[0], told(0, "5-1"));
        assert_eq!(done[1], told(1, "refused wrong_type"));
        assert_eq!(done[2], told(2, "unknown redis_error"));

        // Sent again, the first would come after the second.
        let (done, again) = settle(&["r", "r", "s"], &[loading, id, loading]);
        assert_eq!(done, [told(0, "refused redis_loading"), told(1, "5-1")]);
        assert_eq!(again, 1);

        let outcomes = "*2\r\n*2\r\n:1\r\n:250\r\n*1\r\n:1\r\n";
        let (done, again) = settle(&["r:k", "r"], &[outcomes]);
        let odd = told(1, "unknown redis_error");
        assert_eq!((done, again), (vec![told(0, "too fast 1"), odd], 0));

        let both = format!("*2\r\n{lost}{id}");
        let (done, again) = settle(&["r:k", "r:l"], &[&both]);
        let id = told(1, "5-1");
        assert_eq!(
            (done, again),
            (vec![told(0, "unknown redis_denied"), id], 0)
        );
        let (done, again) = settle(&["r:k", "r", "s"], &["$3\r\n4-1\r\n", no_script]);
        assert_eq!((done, again), (vec![told(2, "4-1")], 2));
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_of_a_room_stands_behind_a_call_of_the_script() {
        let mut plan = plan(Settings {
            keep: Retention::All,
            ..Settings::default()
        });
        let appends = appends(&["r", "s:k", "r:l", "r", "t", "s", "r:m"]);
        let hash = script::HASH.as_str();
        let idem = |room, key| format!("tailcast:idem:{{p:{room}}}:{key}");
        let (keyed, plain) = ("0 1 3 * f v", "0 0 3 * f v");
        assert_eq!(
            words(&plan.batch(&appends, Instant::now())),
            [
                "XADD p:r * f v".to_owned(),
                "XADD p:t * f v".to_owned(),
                format!(
                    "EVALSHA {hash} 2 p:s {} 300000 {keyed} {plain}",
                    idem("s", "k")
                ),
                format!(
                    "EVALSHA {hash} 3 p:r {} {} 300000 {keyed} {plain} {keyed}",
                    idem("r", "l"),
                    idem("r", "m")
                ),
            ]
        );
    }
}
