// Asks the node for its numbers once a second, while somebody looks, and shows them.
import { Chart, element } from './chart.js'
import { NONE, bytes, count, micros, rate, some, span } from './format.js'

const EVERY_MS = 1_000
const TIMEOUT_MS = 3_000
// Two answers missed, and no single slow one.
const UNREACHABLE_MS = 2_500
// The node holds a request for its drain for 25 s.
const HELD_MS = 30_000

const KINDS = { ws_raw: 'raw', ws_json: 'JSON', sse: 'events', socketio: 'Socket.IO', socketio_polling: 'Socket.IO polling', stomp: 'STOMP', stomp_tcp: 'STOMP over TCP', sockjs: 'SockJS' }

const at = (id) => document.getElementById(id)

/** The moment that all charts show: null is now. */
const moment = {
  at: null,
  choose(time) {
    this.at = time
    for (const chart of charts) chart.draw()
  },
}

const column = (name) => (samples, index) => samples[name][index]
const perSecond = (name) => (samples, index) => (samples[name][index] * 1_000) / Math.max(samples.span_ms[index], 1)

const charts = [
  {
    id: 'chart-entries',
    title: 'Entries per second',
    lines: [
      { label: 'from Redis', kind: 'first', of: perSecond('entries') },
      { label: 'published here', kind: 'second', of: perSecond('published') },
    ],
    format: rate,
    least: 4,
  },
  {
    id: 'chart-publish',
    title: 'Publish latency',
    lines: [
      { label: 'p50', kind: 'first', of: column('publish_p50_us') },
      { label: 'p99', kind: 'second', of: column('publish_p99_us') },
    ],
    format: micros,
    least: 2_000,
    area: false,
  },
  {
    id: 'chart-tail',
    title: 'Tail lag',
    lines: [
      { label: 'p50', kind: 'first', of: column('tail_p50_us') },
      { label: 'p99', kind: 'second', of: column('tail_p99_us') },
    ],
    format: micros,
    least: 2_000,
    area: false,
  },
  {
    id: 'chart-sockets',
    title: 'Sockets',
    lines: [
      { label: 'open', kind: 'first', of: column('sockets') },
      { label: 'users', kind: 'second', of: column('users') },
    ],
    format: count,
    least: 4,
  },
  { id: 'chart-rooms', title: 'Rooms followed', lines: [{ label: 'rooms', kind: 'first', of: column('rooms') }], format: count, least: 4 },
  {
    id: 'chart-gaps',
    title: 'Gaps and failures',
    lines: [
      { label: 'gaps told', kind: 'bad', of: column('gaps') },
      { label: 'publishes failed', kind: 'second', of: column('failed') },
    ],
    format: count,
    least: 4,
  },
].map((settings) => new Chart(settings, moment))

/** Puts rows of [id, name, value, below] into a list, making them once, so that nothing flickers. */
function list(into, rows) {
  for (const [id, name, value, below, alarm] of rows) {
    let row = at(id)?.parentElement
    if (!row) {
      row = element('div', {}, element('dt', {}, name), element('dd', { id }))
      into.append(row)
    }
    row.classList.toggle('alarm', Boolean(alarm))
    const shown = row.lastElementChild
    const text = below === undefined ? value : `${value}\n${below}`
    if (shown.dataset.text === text) continue
    shown.dataset.text = text
    shown.replaceChildren(value, ...(below === undefined ? [] : [element('small', {}, below)]))
  }
}

function showTiles({ now, totals, history }) {
  const last = history.at_ms.length - 1
  const latest = (name) => (last < 0 ? null : perSecond(name)(history, last))
  const kinds = Object.entries(now.kinds).filter(([, open]) => open > 0)
  const gaps = Object.values(totals.gaps).reduce((sum, told) => sum + told, 0)
  list(at('tiles'), [
    ['sockets', 'Sockets', count(now.sockets), kinds.map(([kind, open]) => `${count(open)} ${KINDS[kind] ?? kind}`).join(', ') || 'nobody here'],
    ['users', 'Users', count(now.users), 'signed in by name'],
    ['rooms', 'Rooms', count(now.rooms), `${bytes(now.window_bytes)} in memory`],
    ['entries', 'Entries', `${rate(latest('entries'))}/s`, `${rate(latest('published'))}/s published here`],
    ['frames', 'Frames out', `${rate(latest('frames'))}/s`, `${count(totals.frames)} in all`],
    ['gaps', 'Gaps told', count(gaps), gaps === 0 ? 'none since the start' : reasons(totals.gaps)],
  ])
}

const reasons = (gaps) =>
  Object.entries(gaps)
    .filter(([, told]) => told > 0)
    .map(([reason, told]) => `${count(told)} ${reason}`)
    .join(', ')

function showTotals({ totals }) {
  list(at('totals'), [
    ['total-entries', 'Entries from Redis', count(totals.entries)],
    ['total-published', 'Publishes stored', count(totals.published)],
    ['total-refused', 'Publishes refused', count(totals.refused)],
    ['total-unknown', 'Publishes unconfirmed', count(totals.unknown), undefined, totals.unknown > 0],
    ['total-frames', 'Frames written', `${count(totals.frames)} (${bytes(totals.frame_bytes)})`],
    ['total-reads', 'Reads of Redis for replays', count(totals.log_reads)],
    ['total-slow', 'Slow sockets closed', count(totals.slow_closed)],
  ])
}

