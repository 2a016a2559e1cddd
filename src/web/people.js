// Who is here, and the drawers that the side panels are on small screens.
import { arrange, avatar, badge, byId, h, icon, rankOf } from './dom.js'

/** Users shown; the rest is a number. */
const SHOWN = 300

const shown = ({ user, name }) => name ?? user

export class People {
  #nodes = new Map()
  #me
  #onPick
  #here = 0
  #isOffline = false

  /** `onPick(user, anchor)` opens what can be done about a user. */
  constructor({ me, onPick }) {
    this.#me = me
    this.#onPick = onPick
  }

  /** Shows those in the room; `members` is a map, and `count` may be more than it has. */
  show({ members, count }) {
    const mine = ({ user }) => user === this.#me
    // Who leads comes first, then oneself.
    const users = [...members.values()].sort(
      (a, b) => rankOf(a.role) - rankOf(b.role) || mine(b) - mine(a) || shown(a).localeCompare(shown(b)) || a.user.localeCompare(b.user),
    )
    arrange(byId('people'), users.slice(0, SHOWN).map((member) => this.#node(member)))
    for (const user of this.#nodes.keys()) if (!members.has(user)) this.#nodes.delete(user)
    const rest = count - Math.min(users.length, SHOWN)
    byId('people-none').hidden = rest <= 0 && count > 0
    byId('people-none').textContent = count === 0 ? 'Nobody here has a name.' : `${users.length ? 'and ' : ''}${rest} ${users.length ? 'more' : 'people'}`
    this.#count(count)
  }

  /** Whether there is no connection: then it's only known who was here. */
  offline(isOffline) {
    if (this.#isOffline === isOffline) return
    this.#isOffline = isOffline
    this.#title()
  }

  /** A conversation has no list of people. */
  hide() {
    arrange(byId('people'), [])
    byId('people-open').hidden = true
  }

  #count(count) {
    const button = byId('people-open')
    button.hidden = false
    button.replaceChildren(icon('people'), h('span', {}, String(count)))
    this.#here = count
    this.#title()
  }

  #title() {
    byId('people-open').setAttribute('aria-label', this.#isOffline ? `${this.#here} were here` : `${this.#here} here`)
    byId('people-title').textContent = `Who ${this.#isOffline ? 'was' : 'is'} here · ${this.#here}`
  }

  #node({ user, name, role }) {
    const known = this.#nodes.get(user)
    if (known?.shownName === name && known.shownRole === role) return known
    const isMe = user === this.#me
    const button = h(
      'button',
      { type: 'button', class: 'person', 'aria-haspopup': isMe ? null : 'menu', disabled: isMe, onclick: () => this.#onPick(user, button) },
      avatar(user, 'here'),
      h('span', { class: 'person-name', dir: 'auto', title: shown({ user, name }) }, name ?? user, name && name !== user ? h('small', {}, user) : null),
      badge(role),
      isMe ? h('span', { class: 'you' }, 'you') : null,
    )
    const node = known ?? h('li')
    const hadFocus = node.contains(document.activeElement)
    node.replaceChildren(button)
    if (hadFocus) button.focus()
    node.shownName = name
    node.shownRole = role
    this.#nodes.set(user, node)
    return node
  }
}

const wide = matchMedia('(min-width: 1000px)')
const DRAWERS = { rooms: '(min-width: 760px)', people: '(min-width: 1000px)' }

/** The two panels: beside the room where there is space, else drawers over it. */
export function setUpDrawers() {
  const app = byId('app')
  const set = (name, isOpen) => {
    app.classList.toggle(`${name}-open`, isOpen)
    byId(`${name}-open`).setAttribute('aria-expanded', String(isOpen))
    sync()
  }
  const isDrawer = (name) => !matchMedia(DRAWERS[name]).matches
  const sync = () => {
    let covered = false
    for (const name of Object.keys(DRAWERS)) {
      const isOpen = app.classList.contains(`${name}-open`)
      const isAway = isDrawer(name) ? !isOpen : name === 'people' && app.classList.contains('people-shut')
      byId(`${name}-panel`).inert = isAway
      covered ||= isDrawer(name) && isOpen
    }
    byId('scrim').hidden = !covered
    document.querySelector('main').inert = covered
    if (!isDrawer('people')) byId('people-open').setAttribute('aria-expanded', String(!app.classList.contains('people-shut')))
  }
  const open = (name) => {
    set(name, true)
    byId(`${name}-close`).focus()
  }
  const shut = (name) => {
    if (!app.classList.contains(`${name}-open`)) return
    set(name, false)
    byId(`${name}-open`).focus()
  }
  byId('rooms-open').append(icon('menu'))
  byId('rooms-open').addEventListener('click', () => open('rooms'))
  byId('rooms-close').append(icon('close'))
  byId('rooms-close').addEventListener('click', () => shut('rooms'))
  byId('people-close').append(icon('close'))
  byId('people-open').addEventListener('click', () => {
    if (isDrawer('people')) return open('people')
    app.classList.toggle('people-shut')
    sync()
  })
  byId('people-close').addEventListener('click', () => {
    if (isDrawer('people')) return shut('people')
    app.classList.add('people-shut')
    sync()
    byId('people-open').focus()
  })
  byId('scrim').addEventListener('click', () => closeDrawers())
  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') closeDrawers()
  })
  for (const query of Object.values(DRAWERS)) matchMedia(query).addEventListener('change', sync)
  wide.addEventListener('change', sync)
  sync()
  const closeDrawers = () => {
    for (const name of Object.keys(DRAWERS)) if (isDrawer(name)) shut(name)
  }
  return { closeDrawers }
}
