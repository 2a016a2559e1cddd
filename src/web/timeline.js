// What a room, or a conversation, shows: a stretch of its stream, gaps in their place, and below the newest what
// was written here and is not stored yet, which the outbox has. However long the stream is, and wherever in it one
// reads, at most some hundreds of messages are held: what is let go is fetched again by its ID when it is
// scrolled to.
import { compareIds } from './tailcast.js'
import { readEntry } from './text.js'

/** Messages of the stretch that is shown, at most. */
const HELD = 300

/** How many more are let go at once while one follows the newest, so that this is not done for each that comes. */
const SLACK = 50

/** The newest messages, kept while one reads elsewhere: the way back needs no request. */
const TAIL = 200

/** The next ID: what is before it includes `id`. */
export function successor(id) {
  const [time, seq = '0'] = id.split('-')
  return `${time}-${BigInt(seq) + 1n}`
}

const firstId = (items) => items.find((item) => item.id)?.id
const lastId = (items) => items.findLast((item) => item.id)?.id

export class Timeline {
  /** The stretch that is shown, oldest first. */
  items = []
  /** Whether there is something older to ask for. */
  hasOlder = true
  /** Whether the stretch ends before the newest message. */
  hasNewer = false
  isLoading = false
  isLoadingNewer = false
  /** Whether one follows the newest messages; else those that one reads stay, and newer ones are let go. */
  follows = true
  /** Whether what was let go can be asked for again. */
  hasHistory = true
  /** Whether there can be something older though nothing has come yet. */
  looksBack = false
  /** What was new on coming in: `{after, upTo}`, IDs; null if that is nothing, or not known. */
  news = null

  /** Items by ID, of the stretch and of the tail. */
  #ids = new Map()
  /** The newest items, if the stretch ends before them. */
  #tail = []
  /** Where the search for older messages goes on, if it has come further back than what is shown. */
  #searched
  /** Counts the jumps to another stretch: an answer from before one is of no use. */
  #jumps = 0
  #source
  #listener = () => {}
  #queue

