// The list of messages: groups, days, gaps, and where one has scrolled to.
import { compareIds } from './tailcast.js'
import { arrange, avatar, badge, byId, h, icon } from './dom.js'
import { say } from './words.js'
import { clockTime, dayKey, dayName, fullTime, linked, relativeTime } from './text.js'

/** Messages of one user this close together are one group. */
const GROUP_MS = 2 * 60_000

/** So far from the end still counts as being there, in pixels. */
const NEAR = 80

/** So far from where the stretch that is held ends, more of it is asked for, in pixels. */
const AHEAD = 400

/** Messages in sight that are held on to while the list changes around them. */
const ANCHORS = 5

/** Before older messages are asked for again, if that failed, in ms. */
const PAUSE = 2_500

const GAP_TEXT = {
  trimmed: 'Some messages are missing here. They were removed before you came back.',
  deleted: 'The room was cleared and starts again here.',
  rewound: 'The room lost its newest messages and continues here.',
}

/** Why a message waits for its turn. */
const WAIT_TEXT = {
  too_fast: 'You are sending too fast:',
  room_too_fast: 'This room is busy:',
  slow_mode: 'Slow mode:',
}

export class MessageList {
  #box = byId('messages')
  #list = byId('list')
  #below = byId('below')
  #timeline = null
  #me
  #onMenu
  #nodes = new WeakMap()
  #days = new Map()
  #roles = new Map()
  #names = new Map()
  #sticks = true
  #beginning
  #unseen = 0
  #drawing = false
  #pausedUntil = 0
  #begin = h('li', { class: 'begin' })
  #news = h('li', { class: 'news' }, h('span', {}, 'New messages'))
  #loadingNewer = h('li', { class: 'loading', 'aria-label': 'Loading newer messages' }, h('span', { class: 'spinner' }))
  #loading = h('li', { class: 'loading', 'aria-label': 'Loading older messages' }, h('span', { class: 'spinner' }))

