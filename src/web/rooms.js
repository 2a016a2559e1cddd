// The list of rooms with who is in them, the list of conversations, and the switcher.
import { compareIds } from './tailcast.js'
import { arrange, avatar, byId, h, icon } from './dom.js'
import { ask } from './dialogs.js'
import { go, here, isHere, linkTo } from './place.js'
import { Seen } from './seen.js'

/** How often the counts are asked for, in ms. */
const EVERY = 4_000

/** How long to wait for the list before going to a room without it, in ms. */
const LIST_WAIT = 3_000

/** Rooms asked for at most, when the server lists them by pages. */
const ROOMS_MAX = 300

/** A list of all rooms has so many of the newest entries of each: what is before them can't be counted. */
const LISTED = 10

/** Unread messages of a conversation that are counted. */
const COUNTED = 99

/** Numbers in names count as numbers: room 2 comes before room 10. */
const naturally = new Intl.Collator(undefined, { numeric: true })

/** What was typed is asked for after so long without another letter, in ms. */
const TYPED = 200

const NOTHING = { count: 0, isLeast: false }

/** The mark of what is new; a mere dot where nobody counts. */
function unreadMark({ count, isLeast }) {
  if (count === 0) return null
  if (count === null) return h('span', { class: 'unread dot' }, h('span', { class: 'sr-only' }, ' something new'))
  return h('span', { class: 'unread' }, `${count}${isLeast ? '+' : ''}`, h('span', { class: 'sr-only' }, ' unread'))
}

export class Rooms {
  #client
  #inbox
  #rooms = new Map()
  #visited = new Set()
  #nodes = new Map()
  #seen
  #me
  #hasHomepage = true
  #onTopic
  #onStorage

