// What people read: links, times, names of days, and entries that are no messages.
import { h } from './dom.js'

/** Marks at the end of a link that belong to the sentence. */
const MARKS = '.,:;!?…'

const LINK = /https?:\/\/[^\s<>"'`]+/g

/** Text with its links made clickable, as nodes. */
export function linked(text) {
  const nodes = []
  let at = 0
  for (const match of text.matchAll(LINK)) {
    // A full stop or a bracket after a link is the sentence's.
    let link = match[0].slice(0, endOf(match[0]))
    if (link.endsWith(')') && !link.includes('(')) link = link.slice(0, -1)
    if (!URL.canParse(link)) continue
    nodes.push(text.slice(at, match.index))
    nodes.push(h('a', { href: link, target: '_blank', rel: 'noopener noreferrer nofollow' }, link))
    at = match.index + link.length
  }
  nodes.push(text.slice(at))
  return nodes.filter((node) => node !== '')
}

/** Where a link ends, before the marks at its end; looked for from there, so that it takes no longer for many of them. */
function endOf(link) {
  let end = link.length
  while (end > 0 && MARKS.includes(link[end - 1])) end -= 1
  return end
}

/** Text in which what is between backticks is code, as nodes. */
export const quoted = (text) => text.split('`').map((part, at) => (at % 2 ? h('code', {}, part) : part))

const clock = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit' })
const day = new Intl.DateTimeFormat(undefined, { weekday: 'long', day: 'numeric', month: 'long' })
const dayWithYear = new Intl.DateTimeFormat(undefined, { day: 'numeric', month: 'long', year: 'numeric' })
const full = new Intl.DateTimeFormat(undefined, { dateStyle: 'full', timeStyle: 'medium' })

export const clockTime = (ms) => clock.format(ms)
export const fullTime = (ms) => full.format(ms)

/** A time as one says it: the nearer, the looser. */
export function relativeTime(ms, now = Date.now()) {
  const minutes = Math.floor((now - ms) / 60_000)
  if (minutes < 1) return 'just now'
  if (minutes < 60) return `${minutes} min ago`
  return clockTime(ms)
}

export function dayName(ms, now = Date.now()) {
  const midnight = (time) => new Date(time).setHours(0, 0, 0, 0)
  const ago = Math.round((midnight(now) - midnight(ms)) / 86_400_000)
  if (ago === 0) return 'Today'
  if (ago === 1) return 'Yesterday'
  return new Date(ms).getFullYear() === new Date(now).getFullYear() ? day.format(ms) : dayWithYear.format(ms)
}

export function dayKey(ms) {
  const date = new Date(ms)
  return `${date.getFullYear()}-${date.getMonth()}-${date.getDate()}`
}

/** Seconds as one says them. */
export function spell(seconds) {
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.round(seconds / 60)} min`
  if (seconds < 86_400) return `${Math.round(seconds / 3600)} h`
  return `${Math.round(seconds / 86_400)} d`
}

/** How many bytes a value in base64 has; the padding stands for none. */
const bytesOf = (base64) => Math.floor((base64.replace(/={1,2}$/, '').length * 3) / 4)

/** One value as text. */
function valueText(value) {
  if (Array.isArray(value)) return value.map(valueText).join(', ')
  if (typeof value === 'string') return value
  const size = bytesOf(value.base64)
  return `(${size} ${size === 1 ? 'byte' : 'bytes'} of binary data)`
}

/** What an entry is to a reader: a message, a notice, or fields of some program. */
export function readEntry({ id, fields }) {
  const time = Number(id.split('-', 1)[0])
  const user = typeof fields.user === 'string' ? fields.user : null
  const base = { id, time, user, to: typeof fields.to === 'string' ? fields.to : null }
  if (fields.event === 'join' || fields.event === 'leave') {
    return { ...base, kind: 'notice', text: `${user ?? 'Someone'} ${fields.event === 'join' ? 'joined' : 'left'}` }
  }
  if (fields.message !== undefined) return { ...base, kind: 'message', text: valueText(fields.message) }
  const others = Object.entries(fields).filter(([name]) => name !== 'user')
  if (others.length === 1) return { ...base, kind: 'message', text: valueText(others[0][1]) }
  return { ...base, kind: 'message', text: others.map(([name, value]) => `${name}: ${valueText(value)}`).join('\n') }
}
