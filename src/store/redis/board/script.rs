//! The scripts: what must be looked at and changed in one step.
//!
//! They name keys of their own making, which a cluster forbids: all nodes share one server. All but
//! [`ACT`] do no harm if they run twice, so one whose answer was lost is simply sent again.

use std::sync::LazyLock;

use redis::Pipeline;

/// One script.
pub(super) struct Script {
    text: &'static str,
    hash: LazyLock<String>,
}

impl Script {
    /// Adds a call of it, without keys; arguments follow.
    pub(super) fn call<'a>(&self, pipe: &'a mut Pipeline) -> &'a mut Pipeline {
        pipe.cmd("EVALSHA").arg(self.hash.as_str()).arg(0)
    }
}

macro_rules! script {
    ($(#[$doc:meta])* $name:ident, $text:expr) => {
        $(#[$doc])*
        pub(super) static $name: Script = Script {
            text: $text,
            hash: LazyLock::new(|| redis::Script::new($text).get_hash().to_owned()),
        };
    };
}

/// Loads them all.
pub(super) fn load() -> Pipeline {
    let mut pipe = Pipeline::with_capacity(5);
    for script in [&BEAT, &ACT, &WRITE, &EMPTY, &FINISH] {
        pipe.cmd("SCRIPT").arg("LOAD").arg(script.text);
    }
    pipe
}

script! {
    /// Renews a lease: its key, a random birth, what the node says, milliseconds. Answers the
    /// lease's birth, which is the given one if there was no lease.
    ///
    /// SET with GET would tell whether it was there, too, but only once: if that answer is lost, the
    /// next one says that all is well. A birth that isn't the known one tells it each time.
    BEAT, "\
local old = redis.call('GET', ARGV[1]) \
local birth = old and string.sub(old, 1, 16) or ARGV[2] \
redis.call('SET', ARGV[1], birth .. ARGV[3], 'PX', ARGV[4]) \
return birth"
}

script! {
    /// Records an act, then changes the rules: what fails, fails in the first step. ARGV: the key of
    /// the rules, the stream, how many entries it keeps, how many fields the record has, these, and
    /// for each rule whether it's set, its name and its value. Answers the record's ID.
    ACT, "\
local rules, stream, kept, count = unpack(ARGV, 1, 4) \
local last = 4 + 2 * tonumber(count) \
local id = redis.call('XADD', stream, 'MAXLEN', '~', kept, '*', unpack(ARGV, 5, last)) \
for at = last + 1, #ARGV, 3 do \
  if ARGV[at] == '1' then redis.call('HSET', rules, ARGV[at + 1], ARGV[at + 2]) \
  else redis.call('HDEL', rules, ARGV[at + 1]) end \
end \
return id"
}

/// What [`WRITE`] and [`EMPTY`] share. A user is in the room as long as any node has them there,
/// whether it lives or not: so the one who removes the last record, and only that one, tells of the
/// leaving, whoever died in between. Nodes without a lease are no exception, because their records
/// are still to be buried, and that tells. A room whose key is no stream is told nothing: it's in
/// nobody's power here, and must not stop what is written of other rooms.
///
/// ARGV: the key of all nodes, the start of the keys of people, the node, the room, its stream, the
/// stream's expiry in ms or 0, how to trim and to what (empty: not at all).
macro_rules! notices {
    () => {
        "\
local nodes, here_of, node, room, stream, expiry, trim, threshold = unpack(ARGV, 1, 8) \
local here = here_of .. node .. ':' .. room \
local others = {} \
for _, other in ipairs(redis.call('SMEMBERS', nodes)) do \
  if other ~= node then others[#others + 1] = here_of .. other .. ':' .. room end \
end \
local told = false \
local function add(...) \
  local reply = redis.pcall('XADD', stream, ...) \
  if type(reply) ~= 'table' then told = true \
  elseif not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply.err) end \
end \
local function tell(event, user) \
  if user == '' then return end \
  for _, other in ipairs(others) do \
    if redis.call('HEXISTS', other, user) == 1 then return end \
  end \
  if trim == '' then \
    add('*', 'event', event, 'user', user) \
  else \
    add(trim, '~', threshold, '*', 'event', event, 'user', user) \
  end \
end \
local function finish() \
  if told and expiry ~= '0' then redis.call('PEXPIRE', stream, expiry) end \
end "
    };
}

script! {
    /// Writes a piece of a room's change with notices. Further ARGV: the key of the node's rooms,
    /// the room's size, the channel or nothing if more pieces follow, the message, how many are
    /// set, their users and records, then the users removed.
    WRITE, concat!(notices!(), "\
local rooms, size, channel, message, count = unpack(ARGV, 9, 13) \
redis.call('SADD', nodes, node) \
redis.call('HSET', rooms, room, size) \
local last = 13 + 2 * tonumber(count) \
for at = 14, last, 2 do \
  if redis.call('HSET', here, ARGV[at], ARGV[at + 1]) == 1 then tell('join', ARGV[at]) end \
end \
for at = last + 1, #ARGV do \
  if redis.call('HDEL', here, ARGV[at]) == 1 then tell('leave', ARGV[at]) end \
end \
finish() \
if channel ~= '' then \
  if size == '0' and redis.call('EXISTS', here) == 0 then redis.call('HDEL', rooms, room) end \
  redis.call('PUBLISH', channel, message) \
end \
return 1")
}

script! {
    /// Removes some of a dead node's people from a room, with notices. Further ARGV: the key of the
    /// node's rooms, its lease, a cursor. Answers the next cursor, or -1 if the node lives.
    EMPTY, concat!(notices!(), "\
local rooms, lease, cursor = unpack(ARGV, 9, 11) \
if redis.call('EXISTS', lease) == 1 then return '-1' end \
local page = redis.call('HSCAN', here, cursor, 'COUNT', 200) \
local seen = page[2] \
for at = 1, #seen, 2 do \
  if redis.call('HDEL', here, seen[at]) == 1 then tell('leave', seen[at]) end \
end \
finish() \
if page[1] == '0' and redis.call('EXISTS', here) == 0 then redis.call('HDEL', rooms, room) end \
return page[1]")
}

script! {
    /// Removes a page of a dead node's rooms, and the node itself after the last one. ARGV: the key
    /// of all nodes, the start of the keys of people, the node, its lease, the key of its rooms, of
    /// its users, a cursor, and whether rooms that have people are left alone. Answers the next
    /// cursor, -1 if the node lives, or -2 if nothing is left of it.
    FINISH, "\
local nodes, here_of, node, lease, rooms, users, cursor, careful = unpack(ARGV) \
if redis.call('EXISTS', lease) == 1 then return '-1' end \
local page = redis.call('HSCAN', rooms, cursor, 'COUNT', 200) \
for at = 1, #page[2], 2 do \
  local room = page[2][at] \
  local here = here_of .. node .. ':' .. room \
  if careful == '0' then redis.call('UNLINK', here) end \
  if redis.call('EXISTS', here) == 0 then redis.call('HDEL', rooms, room) end \
end \
if page[1] == '0' and redis.call('EXISTS', rooms) == 0 then \
  redis.call('UNLINK', users) \
  redis.call('SREM', nodes, node) \
  return '-2' \
end \
return page[1]"
}
