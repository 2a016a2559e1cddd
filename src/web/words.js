// What the page says about errors. The server's sentences are for people who write programs; here each code has one
// for people who chat. A code without an own sentence is shown in the server's words.

const AWAY = 'Messages can’t be stored right now.'

/** By the code of an error (CONTRACT.md; `timeout`, `offline` and `network` are the client's own). */
const SENTENCES = {
  banned: 'You are banned from this room.',
  muted: 'You are muted in this room.',
  closed: 'This room is closed.',
  slow_mode: 'Slow mode is on. Please wait a moment.',
  too_fast: 'You are sending too fast. Please wait a moment.',
  room_too_fast: 'This room is very busy. Please wait a moment.',
  too_large: 'This message is too long.',
  bad_room: 'This name can’t be used for a room. Room names have at most 256 bytes and don’t start with `tailcast:`.',
  unauthenticated: 'You need to log in.',
  timeout: 'Couldn’t confirm it was sent.',
  unknown_outcome: 'Couldn’t confirm it was sent.',
  not_replicated: 'Couldn’t confirm it was sent.',
  offline: 'There is no connection.',
  network: 'The server can’t be reached.',
  redis_unavailable: AWAY,
  redis_loading: AWAY,
  redis_read_only: AWAY,
  redis_full: 'The server has no space left for messages.',
  busy: 'The server is busy. Try again in a moment.',
  draining: 'The server is restarting. Try again in a moment.',
  internal: 'Something went wrong on the server. Try again.',
  user_taken: 'This name is already taken.',
  wrong_password: 'Wrong name or password.',
  bad_password: 'A password has 8 to 256 characters.',
  bad_user: 'This name can’t be used. Names don’t start or end with a space, and don’t start with @.',
  bad_name: 'This display name can’t be used. It is too long, or has characters that can’t be shown.',
  too_many_attempts: 'Too many attempts. Wait a moment, then try again.',
}

/** What somebody may not do, by what they tried. */
const FORBIDDEN = {
  join: 'You don’t have access to this room.',
  send: 'You can’t send messages here.',
  do: 'You aren’t allowed to do that.',
}

/** An error in a sentence. `tried` is `join`, `send` or `do`. */
export function say(error, tried = 'do') {
  if (error.code === 'forbidden' && !/host/.test(error.message)) return FORBIDDEN[tried]
  if (error.code === 'forbidden') return 'Hosts can’t be moderated.'
  if (tried === 'do' && (error.code === 'timeout' || error.code === 'unknown_outcome')) return 'Couldn’t confirm it was done.'
  return SENTENCES[error.code] ?? sentence(error.message)
}

/** The server's own words as a sentence. */
export function sentence(text) {
  const trimmed = (text ?? '').trim()
  if (!trimmed) return 'Something went wrong.'
  return trimmed.charAt(0).toUpperCase() + trimmed.slice(1) + (/[.!?]$/.test(trimmed) ? '' : '.')
}

/** What a ban, a mute or a timeout is, with when it ends and why: `left(ms)` spells a time. */
export function heldAgainst(what, { until, reason }, left) {
  const time = until ? ` for ${left(until - Date.now())}` : ''
  return `${what}${time}${reason ? `: ${reason}` : '.'}`
}
