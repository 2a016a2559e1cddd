//! The script for appends that ask for more than XADD: an idempotency key, limits, or both. One call
//! takes any number of appends to one room; see `batch.rs` for why.

use std::sync::LazyLock;

/// KEYS: the stream; then for each append each limit's rate, and the idempotency key if there is one.
/// ARGV: how long that is kept in ms; then for each append how many limits there are, 1 if it has a
/// key, and how many words follow for XADD; for each limit its interval in µs and its burst; and the
/// words. Answers a list, for each append the entry's ID; or if a limit refuses, its place and the
/// wait in ms; or an error, which concerns that append alone.
///
/// A repeat is answered before any limit is asked. The rates are the algorithm of `store/rate.rs`;
/// they are charged when all pass, right before the entry is stored: what fails then was charged in
/// vain, but nothing passes uncharged.
///
/// If remembering the ID fails (an ACL without SET), the entry is stored and a repeat would store
/// it again: that is not to be called a success, nor a refusal.
pub(super) const TEXT: &str = "\
local function call(...) \
  local reply = redis.pcall(...) \
  if type(reply) == 'table' and reply.err then error(reply, 0) end \
  return reply \
end \
local function append(count, rates, terms, key, from, to) \
  local id = key and call('GET', key) \
  if id then return id end \
  if count > 0 then \
    local time = redis.call('TIME') \
    local now = time[1] * 1000000 + time[2] \
    local full = {} \
    for i = 1, count do \
      local interval, burst = tonumber(ARGV[terms + 2 * i - 2]), tonumber(ARGV[terms + 2 * i - 1]) \
      local most = interval * burst \
      local at = tonumber(call('GET', KEYS[rates + i - 1]) or now) or now \
      at = math.min(math.max(at, now), now + most) + interval \
      if at - now > most then return {i - 1, math.ceil((at - now - most) / 1000)} end \
      full[i] = at \
    end \
    for i = 1, count do \
      call('SET', KEYS[rates + i - 1], string.format('%.0f', full[i]), 'PX', string.format('%.0f', math.ceil((full[i] - now) / 1000))) \
    end \
  end \
  id = call('XADD', KEYS[1], unpack(ARGV, from, to)) \
  if key then \
    local kept = redis.pcall('SET', key, id, 'PX', ARGV[1]) \
    if kept.err then return redis.error_reply('KEYLOST stored as ' .. id .. ', but its key is not kept: ' .. kept.err) end \
  end \
  return id \
end \
local outcomes, rates, at = {}, 2, 2 \
while at <= #ARGV do \
  local count, key, terms = tonumber(ARGV[at]), nil, at + 3 \
  local from = terms + 2 * count \
  local to = from + tonumber(ARGV[at + 2]) - 1 \
  if ARGV[at + 1] == '1' then key = KEYS[rates + count] end \
  local done, outcome = pcall(append, count, rates, terms, key, from, to) \
  if not done then \
    local text = type(outcome) == 'table' and outcome.err or outcome \
    outcome = redis.error_reply(text) \
  end \
  outcomes[#outcomes + 1] = outcome \
  rates, at = rates + count + (key and 1 or 0), to + 1 \
end \
return outcomes";

/// What EVALSHA calls it.
pub(super) static HASH: LazyLock<String> =
    LazyLock::new(|| redis::Script::new(TEXT).get_hash().to_owned());

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::Duration;

    use bytes::Bytes;
    use redis::Value;

    use super::*;
    use crate::relay::log::Limit;
    use crate::store::local::LocalRedis;
    use crate::store::rate;

    /// The script by a clock that the test sets decides as [`rate::pass`] does, to the microsecond.
    #[test]
    fn keeps_rates_as_all_stores_do() {
        let dir = tempfile::tempdir().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let server = LocalRedis::start(port.unwrap().port(), dir.path()).unwrap();
        let client = redis::Client::open(server.url()).unwrap();
        let mut connection = client.get_connection().unwrap();
        let clock =
            "{math.floor(redis.call('GET', 'now') / 1000000), redis.call('GET', 'now') % 1000000}";
        // What is stored expires by the server's own clock, so here it must not.
        let expiry = ", 'PX', string.format('%.0f', math.ceil((full[i] - now) / 1000))";
        assert!(TEXT.contains("redis.call('TIME')") && TEXT.contains(expiry));
        let text = TEXT
            .replace("redis.call('TIME')", clock)
            .replace(expiry, "");
        let script = redis::Script::new(&text);

        let limit = |interval_ms, burst| Limit {
            name: Bytes::new(),
            interval: Duration::from_millis(interval_ms),
            burst,
        };
        for limits in [
            vec![limit(7, 3)],
            vec![limit(1, 1), limit(30, 5)],
            vec![limit(40, 2), limit(3, 9), limit(15, 4)],
        ] {
            let mut now: u64 = 1_790_000_000_000_000;
            let mut full: Vec<Option<u64>> = vec![None; limits.len()];
            let mut outcomes = [0, 0];
            for step in 0..400 {
                now = match step {
                    // The clock goes back.
                    200 => now - 60_000_000,
                    _ => now + rand::random_range(0..20_000),
                };
                let passed: Vec<_> = (limits.iter().zip(&full))
                    .map(|(limit, full)| rate::pass(*full, now, limit))
                    .collect();
                let refused = passed.iter().enumerate().find_map(|(index, passed)| {
                    let wait = passed.err()?.div_ceil(1000);
                    Some(Value::Array(vec![
                        Value::Int(index as i64),
                        Value::Int(wait as i64),
                    ]))
                });
                redis::cmd("SET")
                    .arg(&["now", &now.to_string()])
                    .exec(&mut connection)
                    .unwrap();
                let mut call = script.key("stream");
                for index in 0..limits.len() {
                    call.key(format!("rate {index} of {}", limits.len()));
                }
                call.arg(1000).arg(limits.len()).arg(0).arg(3);
                for limit in &limits {
                    let (interval, burst) = rate::terms(limit);
                    call.arg(interval).arg(burst);
                }
                call.arg("*").arg("f").arg("v");
                let mut got: Vec<Value> = call.invoke(&mut connection).unwrap();
                assert_eq!(got.len(), 1);
                let got = got.remove(0);
                match refused {
                    Some(want) => assert_eq!(got, want, "step {step} at {now}"),
                    None => {
                        assert!(matches!(got, Value::BulkString(_)), "step {step}: {got:?}");
                        full = passed.into_iter().map(Result::ok).collect();
                    }
                }
                outcomes[usize::from(matches!(got, Value::Array(_)))] += 1;
            }
            assert!(outcomes.iter().all(|count| *count > 20), "{outcomes:?}");
        }
    }
}