function showNodes({ nodes, now, now_ms }) {
  const into = at('nodes')
  if (nodes === null) {
    const text = `${some(now.nodes, 'node')} alive. GET /nodes lists them for back ends.`
    into.replaceChildren(element('p', {}, text))
    return
  }
  if (nodes.length === 0) {
    into.replaceChildren(element('p', {}, 'Not known yet.'))
    return
  }
  const head = [['Address'], ['Name', 'narrow-off'], ['Sockets', 'number'], ['Rooms', 'number'], ['Uptime', 'number']]
  const heads = head.map(([text, kind = '']) => element('th', { scope: 'col', class: kind }, text))
  const rows = nodes
    .toSorted((a, b) => String(a.address).localeCompare(String(b.address), 'en', { numeric: true }))
    .map((node) =>
      element(
        'tr',
        node.self ? { class: 'self' } : {},
        element('td', {}, node.address ?? NONE),
        element('td', { class: 'mono narrow-off' }, node.node),
        element('td', { class: 'number' }, count(node.sockets ?? null)),
        element('td', { class: 'number' }, count(node.rooms ?? null)),
        element('td', { class: 'number' }, node.started ? span(now_ms - node.started) : NONE),
      ),
    )
  into.replaceChildren(element('table', {}, element('thead', {}, element('tr', {}, ...heads)), element('tbody', {}, ...rows)))
}

/** Says how the node is, once per change: it's read aloud. */
function say(state, text, notice) {
  const pill = at('health')
  if (pill.dataset.state !== state) pill.dataset.state = state
  if (at('health-text').textContent !== text) at('health-text').textContent = text
  const box = at('notice')
  box.hidden = notice === undefined
  if (box.textContent !== (notice ?? '')) box.textContent = notice ?? ''
  box.dataset.state = state
  document.title = state === 'ready' || state === 'waiting' ? 'tailcast status' : `${text} · tailcast status`
}

function showHealth({ health }) {
  if (health.status === 'ready') say('ready', 'Ready')
  else if (health.status === 'draining') say('draining', 'Draining', DRAINS)
  else say('unready', 'Redis is away', `This node is not ready (${health.code}): ${health.message}. Sockets stay open; what is published waits, and is then refused.`)
}

const DRAINS = 'This node is going away: it sends its sockets to other nodes, and takes no new connections.'
const LAST = 'The numbers are its last ones'

let answered = null
let place = ''

function show(status) {
  answered = performance.now()
  const { node } = status
  place = node.address
  at('node').textContent = `${node.name} · ${node.address} · node ${node.node} · ${node.version} · up ${span(node.uptime_ms)}`
  document.body.classList.remove('stale')
  showHealth(status)
  showTiles(status)
  showTotals(status)
  showNodes(status)
  const samples = { ...status.history, at: status.history.at_ms, length: status.history.at_ms.length }
  const edge = samples.at.at(-1) ?? status.now_ms
  if (moment.at !== null && !samples.at.includes(moment.at)) moment.at = null
  for (const chart of charts) chart.show(samples, edge)
}

async function poll() {
  try {
    const answer = await fetch('status.json', { cache: 'no-store', signal: AbortSignal.timeout(TIMEOUT_MS) })
    if (!answer.ok) throw new Error(`status ${answer.status}`)
    show(await answer.json())
  } catch {
    const silent = answered === null ? Infinity : performance.now() - answered
    if (silent < UNREACHABLE_MS) return
    document.body.classList.add('stale')
    // It has said that it would fall silent.
    if (at('health').dataset.state === 'draining') return say('draining', 'Draining', `${DRAINS} ${LAST}.`)
    const last = answered === null ? 'It has not answered yet' : LAST
    say('unreachable', 'Unreachable', `${place || 'The node'} does not answer. ${last}; this page keeps asking.`)
  }
}

let held = null

/** Asks to be told when the node drains: from then on it can't be asked. */
async function awaitDrain() {
  if (document.hidden || held) return
  held = new AbortController()
  try {
    const signal = AbortSignal.any([held.signal, AbortSignal.timeout(HELD_MS)])
    const answer = await fetch('status.json?until=drain', { cache: 'no-store', signal })
    if (answer.ok) show(await answer.json())
  } catch {
    // The next answer to a poll begins it anew.
  }
  held = null
}

let timer = null
let asking = false

/** Once a second while the page is seen, never two at once. */
async function tick() {
  clearTimeout(timer)
  if (document.hidden || asking) return
  asking = true
  const began = performance.now()
  await poll()
  if (['ready', 'unready'].includes(at('health').dataset.state)) awaitDrain()
  asking = false
  if (!document.hidden) timer = setTimeout(tick, Math.max(0, EVERY_MS - (performance.now() - began)))
}

document.addEventListener('visibilitychange', () => {
  if (document.hidden) {
    held?.abort()
    return clearTimeout(timer)
  }
  // A page that was away for an hour has heard nothing for an hour; that is no news.
  answered = performance.now()
  tick()
})

at('charts').append(...charts.map((chart) => chart.root))
tick()
