// What a room, or a conversation, shows: entries in the order they came, gaps in their place, and below
// them what was written here and is not stored yet, which the outbox has.
import { compareIds } from './tailcast.js'
import { readEntry } from './text.js'

/** Entries shown while one reads the newest; older ones come back on scrolling up. */
const KEPT = 600
const DROPPED = 200

export class Timeline {
  /** Oldest first. */
  items = []
  /** Whether there is something older to ask for. */
  hasOlder = true
  isLoading = false
  /** Whether there can be something older though nothing has come yet. */
  looksBack = false
  /** What was new on coming in: `{after, upTo}`, IDs; null if that is nothing, or not known. */
  news = null

  #ids = new Map()
  #fetchOlder
  #listener = () => {}
  #queue

  /** `fetchOlder(id)` gives `{entries, hasOlder}` before an ID; `queue` has what is written to this place. */
  constructor(fetchOlder, queue) {
    this.#fetchOlder = fetchOlder
    this.#queue = queue
    queue.attach(this)
  }

  /** Written here, and not come back yet. */
  get pending() {
    return this.#queue.items
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
    const own = this.#queue.claim(read)
    const item = own ? Object.assign(own, read, { state: 'stored' }) : { ...read, state: 'stored' }
    this.items.push(item)
    this.#ids.set(item.id, item)
    this.#changed(item)
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

  /** Writes a message here; see `Queue.send`. */
  send(text, onWait) {
    return this.#queue.send(text, onWait)
  }

  retry(item) {
    return this.#queue.retry(item)
  }

  discard(item) {
    this.#queue.discard(item)
  }

  /** Something has changed of what was written here. */
  onQueue(added) {
    this.#changed(added)
  }

  /** Lets go of the oldest, if there are very many. */
  trim() {
    if (this.items.length <= KEPT) return false
    for (const item of this.items.splice(0, DROPPED)) this.#ids.delete(item.id)
    this.hasOlder = true
    return true
  }
}
