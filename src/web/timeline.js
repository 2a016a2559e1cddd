// What a room, or a conversation, shows: entries in the order they came, gaps in their place, and below
// them what was written here and is not stored yet.
import { compareIds } from './tailcast.js'
import { readEntry } from './text.js'

/** Entries shown while one reads the newest; older ones come back on scrolling up. */
const KEPT = 600
const DROPPED = 200

/** A timer may be this early, in ms. */
const EARLY = 20

/** Refusals that say when it may be tried again. */
const PASSING = new Set(['too_fast', 'slow_mode', 'room_too_fast'])

export class Timeline {
  /** Oldest first. */
  items = []
  /** Written here, and not come back yet. */
  pending = []
  /** Whether there is something older to ask for. */
  hasOlder = true
  isLoading = false
  /** Whether there can be something older though nothing has come yet. */
  looksBack = false
  /** What was new on coming in: `{after, upTo}`, IDs; null if that is nothing, or not known. */
  news = null

  #me
  #ids = new Map()
  #fetchOlder
  #listener = () => {}
  #lastSent = Promise.resolve()

  /** `fetchOlder(id)` gives `{entries, hasOlder}` before an ID. */
  constructor(me, fetchOlder) {
    this.#me = me
    this.#fetchOlder = fetchOlder
  }

  /** Calls `listener` after each change, with the item that was added live, if one was. */
  onChange(listener) {
    this.#listener = listener
  }

  #changed(added = null) {
    this.#listener(added)
  }

  get oldest() {
    return this.items.find((item) => item.id)?.id
  }

  get newest() {
    return this.items.findLast((item) => item.id)?.id
  }

  /** Takes an entry that came. */
  append(entry) {
    if (this.#ids.has(entry.id)) return
    const read = readEntry(entry)
    // What was written here keeps its place on the page, and its element.
    const own = this.#claim(read)
    const item = own ? Object.assign(own, read, { state: 'stored' }) : { ...read, state: 'stored' }
    this.items.push(item)
    this.#ids.set(item.id, item)
    this.#changed(item)
  }

  /** The pending message that this entry is: by its ID, or else the oldest that says the same. */
  #claim(read) {
    const isIt = (item) => item.storedAs === read.id
    const says = (item) => !item.storedAs && item.state === 'pending' && item.text === read.text && item.user === read.user
    let index = this.pending.findIndex(isIt)
    if (index < 0 && read.kind === 'message') index = this.pending.findIndex(says)
    return index < 0 ? null : this.pending.splice(index, 1)[0]
  }

  /** Takes a gap, which belongs after all that came so far. */
  gap({ before, reason }) {
    // IDs may start over after these.
    if (reason !== 'trimmed') this.#ids.clear()
    this.items.push({ kind: 'gap', reason, time: Number(before.split('-', 1)[0]) })
    this.#changed()
  }

  /** Takes entries away that a moderator deleted. */
  remove(ids) {
    const gone = new Set(ids)
    const before = this.items.length
    this.items = this.items.filter((item) => !gone.has(item.id))
    for (const id of gone) this.#ids.delete(id)
    if (this.items.length !== before) this.#changed()
  }

  /** The IDs of all that is shown. */
  get storedIds() {
    return new Set(this.#ids.keys())
  }

  has(id) {
    return this.#ids.has(id)
  }

  /**
   * Takes away which of these are no longer kept: `kept` has all `ids` after `since`, and the `first` one.
   * Before a gap only what is after `first` is known to be deleted: the rest was trimmed, as the gap says.
   */
  keepOnly(shown, { ids, first, since }) {
    const gone = []
    let from = since
    for (const item of this.items.toReversed()) {
      if (item.kind === 'gap' && item.reason !== 'trimmed') break
      if (item.kind === 'gap') from = first
      else if (item.id && shown.has(item.id) && !ids.has(item.id) && from !== null && compareIds(item.id, from) >= 0) gone.push(item.id)
    }
    this.remove(gone)
  }

  /** Asks for what is before the oldest. */
  async older() {
    if (this.isLoading || !this.hasOlder || !(this.oldest || this.looksBack)) return
    this.isLoading = true
    this.#changed()
    try {
      const { entries, hasOlder } = await this.#fetchOlder(this.oldest)
      const fresh = entries.filter(({ id }) => !this.#ids.has(id)).map((entry) => ({ ...readEntry(entry), state: 'stored' }))
      for (const item of fresh) this.#ids.set(item.id, item)
      this.items.unshift(...fresh)
      this.hasOlder = hasOlder
    } finally {
      this.isLoading = false
      this.#changed()
    }
  }

  /** Takes an entry from before the oldest. */
  prepend(entry) {
    if (this.#ids.has(entry.id)) return
    const item = { ...readEntry(entry), state: 'stored' }
    this.#ids.set(item.id, item)
    const at = this.items.findIndex(({ id }) => id && compareIds(id, item.id) > 0)
    this.items.splice(at < 0 ? this.items.length : at, 0, item)
    this.#changed()
  }

  /**
   * Shows a message at once, and sends it after those before it, none of which it may overtake. It resolves
   * once it's stored, with null, or has failed, with the error.
   *
   * `publish(text, key, patiently)` sends it; `onWait(error)` is told if it has to wait until it may be sent.
   */
  send(text, publish, onWait = () => {}) {
    const item = { kind: 'message', user: this.#me, text, time: Date.now(), state: 'pending', publish, onWait }
    this.pending.push(item)
    this.#changed(item)
    return this.#queue(item)
  }

  /** Sends a failed message again. */
  retry(item) {
    Object.assign(item, { state: 'pending', error: null, time: Date.now() })
    this.#changed()
    return this.#queue(item)
  }

  /** Forgets a message that failed, or waits. */
  discard(item) {
    item.state = 'discarded'
    item.wake?.()
    this.pending = this.pending.filter((other) => other !== item)
    this.#changed()
  }

  #queue(item) {
    this.#lastSent = this.#lastSent.then(() => this.#publish(item))
    return this.#lastSent
  }

  /** Sends it until it's no longer refused for coming too early; nothing if it's discarded meanwhile. */
  async #patiently(item, publish) {
    while (item.state !== 'discarded') {
      try {
        return await publish()
      } catch (error) {
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

  async #publish(item) {
    try {
      const patiently = (publish) => this.#patiently(item, publish)
      // A publish that was not answered may be stored; under its key it is stored once.
      const sent = await patiently(() => item.publish(item.text, item.key, patiently))
      if (!sent) return null
      const { id } = sent
      if (item.state === 'pending') Object.assign(item, { state: 'stored', storedAs: id })
      if (this.#ids.has(id)) this.pending = this.pending.filter((other) => other !== item)
      this.#changed()
      return null
    } catch (error) {
      if (error.key) item.key = error.key
      if (this.items.includes(item)) return null
      Object.assign(item, { state: 'failed', error, retryAt: Date.now() + (error.retryMs ?? 0) })
      this.#changed()
      return error
    }
  }

  /** Lets go of the oldest, if there are very many. */
  trim() {
    if (this.items.length <= KEPT) return false
    for (const item of this.items.splice(0, DROPPED)) this.#ids.delete(item.id)
    this.hasOlder = true
    return true
  }
}