  /**
   * `source.older(id)` gives `{entries, hasMore, searched}` before an ID, oldest first, and `source.newer(id)`
   * those after it; `searched` says how far was looked, if that is further than the entries go. `queue` has what
   * is written to this place.
   */
  constructor(source, queue) {
    this.#source = source
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

  /** The oldest ID that is shown. */
  get oldest() {
    return firstId(this.items)
  }

  /** The newest ID that is known, shown or not. */
  get newest() {
    return lastId(this.hasNewer ? this.#tail : this.items)
  }

  /** Takes an entry that came. */
  append(entry) {
    const known = this.#ids.get(entry.id)
    if (known) {
      // It was fetched a moment ago, in a stretch that may be left before it reaches the newest.
      if (this.hasNewer && !this.#tail.includes(known)) this.#tail.push(known)
      return
    }
    const read = readEntry(entry)
    // What was written here keeps its place on the page, and its element.
    const own = this.#queue.claim(read)
    const item = own ? Object.assign(own, read, { state: 'stored' }) : { ...read, state: 'stored' }
    this.#ids.set(item.id, item)
    this.#add(item)
    this.#changed(item)
  }

  /** Adds a message or a gap after the newest one. */
  #add(item) {
    if (this.hasNewer) {
      this.#tail.push(item)
      if (this.#tail.length > TAIL + SLACK) this.#forget(this.#tail.splice(0, this.#tail.length - TAIL))
      return
    }
    this.items.push(item)
    if (this.items.length <= HELD) return
    if (this.follows || !this.hasHistory) this.#dropOldest()
    else this.#dropNewest()
  }

  /** Takes a gap, which belongs after all that came so far. */
  gap({ before, reason }) {
    // IDs may start over after these, so that nothing can be fetched between what is shown and what comes.
    if (reason !== 'trimmed') {
      this.toEnd()
      this.#ids.clear()
    }
    this.#add({ kind: 'gap', reason, time: Number(before.split('-', 1)[0]) })
    this.#changed()
  }

  /** Takes entries away that a moderator deleted. */
  remove(ids) {
    const gone = new Set(ids)
    const before = this.items.length + this.#tail.length
    const stays = (item) => !gone.has(item.id)
    this.items = this.items.filter(stays)
    this.#tail = this.#tail.filter(stays)
    for (const id of gone) this.#ids.delete(id)
    if (this.items.length + this.#tail.length !== before) this.#changed()
  }

  /** The IDs of all that is held. */
  get storedIds() {
    return new Set(this.#ids.keys())
  }

  has(id) {
    return this.#ids.has(id)
  }

  /** What is held, as stretches of the stream, the newest last: `{items, oldest, before}`, the last without an end. */
  get stretches() {
    const stretch = (items, before) => ({ items, oldest: firstId(items), before })
    const shown = lastId(this.items)
    const all = this.hasNewer ? [stretch(this.items, shown && successor(shown)), stretch(this.#tail)] : [stretch(this.items)]
    return all.filter(({ oldest }) => oldest)
  }

  /**
   * Takes away which of these are no longer kept: `kept` has all `ids` of the stretch after `since`, and the `first`
   * one. Before a gap only what is after `first` is known to be deleted: the rest was trimmed, as the gap says.
   */
  keepOnly({ items }, shown, { ids, first, since }) {
    const gone = []
    let from = since
    for (const item of items.toReversed()) {
      if (item.kind === 'gap' && item.reason !== 'trimmed') break
      if (item.kind === 'gap') from = first
      else if (item.id && shown.has(item.id) && !ids.has(item.id) && from !== null && compareIds(item.id, from) >= 0) gone.push(item.id)
    }
    this.remove(gone)
  }

  /** Asks for what is before the stretch. */
  async older() {
    if (this.isLoading || !this.hasOlder || !(this.oldest || this.looksBack)) return
    const jumps = this.#jumps
    this.isLoading = true
    this.#changed()
    try {
      const { entries, hasMore, searched } = await this.#source.older(this.#searched ?? this.oldest)
      if (jumps !== this.#jumps) return
      this.items.unshift(...this.#fresh(entries))
      this.#searched = searched
      this.hasOlder = hasMore
      if (this.items.length > HELD) this.#dropNewest()
    } finally {
      this.isLoading = false
      this.#changed()
    }
  }

  /** Looks for older messages from before this ID on, if none has come yet. */
  searchFrom(id) {
    if (this.items.length > 0) return
    if (!this.#searched || compareIds(id, this.#searched) > 0) this.#searched = id
  }

  /** Asks for what is after the stretch, unless the newest messages follow it. */
  async newer() {
    if (this.isLoadingNewer || !this.hasNewer) return
    if (this.#join()) return this.#changed()
    const jumps = this.#jumps
    this.isLoadingNewer = true
    this.#changed()
    try {
      const { entries, hasMore } = await this.#source.newer(lastId(this.items) ?? '0-0')
      if (jumps !== this.#jumps) return
      this.items.push(...this.#fresh(entries))
      this.#join(!hasMore)
      if (this.items.length > HELD) this.#dropOldest()
    } finally {
      this.isLoadingNewer = false
      this.#changed()
    }
  }

  /** Goes to the newest messages. */
  toEnd() {
    if (!this.hasNewer) return
    this.#leave()
    this.items = this.#tail
    this.#tail = []
    this.hasNewer = false
    this.hasOlder = this.hasHistory
    // All of the newest may be deleted by now.
    this.looksBack ||= !this.oldest
    this.#changed()
  }

  /** Goes to where an entry is. False if there is no such entry any more, or one has gone elsewhere meanwhile. */
  async goTo(id) {
    if (this.items.some((item) => item.id === id)) return true
    const jumps = (this.#jumps += 1)
    const [before, after] = await Promise.all([this.#source.older(successor(id)), this.#source.newer(id)])
    if (jumps !== this.#jumps || before.entries.at(-1)?.id !== id) return false
    if (!this.hasNewer) this.#tail = this.items.slice(-TAIL)
    this.hasNewer = true
    this.#leave()
    this.items = this.#fresh([...before.entries, ...after.entries], true)
    this.hasOlder = before.hasMore
    this.#join(!after.hasMore)
    this.#changed()
    return true
  }

  /** Entries as items, but for those that are held already; with `all`, these too. */
  #fresh(entries, all = false) {
    const items = []
    for (const entry of entries) {
      const known = this.#ids.get(entry.id)
      if (known && !all && this.items.includes(known)) continue
      const item = known ?? { ...readEntry(entry), state: 'stored' }
      this.#ids.set(item.id, item)
      items.push(item)
    }
    return items
  }

  /** Puts the newest messages behind the stretch, if it reaches them, or is known to with `isEnd`. */
  #join(isEnd = false) {
    const shown = lastId(this.items)
    const first = firstId(this.#tail)
    const reaches = first && shown && compareIds(shown, first) >= 0
    if (!reaches && !isEnd) return false
    const at = shown ? this.#tail.findLastIndex(({ id }) => id && compareIds(id, shown) <= 0) : -1
    this.items.push(...this.#tail.slice(at + 1))
    this.#tail = []
    this.hasNewer = false
    if (this.items.length > HELD) this.#dropOldest()
    return true
  }

  /** Lets go of the stretch, to show another one. */
  #leave() {
    this.#jumps += 1
    this.#searched = undefined
    const left = this.items
    this.items = []
    this.#forget(left)
  }

  #dropOldest() {
    this.#forget(this.items.splice(0, this.items.length - HELD + SLACK))
    this.#searched = undefined
    this.hasOlder = this.hasHistory
  }

  #dropNewest() {
    if (!this.hasHistory) return
    if (!this.hasNewer) this.#tail = this.items.slice(-TAIL)
    this.hasNewer = true
    this.#forget(this.items.splice(HELD))
  }

  /** These were taken out of a stretch; those that are in the other one are still held. */
  #forget(items) {
    const held = new Set([...this.items, ...this.#tail])
    for (const item of items) if (!held.has(item) && this.#ids.get(item.id) === item) this.#ids.delete(item.id)
  }

  /** Writes a message here, below the newest; see `Queue.send`. */
  send(text, onWait) {
    this.toEnd()
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

  /** Slow mode is over: what waits for it goes now. */
  hurry() {
    this.#queue.hurry()
  }
}
