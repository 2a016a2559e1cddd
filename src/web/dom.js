// Elements. Whatever strangers wrote becomes text nodes; nothing here takes HTML.

const SVG = 'http://www.w3.org/2000/svg'

/** An element by its ID; the page has it. */
export const byId = (id) => document.getElementById(id)

/** Makes an element: properties by name, `class`, `data`, `aria-…` and other attributes, `on…` listeners. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag)
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue
    if (name === 'class') element.className = value
    else if (name === 'data') Object.assign(element.dataset, value)
    else if (name.startsWith('on')) element.addEventListener(name.slice(2), value)
    else if (name in element && !name.includes('-') && name !== 'role') element[name] = value
    else element.setAttribute(name, value === true ? '' : value)
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

/** Lines of the icons, in a box of 24. */
const ICONS = {
  menu: 'M4 7h16M4 12h16M4 17h16',
  close: 'M6 6l12 12M18 6L6 18',
  plus: 'M12 5v14M5 12h14',
  search: 'M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.5 15.5L20 20',
  people: 'M9 11a3.5 3.5 0 1 0 0-7 3.5 3.5 0 0 0 0 7zM2.5 20c.6-3.6 3.2-5.5 6.5-5.5s5.9 1.9 6.5 5.5M16 4.5a3.2 3.2 0 0 1 0 6M18 14.8c2 .7 3.2 2.5 3.5 5.2',
  send: 'M12 19V5M5.5 11.5L12 5l6.5 6.5',
  more: 'M5 12h.01M12 12h.01M19 12h.01',
  shield: 'M12 3l7.5 3v5.5c0 4.5-3 7.8-7.5 9.5-4.5-1.7-7.5-5-7.5-9.5V6z',
  pin: 'M9 4h6l-1 6 3.5 3.5h-11L10 10zM12 13.5V21',
  megaphone: 'M4 10v4h3l8 4V6l-8 4zM18.5 9.5a4 4 0 0 1 0 5',
  sun: 'M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M5.3 18.7l1.4-1.4M17.3 6.7l1.4-1.4',
  moon: 'M20 14.5A8.5 8.5 0 0 1 9.5 4a8.5 8.5 0 1 0 10.5 10.5z',
  half: 'M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16',
  leave: 'M14 4H6v16h8M10 12h10.5M17 8.5l3.5 3.5-3.5 3.5',
  down: 'M12 5v14M5.5 12.5L12 19l6.5-6.5',
  lock: 'M6 11h12v9H6zM8.5 11V8a3.5 3.5 0 0 1 7 0v3',
  clock: 'M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17zM12 7.5V12l3 2',
  heart: 'M12 20s-7.5-4.6-7.5-10.2A4.3 4.3 0 0 1 12 7.3a4.3 4.3 0 0 1 7.5 2.5C19.5 15.4 12 20 12 20z',
  like: 'M7 11v9H4v-9zM7 11l4-7.5c1.6 0 2.4 1 2.2 2.5L12.5 10H18c1.4 0 2.2 1.2 1.8 2.5l-1.9 6c-.3.9-1 1.5-2 1.5H7',
  party: 'M4 20l5-13 8 8zM14 6.5c0-1.5 1-2.5 2.5-2.5M17.5 10c1-1 2.5-1 3.5 0M19 4.5h.01M20.5 14h.01M11 3.5h.01',
  laugh: 'M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17zM7.5 13.5a4.6 4.6 0 0 0 9 0zM9 9h.01M15 9h.01',
  wow: 'M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17zM12 17a2 2.5 0 1 0 0-5 2 2.5 0 0 0 0 5zM9 9h.01M15 9h.01',
}

/** One of our icons; for the eye alone. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg')
  svg.setAttribute('viewBox', '0 0 24 24')
  svg.setAttribute('class', `icon icon-${name}`)
  svg.setAttribute('aria-hidden', 'true')
  const path = document.createElementNS(SVG, 'path')
  path.setAttribute('d', ICONS[name])
  svg.append(path)
  return svg
}

export const hasIcon = (name) => Object.hasOwn(ICONS, name)

/** A small round sign of a user. */
export function avatar(user, extra = '') {
  const element = h('span', { class: `avatar ${extra}`, 'aria-hidden': 'true' })
  paintAvatar(element, user)
  return element
}

export function paintAvatar(element, user) {
  const words = (user || '?').split(/[\s._-]+/).filter(Boolean)
  const letters = words.length > 1 ? [...words[0]][0] + [...words[1]][0] : [...(words[0] ?? '?')].slice(0, 2).join('')
  element.textContent = letters.toUpperCase()
  element.dataset.hue = hueOf(user || '?')
}

/** Those who lead a room, from the one who counts most. */
const LEADING = ['host', 'cohost', 'moderator']

/** The place of a role in a list of people; whoever has none to show comes last. */
export const rankOf = (role) => (LEADING.includes(role) ? LEADING.indexOf(role) : LEADING.length)

/** A role beside a name; null if there is none to show. */
export function badge(role) {
  return LEADING.includes(role) ? h('span', { class: `badge ${role}` }, role) : null
}

/** One of eight colours, the same for a user everywhere. */
export function hueOf(user) {
  let hash = 2166136261
  for (const char of user) hash = Math.imul(hash ^ char.codePointAt(0), 16777619)
  return String((hash >>> 0) % 8)
}

/** Says something in passing. */
export function toast(text, kind = '') {
  const element = h('p', { class: `toast ${kind}`, dir: 'auto' }, text)
  byId('toasts').append(element)
  setTimeout(() => element.remove(), 6_000)
}

/** Puts these children into `parent`, in this order, moving only what has to move: what is moved loses the focus. */
export function arrange(parent, children) {
  const wanted = new Set(children)
  let at = parent.firstChild
  const skip = () => {
    while (at && !wanted.has(at)) {
      const next = at.nextSibling
      at.remove()
      at = next
    }
  }
  for (const child of children) {
    skip()
    if (child === at) at = at.nextSibling
    else parent.insertBefore(child, at)
  }
  skip()
}

/** What this browser keeps; nothing, if it may not. */
export const kept = {
  read(key) {
    try {
      return JSON.parse(localStorage.getItem(`tailcast.${key}`))
    } catch {
      return null
    }
  },
  write(key, value) {
    try {
      if (value === null) localStorage.removeItem(`tailcast.${key}`)
      else localStorage.setItem(`tailcast.${key}`, JSON.stringify(value))
    } catch {
      // Then it's forgotten with the page.
    }
  },
}
