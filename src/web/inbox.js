// Direct messages. Everything sent to a user is in one stream of theirs; here it is taken apart by whom
// it is with. What one writes oneself goes to the other, and a copy into the own stream, so that one's
// other devices have it, too, and it is there tomorrow.
import { compareIds, timeOf } from './tailcast.js'
import { Seen } from './seen.js'
import { Timeline } from './timeline.js'

/** Pages of the stream to look through for one conversation, each time its older messages are asked for. */
const PAGES = 5

/** What came longer ago is counted, but no longer announced, in ms: a device new to all of it would announce it all. */
const FRESH = 20_000

export class Inbox {
  #client
  #me
  #talks = new Map()
  #read
  #told
  #oldest = null
  #hasOlder = true
  #onChange

  /** `onChange(talk, entry)` is called when a conversation has changed, with the entry that is news, if one is. */
  constructor(client, me, onChange) {
    this.#client = client
    this.#me = me
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
    const last = (talk) => talk.timeline.newest ?? '0-0'
    return [...this.#talks.values()].sort((a, b) => compareIds(last(b), last(a)))
  }

  /** The conversation with a user; begun, if there is none. */
  talk(user) {
    let talk = this.#talks.get(user)
    if (!talk) {
      talk = { user, unread: 0, isNew: false, timeline: new Timeline(this.#me, () => this.#older(user)) }
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
    talk.unread = 0
    this.#onChange(talk)
  }

  #readTo(talk, id) {
    talk.unread = 0
    this.#read.to(talk.user, id)
  }

  /** Another tab has read something. */
  #recount() {
    for (const talk of this.#talks.values()) {
      const isUnread = ({ id, user }) => id && user !== this.#me && this.#read.isNew(talk.user, id)
      const unread = talk.timeline.items.filter(isUnread).length
      if (unread >= talk.unread) continue
      talk.unread = unread
      this.#onChange(talk)
    }
  }

  /** Writes to the other; `patiently(publish)` waits for its turn where messages come too fast. */
  async send(user, text, key, patiently) {
    const fields = { message: text, to: user }
    const sent = await this.#client.sendTo(user, fields, { key })
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
    this.#oldest ??= entry.id
    const user = this.#peer(entry)
    if (!user) return
    const talk = this.talk(user)
    talk.timeline.append(entry)
    const isOwn = entry.fields.user === this.#me
    // Who has answered, here or on another device, has read what came before.
    if (isOwn) this.#readTo(talk, entry.id)
    const isUnread = !isOwn && this.#read.isNew(user, entry.id)
    if (isUnread) talk.unread += 1
    this.#onChange(talk, isUnread && this.#isNews(user, entry.id) ? entry : null)
  }

  /** Whether it's announced now: every load of the page replays what came, and tells of it once. */
  #isNews(user, id) {
    if (!this.#told.to(user, id)) return false
    return Date.now() - timeOf(id) < FRESH
  }

  /** Older entries of one conversation; those of others on the way are kept for them. */
  async #older(user) {
    const found = []
    for (let page = 0; page < PAGES && this.#hasOlder && found.length === 0; page++) {
      const { entries, next } = await this.#client.inbox.history({ before: this.#oldest ?? undefined, limit: 200 })
      this.#hasOlder = next !== null
      this.#oldest = entries[0]?.id ?? this.#oldest
      const mine = entries.filter((entry) => this.#peer(entry) === user)
      found.unshift(...mine)
      for (const entry of entries) {
        const other = this.#peer(entry)
        if (other && other !== user) this.talk(other).timeline.prepend(entry)
      }
    }
    const talk = this.talk(user)
    talk.isNew ||= !this.#hasOlder && found.length + talk.timeline.items.length === 0
    return { entries: found, hasOlder: this.#hasOlder }
  }
}
