//! The script for appends that ask for more than XADD: an idempotency key, limits, or both.

use std::sync::LazyLock;

/// KEYS: the stream, each limit's rate, and the idempotency key if there is one. ARGV: how long that
/// is kept in ms, how many limits there are, for each its interval in µs and its burst, and what
/// XADD is told. Answers the entry's ID; or if a limit refuses, its place and the wait in ms.
///
/// A repeat is answered before any limit is asked. The rates are the algorithm of `store/rate.rs`;
/// they are charged when all pass, right before the entry is stored: what fails then was charged in
/// vain, but nothing passes uncharged.
///
/// If remembering the ID fails (an ACL without SET), the entry is stored and a repeat would store
/// it again: that is not to be called a success, nor a refusal.
pub(super) const TEXT: &str = "\
local count = tonumber(ARGV[2]) \
local key = KEYS[count + 2] \
local id = key and redis.call('GET', key) \
if id then return id end \
if count > 0 then \
  local time = redis.call('TIME') \
  local now = time[1] * 1000000 + time[2] \
  local full = {} \
  for i = 1, count do \
    local interval, burst = tonumber(ARGV[2 * i + 1]), tonumber(ARGV[2 * i + 2]) \
    local most = interval * burst \
    local at = tonumber(redis.call('GET', KEYS[i + 1]) or now) or now \
    at = math.min(math.max(at, now), now + most) + interval \
    if at - now > most then return {i - 1, math.ceil((at - now - most) / 1000)} end \
    full[i] = at \
  end \
  for i = 1, count do \
    redis.call('SET', KEYS[i + 1], string.format('%.0f', full[i]), 'PX', string.format('%.0f', math.ceil((full[i] - now) / 1000))) \
  end \
end \
id = redis.call('XADD', KEYS[1], unpack(ARGV, 3 + 2 * count)) \
if key then \
  local kept = redis.pcall('SET', key, id, 'PX', ARGV[1]) \
  if kept.err then return redis.error_reply('KEYLOST stored as ' .. id .. ', but its key is not kept: ' .. kept.err) end \
end \
return id";

/// What EVALSHA calls it.
pub(super) static HASH: LazyLock<String> =
    LazyLock::new(|| redis::Script::new(TEXT).get_hash().to_owned());
