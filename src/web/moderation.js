// What those may do who keep a room in order, and what anybody may do about a message or a user.
import { toast } from './dom.js'
import { ask, menu } from './dialogs.js'
import { say } from './words.js'

const TIMES = [
  ['60', '1 minute'],
  ['300', '5 minutes'],
  ['3600', '1 hour'],
  ['86400', '1 day'],
  ['604800', '1 week'],
  ['', 'until lifted'],
]

const SLOW = [
  ['0', 'off'],
  ['5', '5 seconds'],
  ['10', '10 seconds'],
  ['30', '30 seconds'],
  ['60', '1 minute'],
  ['120', '2 minutes'],
]

export class Moderation {
  #me
  #room
  #rights
  #write

  /** `room()` and `rights()` are those of now; `write(user)` opens a conversation. */
  constructor({ me, room, rights, write }) {
    this.#me = me
    this.#room = room
    this.#rights = rights
    this.#write = write
  }

  /** What can be done about a message. */
  aboutMessage(item, anchor) {
    const rights = this.#rights()
    const isRoom = this.#room() !== null
    const items = [{ label: 'Copy text', run: () => this.#copy(item.text) }]
    if (isRoom && rights.has('announce')) items.push({ label: 'Pin', run: () => this.#do({ act: 'pin', id: item.id }, 'Pinned.') })
    if (isRoom && rights.has('moderate')) {
      items.push({ label: 'Delete', danger: true, run: () => this.#do({ act: 'delete', id: item.id }, 'Deleted.') })
    }
    if (item.user && item.user !== this.#me && isRoom) items.push(null, ...this.#aboutUser(item.user))
    menu(anchor, 'This message', items)
  }

  /** What can be done about a user. */
  aboutUser(user, anchor) {
    menu(anchor, user, this.#aboutUser(user))
  }

  #aboutUser(user) {
    const items = []
    if (this.#me) items.push({ label: `Write to ${user}`, run: () => this.#write(user) })
    if (!this.#rights().has('moderate')) return items
    return [
      ...items,
      null,
      { label: 'Time out…', run: () => this.#askFor('timeout', user, 'Time out', `${user} can’t write for a while.`, '300') },
      { label: 'Mute…', run: () => this.#askFor('mute', user, 'Mute', `${user} can read, but not write.`, '') },
      { label: 'Lift mute', run: () => this.#do({ act: 'unmute', user }, `${user} can write again.`) },
      { label: 'Ban…', danger: true, run: () => this.#askFor('ban', user, 'Ban', `${user} is removed from the room and can’t come back.`, '') },
      { label: 'Lift ban', run: () => this.#do({ act: 'unban', user }, `${user} can come back.`) },
      {
        label: 'Delete all their messages…',
        danger: true,
        run: () => this.#sure(`Delete all messages of ${user}?`, 'They are removed from the room and its history for everyone.', { act: 'delete', user }, 'Deleted.'),
      },
    ]
  }

  /** What can be done about the room. */
  aboutRoom(anchor) {
    const rights = this.#rights()
    const { info } = this.#room()
    const items = []
    items.push({ label: 'Topic…', run: () => this.#askText('topic', 'Topic', info.topic ?? '', 'Shown under the name of the room.') })
    if (rights.has('moderate')) {
      items.push(
        { label: 'Slow mode…', run: () => this.#askSlow(info.slow) },
        info.closed
          ? { label: 'Open the room', run: () => this.#do({ act: 'open' }, 'The room is open.') }
          : { label: 'Close the room', run: () => this.#do({ act: 'close' }, 'Only moderators can write now.') },
        { label: 'Lift a mute or ban…', run: () => this.#askLift() },
      )
    }
    if (rights.has('announce')) {
      items.push(null)
      items.push({ label: 'Announce…', run: () => this.#askText('announce', 'Announce', '', 'Shown to everyone, above the messages.') })
      if (info.announcement) items.push({ label: 'Remove the announcement', run: () => this.#do({ act: 'unannounce' }) })
      items.push({ label: 'Pin a text…', run: () => this.#askText('pin', 'Pin', '', 'Shown to everyone, above the messages.') })
      if (info.pin) items.push({ label: 'Unpin', run: () => this.#do({ act: 'unpin' }) })
    }
    menu(anchor, 'Moderate this room', items)
  }

  #askFor(act, user, title, hint, lasts) {
    ask({
      title: `${title}: ${user}`,
      hint,
      fields: [
        { name: 'seconds', label: 'For', options: act === 'timeout' ? TIMES.slice(0, -1) : TIMES, value: lasts },
        { name: 'reason', label: 'Reason (shown to them)', placeholder: 'optional' },
      ],
      go: title,
      danger: act === 'ban',
      run: ({ seconds, reason }) =>
        this.#try({ act, user, ...(seconds ? { seconds: Number(seconds) } : {}), ...(reason ? { reason } : {}) }),
    })
  }

  #askText(act, title, value, hint) {
    const isTopic = act === 'topic'
    ask({
      title,
      hint,
      fields: [{ name: 'message', label: 'Text', type: isTopic ? 'text' : 'long', value, max: isTopic ? 200 : 2000, required: !isTopic }],
      go: title === 'Topic' ? 'Save' : title,
      run: ({ message }) => this.#try({ act, message }),
    })
  }

  #askSlow(now) {
    ask({
      title: 'Slow mode',
      hint: 'Each user can send one message in this time. Hosts and moderators are exempt.',
      fields: [{ name: 'seconds', label: 'One message every', options: SLOW, value: String(now) }],
      go: 'Save',
      run: ({ seconds }) => this.#try({ act: 'slow', seconds: Number(seconds) }),
    })
  }

  #askLift() {
    ask({
      title: 'Lift a mute or ban',
      fields: [
        { name: 'act', label: 'Lift', options: [['unban', 'Ban'], ['unmute', 'Mute or time-out']] },
        { name: 'user', label: 'User', required: true },
      ],
      go: 'Lift',
      run: ({ act, user }) => this.#try({ act, user }),
    })
  }

  #sure(title, hint, act, done) {
    ask({ title, hint, go: 'Delete', danger: true, run: async () => (await this.#try(act)) ?? void toast(done) })
  }

  async #do(act, done) {
    const wrong = await this.#try(act)
    if (wrong) toast(wrong, 'bad')
    else if (done) toast(done)
  }

  async #try(act) {
    try {
      await this.#room().moderate(act)
      return null
    } catch (error) {
      return say(error)
    }
  }

  async #copy(text) {
    try {
      await navigator.clipboard.writeText(text)
      toast('Copied.')
    } catch {
      toast('The browser didn’t allow copying.', 'bad')
    }
  }
}
