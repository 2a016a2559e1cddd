// A reconnect storm: many clients in one room that break off and resume every few milliseconds, on
// one node after the other, and write down all they got, for the checker to hold against the stream.
//
//   node storm.mjs --url ws://127.0.0.1:8080 --url ws://127.0.0.1:8081
//     [--room storm] [--clients 200] [--seconds 10] [--every 5] [--patience 60] [--seed N] [--out FILE]
//
// Each line, on stdout or in FILE, is one client's next event, in the checker's words:
//
//   {"client":"c7","event":"joined","head":"5-0"}
//   {"client":"c7","event":"entry","id":"5-1","message":"…"}      or "base64" in place of "message"
//   {"client":"c7","event":"gap","after":"5-1","before":"9-0","reason":"trimmed"}
//   {"client":"c7","event":"reconnected","from":"5-1"}
//   {"client":"c7","event":"error","message":"…"}                 only for whoever reads the log
//   {"client":"c7","event":"done","cursor":"9-9","complete":true,"connects":812}
//
// After --seconds the clients break off no more, and stdout says {"event":"settling"}. Then the test
// stops publishing and writes {"finish":"ID"} on stdin, the stream's last entry: each client stays until
// it has got this far (or --patience ran out: "complete" is false then). At the end, stdout says
// {"event":"finished","clients":200,"complete":200,"connects":162400,"entries":…}.
// The end of stdin ends it at once.
import { createWriteStream } from 'node:fs'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { WebSocket } from 'ws'

const { values } = parseArgs({
  options: {
    url: { type: 'string', multiple: true, default: ['ws://127.0.0.1:8080'] },
    room: { type: 'string', default: 'storm' },
    clients: { type: 'string', default: '200' },
    seconds: { type: 'string', default: '10' },
    every: { type: 'string', default: '5' },
    patience: { type: 'string', default: '60' },
    seed: { type: 'string', default: String(Date.now() % 1e9) },
    out: { type: 'string' },
  },
})
const number = (name) => {
  const value = Number(values[name])
  if (Number.isFinite(value) && value >= 0) return value
  console.error(`--${name} wants a number, not ${values[name]}`)
  process.exit(2)
}
const everyMs = number('every')
const patienceMs = number('patience') * 1000
const out = values.out ? createWriteStream(values.out) : process.stdout
const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const random = mulberry32(number('seed'))

let storming = true
let ended = false
/** The entry that everyone should get to; null until the test names it. */
let finish = null
let exact = false

/** A small generator, so that a run's choices come back with its seed. */
function mulberry32(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
  }
}

// Sequence numbers go up to 2^64 - 1, so they are no doubles.
const parse = (id) => {
  const [ms, seq] = id.split('-')
  return [BigInt(ms), BigInt(seq ?? 0)]
}
const isAtLeast = (one, other) => {
  const [ms, seq] = parse(one)
  const [otherMs, otherSeq] = parse(other)
  return ms > otherMs || (ms === otherMs && seq >= otherSeq)
}
const predecessor = (id) => {
  const [ms, seq] = parse(id)
  if (seq > 0n) return `${ms}-${seq - 1n}`
  return ms > 0n ? `${ms - 1n}-${2n ** 64n - 1n}` : '0-0'
}

class Client {
  constructor(index) {
    this.name = `c${index}`
    /** Where to go on from; null until the first join told a head. */
    this.cursor = null
    this.connects = 0
    this.entries = 0
    this.socket = null
    this.nextUrl = index
  }

  log(event) {
    out.write(JSON.stringify({ client: this.name, ...event }) + '\n')
  }

  get isComplete() {
    if (finish === null || this.cursor === null) return false
    return exact ? this.cursor === finish : isAtLeast(this.cursor, finish)
  }

  async run() {
    let pause = 0
    while (!ended && !this.isComplete) {
      // A node that is away is tried less often, or the clients would do nothing else.
      pause = (await this.visit()) ? 0 : Math.min(500, pause * 2 + 5)
      if (pause > 0) await sleep(pause)
    }
    this.log({ event: 'done', cursor: this.cursor, complete: this.isComplete, connects: this.connects })
  }

