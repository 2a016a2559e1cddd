// Direct messages. Everything sent to a user is in one stream of theirs; here it is taken apart by whom
// it is with. What one writes oneself goes to the other, and a copy into the own stream, so that one's
// other devices have it, too, and it is there tomorrow.
import { compareIds, timeOf } from './tailcast.js'
import { Seen } from './seen.js'
import { Timeline, successor } from './timeline.js'

/** Pages of the stream to look through for one conversation, each time its older messages are asked for. */
const PAGES = 5

/** Entries on one. */
const LIMIT = 200

/** Unread messages of a conversation that are known one by one. */
const FRESH_MAX = 200

/** What came longer ago is counted, but no longer announced, in ms: a device new to all of it would announce it all. */
const FRESH = 20_000

export class Inbox {
  #client
  #me
  #outbox
  #talks = new Map()
  #read
  #told
  #onChange

  /** `outbox` has what is written; `onChange(talk, entry)` is called when a conversation has changed, with the entry that is news, if one is. */
  constructor(client, me, outbox, onChange) {
    this.#client = client
    this.#me = me
    this.#outbox = outbox
    this.#onChange = onChange
    // The last ID that was read, and the last that was announced, by whom one talks to.
    this.#read = new Seen(`read.${me}`, () => this.#recount())
    this.#told = new Seen(`told.${me}`)
    client.inbox.on('entry', (entry) => this.#onEntry(entry))
    client.inbox.on('gap', (gap) => {
      for (const talk of this.#talks.values()) talk.timeline.gap(gap)
    })
    client.inbox.on('deleted', ({ ids }) => {
      for (const talk of this.#talks.values()) talk.timeline.remove(ids)
    })
  }

  /** Conversations, the newest first. */
  get talks() {
    return [...this.#talks.values()].sort((a, b) => compareIds(b.last, a.last))
  }

  /** The conversation with a user; begun, if there is none. */
  talk(user) {
    let talk = this.#talks.get(user)
    if (!talk) {
      const source = { older: (id) => this.#older(user, id), newer: (id) => this.#newer(user, id) }
      const timeline = new Timeline(source, this.#outbox.queue({ kind: 'dm', name: user }))
      // `last` is the newest ID that is known, `fresh` are those that are unread.
      talk = { user, last: '0-0', fresh: [], isNew: false, timeline, get unread() { return this.fresh.length } }
      talk.timeline.looksBack = true
      this.#talks.set(user, talk)
    }
    return talk
  }

  /** What is unread of a conversation, as its timeline has it. */
  news({ user, unread, timeline }) {
    return unread > 0 ? { after: this.#read.last(user) ?? '0-0', upTo: timeline.newest } : null
  }

  /** It was read to its end. */
  read(talk) {
    const { newest } = talk.timeline
    if (newest) this.#readTo(talk, newest)
    talk.fresh = []
    this.#onChange(talk)
  }

  #readTo(talk, id) {
    talk.fresh = []
    this.#read.to(talk.user, id)
  }

  /** Another tab has read something. */
  #recount() {
    for (const talk of this.#talks.values()) {
      const fresh = talk.fresh.filter((id) => this.#read.isNew(talk.user, id))
      if (fresh.length === talk.unread) continue
      talk.fresh = fresh
      this.#onChange(talk)
    }
  }

  /** Writes to the other; `patiently(publish)` waits for its turn where messages come too fast. */
  async send(user, text, options, patiently) {
    const fields = { message: text, to: user }
    const sent = await this.#client.sendTo(user, fields, options)
    if (user === this.#me) return sent
    try {
      // Under a key that follows from the first one's, so that a retry makes no second copy.
      return await patiently(() => this.#client.sendTo(this.#me, fields, { key: `${sent.id}-copy` }))
    } catch {
      // It has arrived; only this device knows.
      return sent
    }
  }

  /** Whom an entry of this user's stream is with. */
  #peer({ fields }) {
    const from = typeof fields.user === 'string' ? fields.user : ''
    // Only one's own word counts for whom one wrote to.
    return from === this.#me && typeof fields.to === 'string' ? fields.to : from
  }

  #onEntry(entry) {
    const user = this.#peer(entry)
    if (!user) return
    const talk = this.talk(user)
    talk.last = entry.id
    talk.timeline.append(entry)
    const isOwn = entry.fields.user === this.#me
    // Who has answered, here or on another device, has read what came before.
    if (isOwn) this.#readTo(talk, entry.id)
    const isUnread = !isOwn && this.#read.isNew(user, entry.id)
    if (isUnread && talk.unread < FRESH_MAX) talk.fresh.push(entry.id)
    this.#onChange(talk, isUnread && this.#isNews(user, entry.id) ? entry : null)
  }

  /** Whether it's announced now: every load of the page replays what came, and tells of it once. */
  #isNews(user, id) {
    if (!this.#told.to(user, id)) return false
    return Date.now() - timeOf(id) < FRESH
  }

  /** Entries of one conversation before an ID; conversations that show up on the way are listed from then on. */
  async #older(user, before) {
    const found = []
    let searched = before
    let hasMore = true
    for (let page = 0; page < PAGES && hasMore && found.length === 0; page++) {
      const { entries, next } = await this.#client.inbox.history({ before: searched, limit: LIMIT })
      hasMore = next !== null
      searched = entries[0]?.id ?? searched
      found.unshift(...entries.filter((entry) => this.#peer(entry) === user))
      for (const entry of entries) this.#discover(entry)
    }
    const talk = this.talk(user)
    talk.isNew ||= !hasMore && found.length + talk.timeline.items.length === 0
    return { entries: found, hasMore, searched }
  }

  /** Entries of one conversation after an ID. */
  async #newer(user, after) {
    let from = after
    while (true) {
      const { entries, next } = await this.#client.inbox.history({ after: from, limit: LIMIT })
      const found = entries.filter((entry) => this.#peer(entry) === user)
      if (found.length > 0 || next === null) return { entries: found, hasMore: next !== null }
      from = next
    }
  }

  /** An entry of some conversation has been met, which may not be known yet. */
  #discover(entry) {
    const user = this.#peer(entry)
    if (!user) return
    const talk = this.talk(user)
    if (compareIds(entry.id, talk.last) <= 0) return
    talk.last = entry.id
    talk.timeline.searchFrom(successor(entry.id))
  }
}
