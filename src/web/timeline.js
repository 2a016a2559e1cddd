// What a room, or a conversation, shows: entries in the order they came, gaps in their place, and below
// them what was written here and is not stored yet.
import { compareIds } from './tailcast.js'
import { readEntry } from './text.js'

/** Entries shown while one reads the newest; older ones come back on scrolling up. */
const KEPT = 600
const DROPPED = 200

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

  #me
  #ids = new Map()
  #fetchOlder
  #listener = () => {}

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

  /** Shows a message at once, and sends it: `publish(text)` resolves once it's stored. */
  async send(text, publish) {
    const item = { kind: 'message', user: this.#me, text, time: Date.now(), state: 'pending', publish }
    this.pending.push(item)
    this.#changed(item)
    return this.#publish(item)
  }

  /** Sends a failed message again. */
  retry(item) {
    Object.assign(item, { state: 'pending', error: null, time: Date.now() })
    this.#changed()
    return this.#publish(item)
  }

  /** Forgets a failed message. */
  discard(item) {
    this.pending = this.pending.filter((other) => other !== item)
    this.#changed()
  }

  async #publish(item) {
    try {
      // A publish that was not answered may be stored; under its key it is stored once.
      const { id } = await item.publish(item.text, item.key)
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