  /** One connection, from the upgrade to its end. True if it was of use, or we ended it ourselves. */
  visit() {
    const base = values.url[this.nextUrl++ % values.url.length]
    const url = new URL(`/rooms/${encodeURIComponent(values.room)}`, base)
    url.searchParams.set('format', 'json')
    const from = this.cursor
    if (from !== null) url.searchParams.set('from', from)
    return new Promise((resolve) => {
      const socket = new WebSocket(url, { perMessageDeflate: false, handshakeTimeout: 10_000 })
      this.socket = socket
      let timer
      // Once we broke off, frames still in the buffer are another's: they count as not received,
      // and the next connection has to bring them.
      let over = false
      let frames = 0
      const breakOff = () => {
        over = true
        // Now abruptly, now with a closing handshake that nobody waits for.
        if (random() < 0.5) socket.close()
        socket.terminate()
      }
      this.leave = breakOff
      socket.on('open', () => {
        this.connects += 1
        // The checker may look at the cursor only from the second time on.
        if (from !== null) this.log({ event: 'reconnected', from })
        // Some break off before the join is answered.
        if (storming) timer = setTimeout(() => storming && breakOff(), random() * 2 * everyMs)
      })
      socket.on('message', (data, isBinary) => {
        if (over) return
        frames += 1
        this.take(isBinary ? null : data.toString())
        if (this.isComplete) breakOff()
      })
      socket.on('error', (error) => {
        if (!over) this.log({ event: 'error', message: error.message })
      })
      socket.on('close', () => {
        clearTimeout(timer)
        resolve(over || frames > 0)
      })
    })
  }

  take(text) {
    let frame
    try {
      frame = JSON.parse(text)
    } catch {
      this.log({ event: 'error', message: `not JSON: ${text}` })
      return
    }
    switch (frame?.type) {
      case 'joined':
        this.log({ event: 'joined', head: frame.head })
        this.cursor ??= frame.head
        break
      case 'entry':
        this.entries += 1
        this.log({ event: 'entry', id: frame.id, ...message(frame.fields) })
        this.cursor = frame.id
        break
      case 'gap':
        this.log({ event: 'gap', after: frame.after, before: frame.before, reason: frame.reason })
        this.cursor = predecessor(frame.before)
        break
      case 'bye':
      case 'pong':
        break
      default:
        this.log({ event: 'error', message: `unexpected: ${text}` })
    }
  }
}

/** The field `message`, or else the first one, as the raw format has it. */
function message(fields) {
  let value = fields.message ?? Object.values(fields)[0]
  if (Array.isArray(value)) value = value[0]
  return typeof value === 'string' ? { message: value } : { base64: value?.base64 ?? '' }
}

const clients = Array.from({ length: number('clients') }, (_, index) => new Client(index))

createInterface({ input: process.stdin })
  .on('line', (line) => {
    try {
      const command = JSON.parse(line)
      finish = command.finish
      exact = command.exact === true
    } catch {
      console.error(`storm: not a command: ${line}`)
      return
    }
    for (const client of clients) if (client.isComplete) client.leave?.()
    setTimeout(endAll, patienceMs).unref()
  })
  .on('close', endAll)

function endAll() {
  ended = true
  for (const client of clients) client.leave?.()
}

const running = clients.map((client) => client.run())
await sleep(number('seconds') * 1000)
storming = false
print({ event: 'settling' })
await Promise.all(running)
if (values.out) {
  out.end()
  await once(out, 'finish')
}
const sum = (of) => clients.reduce((total, client) => total + of(client), 0)
print({
  event: 'finished',
  clients: clients.length,
  complete: sum((client) => Number(client.isComplete)),
  connects: sum((client) => client.connects),
  entries: sum((client) => client.entries),
})
process.stdin.destroy()