  /**
   * `onTopic(room, topic)` is told what a list says of a room, and `onStorage(isThere)` whether the node has its
   * Redis.
   */
  constructor({ client, me, inbox, onTopic, onStorage }) {
    this.#client = client
    this.#me = me
    this.#seen = new Seen(`read-rooms.${me ?? ''}`, () => this.show())
    this.#inbox = inbox
    this.#onTopic = onTopic
    this.#onStorage = onStorage
    byId('room-new').append(icon('plus'))
    byId('room-new').addEventListener('click', () => this.#askRoom())
    byId('direct-new').append(icon('plus'))
    byId('direct-new').addEventListener('click', () => this.#askUser())
    byId('direct-section').hidden = inbox === null
    this.#setUpSwitcher()
    this.#poll()
    document.addEventListener('visibilitychange', () => document.hidden || this.#load())
  }

  /** The topic of a room, if the list has it. */
  topicOf(name) {
    return this.#rooms.get(name)?.topic ?? null
  }

  /** The room that the page is in, and how far it was read. */
  visit(name) {
    this.#visited.add(name)
    this.show()
  }

  /** There can be no such room. */
  forget(name) {
    this.#visited.delete(name)
    this.#rooms.delete(name)
    this.show()
  }

  /** The room with the newest entry; null if no room has any, or the list doesn't come. */
  async latest() {
    await Promise.race([this.#load(), new Promise((resolve) => setTimeout(resolve, LIST_WAIT))])
    const rooms = [...this.#rooms.values()].filter(({ room, last }) => last && !room.startsWith('@'))
    return rooms.reduce((best, room) => (best && compareIds(best.last, room.last) >= 0 ? best : room), null)?.room ?? null
  }

  /** How far it was read: an ID, or null. */
  lastRead(name) {
    return this.#seen.last(name)
  }

  /** It was read so far. */
  readTo(name, id) {
    this.#seen.to(name, id)
  }

  /** Its stream begins anew after this ID. */
  restart(name, id) {
    this.#seen.restart(name, id)
  }

  /** How many are in a room right now, as its own socket has it. */
  count(name, count) {
    const room = this.#rooms.get(name)
    if (room?.count === count) return
    this.#rooms.set(name, { room: name, last: null, topic: null, ...room, count })
    this.show()
  }

  async #poll() {
    if (!document.hidden) await this.#load()
    setTimeout(() => this.#poll(), EVERY)
  }

  async #load() {
    try {
      const rooms = this.#hasHomepage ? await this.#homepage() : await this.#pages()
      if (!rooms) return
      const now = here()?.kind === 'room' ? this.#rooms.get(here().name) : null
      this.#rooms = new Map(rooms.map((room) => [room.room, room]))
      // Its own socket knows better than a list that was asked for a moment ago, and may lack it yet.
      if (now) this.#rooms.set(now.room, { ...now, ...this.#rooms.get(now.room), count: now.count })
      for (const { room, topic } of rooms) if (topic) this.#onTopic(room, topic)
      this.show()
    } catch (error) {
      // Without a connection the page says so elsewhere.
      if (/^redis_/.test(error.code)) this.#onStorage(false)
    }
  }

  async #homepage() {
    try {
      const { rooms, redis, truncated } = await this.#client.get('/homepage_json?summary=1')
      this.#onStorage(redis !== 'away')
      byId('rooms-more').hidden = !truncated
      return rooms
    } catch (error) {
      if (error.status !== 404) throw error
      this.#hasHomepage = false
      return this.#pages()
    }
  }

  async #pages() {
    const rooms = []
    let cursor = null
    do {
      const page = await this.#client.get(`/rooms?limit=100${cursor ? `&cursor=${cursor}` : ''}`)
      rooms.push(...page.rooms)
      cursor = page.next
    } while (cursor && rooms.length < ROOMS_MAX)
    this.#onStorage(true)
    byId('rooms-more').hidden = !cursor
    return rooms
  }

  /** Rooms and conversations as they are now. */
  show() {
    const names = new Set([...this.#rooms.keys(), ...this.#visited])
    const rooms = [...names].filter((name) => !name.startsWith('@')).sort(naturally.compare)
    arrange(byId('rooms'), rooms.map((name) => this.#roomNode(name)))
    const talks = this.#inbox?.talks ?? []
    byId('direct-none').hidden = talks.length > 0
    this.#raise(talks.some(({ unread }) => unread > 0))
    arrange(byId('direct'), talks.map((talk) => this.#talkNode(talk)))
    const hasNews = rooms.some((name) => this.#news(name).count !== 0) || talks.some(({ unread }) => unread > 0)
    byId('rooms-open').classList.toggle('has-news', hasNews)
    byId('rooms-open').setAttribute('aria-label', `Rooms and conversations${hasNews ? ', with something new' : ''}`)
  }

  /** Conversations with something unread are above the rooms, which may fill the panel. */
  #raise(isRaised) {
    const [direct, rooms] = [byId('direct-section'), byId('rooms-section')]
    if (direct.classList.contains('raised') === isRaised) return
    direct.classList.toggle('raised', isRaised)
    // What is moved loses the focus: of the two, the one without it.
    const hasFocus = direct.contains(document.activeElement)
    if (!hasFocus) (isRaised ? rooms.before(direct) : rooms.after(direct))
    else (isRaised ? direct.after(rooms) : direct.before(rooms))
  }

  /**
   * How many messages are new in a room that one has been in; a count of null if the list does not tell. A room
   * one has never been in has nothing new: nothing of it was old.
   */
  #news(name) {
    const { last, recent } = this.#rooms.get(name) ?? {}
    if (!last || isHere({ kind: 'room', name }) || !this.#seen.has(name) || !this.#seen.isNew(name, last)) return NOTHING
    if (!recent) return { count: null, isLeast: true }
    const fresh = recent.filter(({ id }) => this.#seen.isNew(name, id))
    const others = fresh.filter(({ user, event }) => user !== this.#me && event !== 'join' && event !== 'leave')
    return { count: others.length, isLeast: fresh.length >= LISTED }
  }

  #roomNode(name) {
    const { count = 0, topic } = this.#rooms.get(name) ?? {}
    const news = this.#news(name)
    const here = count > 0 ? h('span', { class: 'count', title: `${count} here` }, String(count), h('span', { class: 'sr-only' }, ' here')) : null
    return this.#node({ kind: 'room', name }, {
      sign: h('span', { class: 'hash', 'aria-hidden': 'true' }, '#'),
      detail: topic,
      marks: [here, unreadMark(news)],
      isNew: news.count !== 0,
      state: `${count} ${news.count}${news.isLeast} ${topic}`,
    })
  }

  #talkNode({ user, unread }) {
    return this.#node({ kind: 'dm', name: user }, { sign: avatar(user, 'small'), marks: [unreadMark({ count: Math.min(unread, COUNTED), isLeast: unread > COUNTED })], isNew: unread > 0, state: String(unread) })
  }

  /** Made anew only if something of it is new, so that the focus stays. */
  #node(place, { sign, detail, marks, isNew, state }) {
    const key = `${place.kind} ${place.name}`
    const isCurrent = isHere(place)
    const shown = `${isCurrent} ${isNew} ${state}`
    const known = this.#nodes.get(key)
    if (known?.shown === shown) return known.node
    const link = h(
      'a',
      { href: linkTo(place), class: `place ${isNew ? 'new' : ''}`, 'aria-current': isCurrent ? 'page' : null },
      sign,
      h('span', { class: 'place-name' }, h('span', { dir: 'auto' }, place.name), detail ? h('small', { dir: 'auto' }, detail) : null),
      ...marks.filter(Boolean),
    )
    link.addEventListener('click', (event) => {
      if (event.metaKey || event.ctrlKey || event.shiftKey) return
      event.preventDefault()
      go(place)
    })
    const node = known?.node ?? h('li')
    const hadFocus = node.contains(document.activeElement)
    node.replaceChildren(link)
    if (hadFocus) link.focus()
    this.#nodes.set(key, { node, shown })
    return node
  }

  #askRoom() {
    ask({
      title: 'Open a room',
      hint: 'The room is created if it doesn’t exist yet.',
      fields: [{ name: 'name', label: 'Name', required: true, max: 80 }],
      go: 'Open',
      run: async ({ name }) => {
        if (name.startsWith('@')) return 'Room names don’t start with @.'
        go({ kind: 'room', name })
      },
    })
  }

  #askUser() {
    ask({
      title: 'New direct message',
      fields: [{ name: 'user', label: 'Name', required: true, max: 80 }],
      go: 'Write',
      run: async ({ user }) => go({ kind: 'dm', name: user.replace(/^@/, '') }),
    })
  }

  #setUpSwitcher() {
    const dialog = byId('switcher')
    const input = byId('switcher-text')
    const list = byId('switcher-list')
    const isMac = /Mac|iPhone|iPad/.test(navigator.platform)
    let options = []
    let at = 0
    let typing
    byId('jump-icon').append(icon('search'))
    byId('jump-key').textContent = isMac ? '⌘ K' : 'Ctrl K'
    const open = () => {
      if (dialog.open) return
      input.value = ''
      find()
      dialog.showModal()
      input.focus()
    }
    const choose = (option) => {
      dialog.close()
      go(option)
    }
    const find = () => {
      const text = input.value.trim()
      const wanted = text.replace(/^[#@]/, '').toLowerCase()
      const rooms = [...new Set([...this.#rooms.keys(), ...this.#visited])].sort(naturally.compare).map((name) => ({ kind: 'room', name }))
      const talks = (this.#inbox?.talks ?? []).map(({ user }) => ({ kind: 'dm', name: user }))
      const all = text.startsWith('@') ? talks : text.startsWith('#') ? rooms : [...rooms, ...talks]
      options = all.filter(({ name }) => name.toLowerCase().includes(wanted)).slice(0, 12)
      const typed = text.replace(/^[#@]/, '')
      const isThere = options.some(({ name }) => name === typed)
      if (typed && !isThere) options.push(text.startsWith('@') && this.#inbox ? { kind: 'dm', name: typed, isNew: true } : { kind: 'room', name: typed, isNew: true })
      at = 0
      draw()
      clearTimeout(typing)
      const last = options.at(-1)
      if (last?.isNew && last.kind === 'room') typing = setTimeout(() => askIfThere(last), TYPED)
    }
    // A list has the rooms that were active last: of others only the node knows whether they are there.
    const askIfThere = async (option) => {
      const there = await this.#client.get(`/rooms/${encodeURIComponent(option.name)}?limit=1`).catch(() => null)
      if (!there?.entries?.length) return
      option.isNew = false
      if (options.includes(option)) draw()
    }
    const draw = () => {
      list.replaceChildren(
        ...options.map((option, index) =>
          h(
            'li',
            { id: `option-${index}`, role: 'option', 'aria-selected': String(index === at), onclick: () => choose(option) },
            option.kind === 'dm' ? avatar(option.name, 'small') : h('span', { class: 'hash' }, '#'),
            h('span', { dir: 'auto' }, option.name),
            option.isNew ? h('small', {}, option.kind === 'dm' ? 'new conversation' : 'new room') : null,
          ),
        ),
      )
      input.setAttribute('aria-activedescendant', options.length ? `option-${at}` : '')
      list.children[at]?.scrollIntoView({ block: 'nearest' })
    }
    input.addEventListener('input', find)
    input.addEventListener('keydown', (event) => {
      const step = { ArrowDown: 1, ArrowUp: -1 }[event.key]
      if (step && options.length) {
        event.preventDefault()
        at = (at + step + options.length) % options.length
        draw()
      } else if (event.key === 'Enter') {
        event.preventDefault()
        if (options[at]) choose(options[at])
      }
    })
    // A click beside it.
    dialog.addEventListener('click', (event) => event.target === dialog && dialog.close())
    byId('jump').addEventListener('click', open)
    document.addEventListener('keydown', (event) => {
      if (event.key.toLowerCase() !== 'k' || !(event.ctrlKey || event.metaKey)) return
      event.preventDefault()
      open()
    })
  }
}
