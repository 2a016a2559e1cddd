// What was written here and is not stored yet: a queue for each place, sent in order, kept in this tab over a
// reload. A message has its idempotency key from the start, and the time when it was first sent: as long as a
// node remembers the key, sending it again stores nothing twice.
import { ClosedError, RefusedError, TimeoutError } from './tailcast.js'

/** How long a message may be sent again under its key, in ms: a node remembers it for 5 minutes. */
export const REPEAT_MAX = 240_000

/** Messages that may wait. */
const MESSAGES_MAX = 100

/** A timer may be this early, in ms. */
const EARLY = 20

/** Refusals that say when it may be tried again. */
const PASSING = new Set(['too_fast', 'slow_mode', 'room_too_fast'])

const FULL = { code: 'full', message: 'too many messages wait to be sent' }
const UNSURE = { code: 'unsure', message: 'there was no answer' }

/** 96 random bits. Not `randomUUID`, which pages without TLS don't have. */
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** What this tab has kept, by whatever version of this page. */
function read(key) {
  try {
    const found = JSON.parse(sessionStorage.getItem(key))
    const isWhole = (item) => ['kind', 'name', 'text', 'key'].every((member) => typeof item[member] === 'string') && Number.isFinite(item.time)
    return Array.isArray(found) ? found.filter(isWhole).slice(0, MESSAGES_MAX) : []
  } catch {
    return []
  }
}

export class Outbox {
  #me
  #key
  #publish
  #queues = new Map()

