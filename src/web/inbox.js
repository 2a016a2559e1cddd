// Direct messages. Everything sent to a user is in one stream of theirs; here it is taken apart by whom
// it is with. What one writes oneself goes to the other, and a copy into the own stream, so that one's
// other devices have it, too, and it is there tomorrow.
import { compareIds } from './tailcast.js'
import { kept } from './dom.js'
import { Timeline } from './timeline.js'

/** Pages of the stream to look through for one conversation, each time its older messages are asked for. */
const PAGES = 5

export class Inbox {
  #client
  #me
  #talks = new Map()
  #read
  #oldest = null
  #hasOlder = true
  #onChange

  /** `onChange(talk)` is called when a conversation has something new. */
  constructor(client, me, onChange) {
    this.#client = client
    this.#me = me
    this.#onChange = onChange
    this.#read = kept.read(`read.${me}`) ?? {}
    client.inbox.on('entry', (entry) => this.#onEntry(entry))
    client.inbox.on('gap', (gap) => {
      for (const talk of this.#talks.values()) talk.timeline.gap(gap)
    })
    client.inbox.on('deleted', ({ id }) => {
      for (const talk of this.#talks.values()) talk.timeline.remove([id])
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
      talk = { user, unread: 0, timeline: new Timeline(this.#me, () => this.#older(user)) }
      talk.timeline.looksBack = true
      this.#talks.set(user, talk)
    }
    return talk
  }

  /** It was read to its end. */
  read(talk) {
    const { newest } = talk.timeline
    talk.unread = 0
    if (newest && this.#read[talk.user] !== newest) {
      this.#read[talk.user] = newest
      kept.write(`read.${this.#me}`, this.#read)
    }
    this.#onChange(talk)
  }

  /** Writes to the other. */
  async send(user, text, key) {
    const fields = { message: text, to: user }
    const sent = await this.#client.sendTo(user, fields, { key })
    if (user === this.#me) return sent
    try {
      // Under a key that follows from the first one's, so that a retry makes no second copy.
      return await this.#client.sendTo(this.#me, fields, { key: `${sent.id}-copy` })
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
    const seen = this.#read[user]
    if (!isOwn && (!seen || compareIds(entry.id, seen) > 0)) talk.unread += 1
    this.#onChange(talk, isOwn ? null : entry)
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
    return { entries: found, hasOlder: this.#hasOlder }
  }
}