  /** `name` is how oneself is shown; `onMenu(item, anchor)` opens what can be done with a message. */
  constructor({ me, name, onMenu }) {
    this.#me = me
    if (me && name) this.#names.set(me, name)
    this.#onMenu = onMenu
    this.#box.addEventListener('scroll', () => this.#onScroll(), { passive: true })
    this.#box.addEventListener('keydown', (event) => this.#onKey(event))
    this.#below.addEventListener('click', () => this.toEnd())
    new ResizeObserver(() => this.#sticks && this.#scrollToEnd()).observe(this.#box)
    setInterval(() => this.#tick(), 30_000)
  }

  /** Shows a timeline; `title` is what its beginning says, and `beginning(isEmpty)` the text below that. */
  show(timeline, title, beginning = (isEmpty) => (isEmpty ? 'No messages yet.' : 'This is the beginning.')) {
    this.#beginning = beginning
    this.#timeline?.onChange(() => {})
    this.#timeline = timeline
    this.#days.clear()
    this.#follow(true)
    // What came while one was elsewhere is not read through from where one left.
    timeline.toEnd()
    this.#seen()
    this.#pausedUntil = 0
    this.#begin.replaceChildren(h('strong', {}, title), h('span'))
    timeline.onChange((added) => {
      if (added) this.#onAdded(added)
      this.#drawSoon()
    })
    this.#draw()
  }

  /** Shows the authors by their names, and what they are in the room, of those who are known to be here. */
  showPeople(members) {
    const leading = [...members.values()].filter(({ role }) => role)
    const named = [...members.values()].filter(({ user, name }) => (this.#names.get(user) ?? null) !== name)
    const isSame = leading.length === this.#roles.size && leading.every(({ user, role }) => this.#roles.get(user) === role)
    if (isSame && named.length === 0) return
    this.#roles = new Map(leading.map(({ user, role }) => [user, role]))
    // Who has left is still called so.
    for (const { user, name } of named) this.#names.set(user, name)
    this.#drawSoon()
  }

  #nameOf(user) {
    return this.#names.get(user) ?? user
  }

  toEnd() {
    this.#follow(true)
    this.#timeline.toEnd()
    this.#seen()
    this.#draw()
    byId('composer-text').focus()
  }

  /** Goes to a message, wherever it is in the stream; false if it is not there any more. */
  async goTo(id) {
    const timeline = this.#timeline
    const wasAtEnd = this.#sticks
    this.#follow(false)
    const isThere = await timeline.goTo(id)
    if (timeline !== this.#timeline) return true
    const item = isThere && timeline.items.find((other) => other.id === id)
    if (!item) {
      this.#follow(wasAtEnd && !timeline.hasNewer)
      return false
    }
    this.#draw()
    const node = this.#nodes.get(item)
    node.scrollIntoView({ block: 'center' })
    node.focus({ preventScroll: true })
    node.classList.remove('found')
    requestAnimationFrame(() => node.classList.add('found'))
    return true
  }

  /** Whether the view goes along with the newest messages. */
  #follow(sticks) {
    this.#sticks = sticks
    if (this.#timeline) this.#timeline.follows = sticks
  }

  #onAdded(item) {
    const isOwn = item.user === this.#me && this.#me !== null
    if (item.state === 'pending') return this.#follow(true)
    if (isOwn || item.kind !== 'message') return
    // What is replayed on coming in was said long ago.
    if (Date.now() - item.time > 20_000) return
    const said = byId('said')
    said.append(h('p', { dir: 'auto', data: { id: item.id } }, `${this.#nameOf(item.user) ?? 'Someone'}: ${item.text}`))
    while (said.childElementCount > 5) said.firstChild.remove()
    if (!this.#sticks) this.#unseen += 1
  }

  #drawSoon() {
    if (this.#drawing) return
    this.#drawing = true
    const draw = () => {
      if (!this.#drawing) return
      this.#drawing = false
      this.#draw()
    }
    // Hidden pages get no frames, and must not pile up what they'd draw.
    if (document.hidden) setTimeout(draw, 100)
    else requestAnimationFrame(draw)
  }

  /**
   * Brings the list up to date, at most once a frame: first what is read of the layout, which is as the last frame left
   * it, then what is written, and at the end the one layout that the place to scroll to needs.
   */
  #draw() {
    const timeline = this.#timeline
    const anchors = this.#sticks ? [] : this.#anchors()
    const children = []
    if (timeline.isLoading) children.push(this.#loading)
    else if (!timeline.hasOlder) {
      const isEmpty = timeline.items.length + timeline.pending.length === 0
      const text = this.#beginning(isEmpty)
      if (this.#begin.lastChild.textContent !== text) this.#begin.lastChild.textContent = text
      children.push(this.#begin)
    }
    let before = null
    const firstNew = this.#firstNew()
    const add = (item) => {
      item.day ??= item.kind === 'gap' ? before?.day : dayKey(item.time)
      const isNewDay = item.kind !== 'gap' && item.day !== before?.day
      if (isNewDay) children.push(this.#day(item.day, item.time))
      if (item === firstNew) children.push(this.#news)
      const follows =
        !isNewDay && item !== firstNew && before?.kind === 'message' && item.kind === 'message' && before.user === item.user && item.time - before.time < GROUP_MS
      const node = this.#node(item)
      if (node.follows !== follows) {
        node.classList.toggle('follows', follows)
        node.follows = follows
      }
      children.push(node)
      before = item
    }
    timeline.items.forEach(add)
    // What was written here is below the newest, which may not be what is shown.
    if (!timeline.hasNewer) timeline.pending.forEach(add)
    if (timeline.isLoadingNewer) children.push(this.#loadingNewer)
    const held = document.activeElement?.closest('#list > .message') ?? null
    const place = held ? [...this.#list.children].indexOf(held) : -1
    arrange(this.#list, children)
    if (held && !held.isConnected) this.#holdAt(place)
    // Nor is what was deleted there for who listens.
    for (const line of [...byId('said').children]) if (!timeline.has(line.dataset.id)) line.remove()
    this.#showBelow()
    if (this.#sticks) this.#scrollToEnd()
    else this.#keepPlace(anchors)
    this.#fill()
  }

  /** The first message of another's that was new on coming in; null if there is none, or if that is further back. */
  #firstNew() {
    const { news, items, oldest, hasOlder } = this.#timeline
    if (!news?.upTo || (hasOlder && compareIds(oldest, news.after) > 0)) return null
    const isNew = ({ id, kind, user }) =>
      kind === 'message' && user !== this.#me && compareIds(id, news.after) > 0 && compareIds(id, news.upTo) <= 0
    return items.find(isNew) ?? null
  }

  /** What had the focus is gone: what is in its place now has it. */
  #holdAt(place) {
    const node = this.#list.children[Math.min(place, this.#list.childElementCount - 1)]
    const next = node?.classList.contains('message') ? node : this.#box
    next.focus({ preventScroll: true })
  }

  /** The first messages in sight, and where they are: one of them will still be there after a change. */
  #anchors() {
    const top = this.#box.getBoundingClientRect().top
    const nodes = this.#list.children
    // They are in the order of their places.
    let from = 0
    let to = nodes.length
    while (from < to) {
      const middle = (from + to) >> 1
      if (nodes[middle].getBoundingClientRect().bottom > top) to = middle
      else from = middle + 1
    }
    const anchors = []
    for (; from < nodes.length && anchors.length < ANCHORS; from++) {
      if (nodes[from].dataset.id) anchors.push({ node: nodes[from], top: nodes[from].getBoundingClientRect().top })
    }
    return anchors
  }

  #keepPlace(anchors) {
    const anchor = anchors.find(({ node }) => node.isConnected)
    const moved = anchor ? anchor.node.getBoundingClientRect().top - anchor.top : 0
    if (Math.abs(moved) >= 0.5) this.#box.scrollTop += moved
  }

  #onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#box
    this.#follow(!this.#timeline.hasNewer && scrollHeight - scrollTop - clientHeight < NEAR)
    if (this.#sticks) this.#seen()
    this.#showBelow()
    this.#fill()
  }

  /** Loads what is beyond the stretch as soon as its place is near. */
  #fill() {
    const timeline = this.#timeline
    if (Date.now() < this.#pausedUntil) return
    const { scrollTop, scrollHeight, clientHeight } = this.#box
    let loading
    if (timeline.hasOlder && !timeline.isLoading && scrollTop < AHEAD) loading = timeline.older()
    else if (timeline.hasNewer && !timeline.isLoadingNewer && scrollHeight - scrollTop - clientHeight < AHEAD) loading = timeline.newer()
    loading?.catch(() => {
      // No connection, most likely. Not again at once, but without being asked.
      this.#pausedUntil = Date.now() + PAUSE
      setTimeout(() => this.#fill(), PAUSE + 10)
    })
  }

  #scrollToEnd() {
    this.#box.scrollTop = this.#box.scrollHeight
  }

  #seen() {
    this.#unseen = 0
    this.#showBelow()
  }

  #showBelow() {
    this.#below.hidden = this.#sticks
    if (this.#sticks) return
    const text = this.#unseen === 0 ? 'Newest messages' : this.#unseen === 1 ? '1 new message below' : `${this.#unseen} new messages below`
    if (this.#below.textContent !== text) this.#below.replaceChildren(icon('down'), text)
  }

  #day(key, time) {
    let node = this.#days.get(key)
    if (!node) {
      node = h('li', { class: 'day' }, h('span', {}, dayName(time)))
      this.#days.set(key, node)
    }
    return node
  }

  #node(item) {
    const node = this.#made(item)
    const role = this.#roles.get(item.user) ?? null
    const name = this.#nameOf(item.user)
    if (item.kind === 'message' && node.shownName !== name) {
      node.querySelector('.name').textContent = name ?? 'anonymous'
      // Anybody may be shown as anything: the user's own name stays beside it.
      node.querySelector('.handle').textContent = name === item.user ? '' : item.user
      node.shownName = name
    }
    if (item.kind === 'message' && node.shownRole !== role) {
      node.querySelector('.badge')?.remove()
      const mark = badge(role)
      if (mark) node.querySelector('.handle').after(mark)
      node.shownRole = role
    }
    return node
  }

  /** Its element; made anew if something of it is new. */
  #made(item) {
    const node = this.#nodes.get(item)
    if (node && node.shownState === item.state && node.shownId === item.id) return node
    const made = this.#make(item)
    made.shownState = item.state
    made.shownId = item.id
    made.shownRole = null
    made.shownName = undefined
    const hadFocus = node?.contains(document.activeElement)
    if (node?.isConnected) node.replaceWith(made)
    if (hadFocus) made.focus({ preventScroll: true })
    this.#nodes.set(item, made)
    return made
  }

  #make(item) {
    if (item.kind === 'gap') {
      return h('li', { class: 'gap', role: 'note' }, h('span', {}, GAP_TEXT[item.reason] ?? GAP_TEXT.trimmed))
    }
    const data = item.id ? { id: item.id } : {}
    if (item.kind === 'notice') return h('li', { class: 'notice', dir: 'auto', data }, item.text)
    const isOwn = item.user !== null && item.user === this.#me
    const time = h('time', { dateTime: new Date(item.time).toISOString(), title: fullTime(item.time), data: { ms: String(item.time) } }, relativeTime(item.time))
    const more = h(
      'button',
      { type: 'button', class: 'icon-button more', tabIndex: -1, 'aria-label': 'Message actions', 'aria-haspopup': 'menu', onclick: () => this.#onMenu(item, more) },
      icon('more'),
    )
    return h(
      'li',
      { class: `message ${isOwn ? 'own' : ''} ${item.state === 'waiting' ? 'pending' : item.state}`, tabIndex: -1, data },
      avatar(item.user ?? '?'),
      h('span', { class: 'side-time', 'aria-hidden': 'true' }, clockTime(item.time)),
      h(
        'div',
        { class: 'body' },
        h('p', { class: 'head' }, h('strong', { class: 'name', title: item.user, dir: 'auto' }), h('span', { class: 'handle', dir: 'auto' }), isOwn && h('span', { class: 'you' }, 'you'), time),
        h('p', { class: 'text', dir: 'auto' }, ...linked(item.text)),
        this.#fate(item),
      ),
      item.state === 'stored' && item.id ? more : null,
    )
  }

  /** What became of a message that was written here. */
  #fate(item) {
    if (item.state === 'pending') return h('p', { class: 'fate' }, h('span', { class: 'spinner' }), 'sending…')
    if (item.state === 'waiting') return this.#waits(item)
    if (item.state !== 'failed') return null
    const isUnsure = item.error.code === 'unsure'
    const again = isUnsure ? 'Send again' : 'Try again'
    const retry = h('button', { type: 'button', class: 'link', onclick: () => this.#timeline.retry(item) }, again)
    const discard = h('button', { type: 'button', class: 'link', onclick: () => this.#timeline.discard(item) }, 'Discard')
    const count = () => {
      const left = Math.ceil((item.retryAt - Date.now()) / 1000)
      retry.disabled = left > 0
      retry.textContent = left > 0 ? `${again} in ${left} s` : again
      if (left > 0) setTimeout(count, 250)
    }
    count()
    return h('p', { class: 'fate', role: 'alert' }, isUnsure ? 'Couldn’t confirm that this was sent; it may be there already. ' : `Not sent. ${say(item.error, 'send')} `, retry, discard)
  }

  /** It goes by itself, as soon as it may. */
  #waits(item) {
    const text = h('span')
    const count = () => {
      const left = Math.ceil((item.sendAt - Date.now()) / 1000)
      text.textContent = left > 1 ? `${WAIT_TEXT[item.error.code]} sent in ${left} s. ` : 'sending…'
      if (item.state === 'waiting' || item.state === 'pending') setTimeout(count, 250)
    }
    count()
    const discard = h('button', { type: 'button', class: 'link', onclick: () => this.#timeline.discard(item) }, 'Discard')
    return h('p', { class: 'fate' }, h('span', { class: 'spinner' }), text, discard)
  }

  /** Up and down through the messages, Enter for what can be done with one. */
  #onKey(event) {
    const messages = [...this.#list.querySelectorAll('.message')]
    const at = messages.indexOf(document.activeElement)
    if (at >= 0 && event.key === 'End' && this.#timeline.hasNewer) {
      event.preventDefault()
      this.toEnd()
      return [...this.#list.querySelectorAll('.message')].at(-1)?.focus()
    }
    const to = { ArrowUp: at < 0 ? messages.length - 1 : at - 1, ArrowDown: at + 1, Home: 0, End: messages.length - 1 }[event.key]
    if (to !== undefined && (at >= 0 || event.key === 'ArrowUp')) {
      event.preventDefault()
      if (to >= messages.length) return byId('composer-text').focus()
      messages[Math.max(0, to)]?.focus()
    } else if (at >= 0 && event.target === messages[at] && (event.key === 'Enter' || event.key === ' ')) {
      event.preventDefault()
      messages[at].querySelector('.more')?.click()
    } else if (event.key === 'Escape') byId('composer-text').focus()
  }

  #tick() {
    for (const time of this.#list.querySelectorAll('time')) {
      const text = relativeTime(Number(time.dataset.ms))
      if (time.textContent !== text) time.textContent = text
    }
  }
}