  /**
   * `publish[kind](name, text, options, patiently)` sends a message to a place of that kind, with the options of
   * the client; `patiently(run)` waits for its turn where messages come too fast.
   */
  constructor(me, publish) {
    this.#me = me
    this.#publish = publish
    // By user: what somebody wrote is not sent in the name of the next one.
    this.#key = `tailcast.outbox.${me ?? ''}`
    addEventListener('beforeunload', (event) => {
      if (this.#items.some(isUnsent)) event.preventDefault()
    })
  }

  /** Goes on with what the page had before it was loaded again. */
  resume() {
    for (const { kind, name, ...item } of read(this.#key)) this.queue({ kind, name }).restore(item)
  }

  /** The queue of a place. */
  queue({ kind, name }) {
    const id = `${kind} ${name}`
    let queue = this.#queues.get(id)
    if (!queue) {
      const publish = (...rest) => this.#publish[kind](name, ...rest)
      queue = new Queue(this.#me, { kind, name }, publish, this)
      this.#queues.set(id, queue)
    }
    return queue
  }

  get #items() {
    return [...this.#queues.values()].flatMap(({ items }) => items)
  }

  get isFull() {
    return this.#items.filter(isUnsent).length > MESSAGES_MAX
  }

  /** Writes down what is not stored yet. */
  keep() {
    const all = [...this.#queues.values()].flatMap(({ place, items }) => items.filter(isKept).map((item) => ({ ...place, ...written(item) })))
    try {
      if (all.length === 0) sessionStorage.removeItem(this.#key)
      else sessionStorage.setItem(this.#key, JSON.stringify(all.slice(0, MESSAGES_MAX)))
    } catch {
      // The browser keeps nothing, or no more. The page asks before it's closed.
    }
  }
}

const isUnsent = ({ state }) => state === 'pending' || state === 'waiting'
const isKept = (item) => isUnsent(item) || item.state === 'failed'

/** What is kept of a message. What ended with the connection has not failed: the next page sends it. */
function written({ text, key, time, sentAt, state, error, isHeld }) {
  return { text, key, time, sentAt, error: state === 'failed' && !isHeld ? { code: error.code, message: error.message } : null }
}

/** The messages of one place. */
class Queue {
  /** Not come back yet, in the order in which they were written. */
  items = []
  place

  #me
  #publish
  #outbox
  #timeline = null
  #lastSent = Promise.resolve()

  constructor(me, place, publish, outbox) {
    this.#me = me
    this.place = place
    this.#publish = publish
    this.#outbox = outbox
  }

  /** The timeline that shows this place now: it's told of changes. */
  attach(timeline) {
    this.#timeline = timeline
    // What is stored comes as an entry, to a timeline that begins now.
    this.items = this.items.filter(({ state }) => state !== 'stored')
  }

  #changed(added = null) {
    this.#outbox.keep()
    this.#timeline?.onQueue(added)
  }

  /**
   * Shows a message at once, and sends it after those before it, none of which it may overtake. It resolves
   * once it's stored, with null, or has failed, with the error. `onWait(error)` is told if it has to wait until
   * it may be sent.
   */
  send(text, onWait = () => {}) {
    const item = { kind: 'message', user: this.#me, text, time: Date.now(), state: 'pending', key: newKey(), sentAt: null, onWait }
    this.items.push(item)
    if (this.#outbox.isFull) Object.assign(item, { state: 'failed', error: FULL, retryAt: 0 })
    this.#changed(item)
    return item.state === 'failed' ? Promise.resolve(item.error) : this.#queue(item)
  }

  /** A message from before the page was loaded again. */
  restore({ text, key, time, sentAt, error }) {
    const item = { kind: 'message', user: this.#me, text, time, key, sentAt: sentAt ?? null, onWait: () => {}, isRestored: true }
    const isLate = item.sentAt !== null && Date.now() - item.sentAt >= REPEAT_MAX
    const failed = error ?? (isLate ? UNSURE : null)
    Object.assign(item, failed ? { state: 'failed', error: failed, retryAt: 0 } : { state: 'pending' })
    this.items.push(item)
    this.#changed()
    if (!failed) this.#queue(item)
  }

  /** Sends a failed message again. */
  retry(item) {
    // It may be stored; whoever sends it again knows that, and the old key would not hinder it any more.
    if (item.error.code === UNSURE.code) Object.assign(item, { key: newKey(), sentAt: null })
    Object.assign(item, { state: 'pending', error: null, isHeld: false, time: Date.now() })
    this.#changed()
    return this.#queue(item)
  }

  /** Slow mode is over: what waits for it goes now. */
  hurry() {
    for (const item of this.items) if (item.state === 'waiting' && item.error.code === 'slow_mode') item.wake?.()
  }

  /** Forgets a message that failed, or waits. */
  discard(item) {
    item.state = 'discarded'
    item.wake?.()
    this.#remove(item)
    this.#changed()
  }

  /** The message that this entry is, which leaves the queue: by its ID, or else the oldest that says the same. */
  claim(read) {
    const isIt = (item) => item.storedAs === read.id
    // An entry from before can say the same as what is still to be sent.
    const says = (item) => !item.storedAs && !item.isRestored && item.state === 'pending' && item.text === read.text && item.user === read.user
    const item = this.items.find(isIt) ?? (read.kind === 'message' ? this.items.find(says) : undefined)
    if (!item) return null
    this.#remove(item)
    this.#outbox.keep()
    return item
  }

  #remove(item) {
    this.items = this.items.filter((other) => other !== item)
  }

  #queue(item) {
    this.#lastSent = this.#lastSent.then(() => this.#sendNow(item))
    return this.#lastSent
  }

  /** Sends it until it's no longer refused for coming too early; nothing if it's discarded meanwhile. */
  async #patiently(item, publish) {
    while (item.state !== 'discarded') {
      try {
        return await publish()
      } catch (error) {
        // A refusal is certain: nothing was stored, and the time of its key has not begun.
        if (error instanceof RefusedError) item.sentAt = null
        if (!PASSING.has(error.code) || error.retryMs === undefined || item.state === 'discarded') throw error
        await this.#wait(item, error)
      }
    }
    return null
  }

  async #wait(item, error) {
    // The copy of a direct message may have to wait, too; the message itself is stored then.
    const isPending = item.state === 'pending'
    if (isPending) Object.assign(item, { state: 'waiting', error, sendAt: Date.now() + error.retryMs })
    this.#changed()
    item.onWait(error)
    await new Promise((resolve) => {
      item.wake = resolve
      setTimeout(resolve, error.retryMs + EARLY)
    })
    if (item.state !== 'waiting') return
    Object.assign(item, { state: 'pending', error: null })
    this.#changed()
  }

  async #sendNow(item) {
    const onFirstSend = (at) => {
      item.sentAt = at
      this.#outbox.keep()
    }
    try {
      const patiently = (publish) => this.#patiently(item, publish)
      const publish = () => this.#publish(item.text, { key: item.key, firstSentAt: item.sentAt ?? undefined, onFirstSend }, patiently)
      const sent = await patiently(publish)
      if (!sent) return null
      const { id } = sent
      if (item.state === 'pending') Object.assign(item, { state: 'stored', storedAs: id })
      if (!this.#timeline || this.#timeline.has(id)) this.#remove(item)
      this.#changed()
      return null
    } catch (error) {
      // It came back as an entry all the same.
      if (item.state === 'stored') return null
      const isUnsure = error instanceof TimeoutError
      Object.assign(item, { state: 'failed', error: isUnsure ? UNSURE : error, isHeld: error instanceof ClosedError })
      item.retryAt = Date.now() + (error.retryMs ?? 0)
      this.#changed()
      return error
    }
  }
}
