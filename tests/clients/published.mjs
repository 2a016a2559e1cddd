#!/usr/bin/env node
// Every published client through connect, publish, node killed, resume, compared with the stream.
//
//   npm ci && cargo build
//   ./published.mjs [--python | --venv DIRECTORY] [CLIENT…]
//
// It starts a redis-server and two nodes (target/debug/tailcast, or TAILCAST=path), and gives each client a room
// of its own. A client reads what is in the stream, gets what redis-cli adds, and publishes. Then its node gets
// kill -9, redis-cli adds more, and the client goes on at the other node, gets that, and publishes again. What it got
// must be what XRANGE says: nothing lost, nothing twice, in order. It exits 1 if that fails for any client.
//
// With --python the clients of Python take part, in a virtual environment that is made for it and removed; with --venv
// in one that is there. With names of clients, only those take part.
import { execFile, execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { parseArgs, promisify } from 'node:util'
import { balance } from './balancer.mjs'

const { values, positionals: wanted } = parseArgs({
  allowPositionals: true,
  options: { python: { type: 'boolean', default: false }, venv: { type: 'string' } },
})
const PACKAGES = [
  'requests', 'urllib3', 'httpx', 'httpx-sse', 'sseclient-py', 'websockets', 'websocket-client', 'python-socketio[client]', 'stomp.py',
]
/** How long a step may take, on a machine that is busy. */
const PATIENCE = 60_000
/** How many entries there are before, while all is well, while the node is away, and after. */
const [BEFORE, LIVE, AWAY, AFTER] = [3, 5, 20, 5]

const here = (path) => fileURLToPath(new URL(path, import.meta.url))
const run = promisify(execFile)
const folder = mkdtempSync(join(tmpdir(), 'tailcast-clients-'))
const children = []
function start(command, args, stdio) {
  const child = spawn(command, args, { stdio })
  children.push(child)
  return child
}
process.on('exit', () => {
  for (const child of children) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true, maxRetries: 5 })
})
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1))

async function until(what, holds, patience = PATIENCE) {
  const end = Date.now() + patience
  while (!(await holds())) {
    if (Date.now() > end) throw new Error(`${what}: not within ${patience / 1000} s`)
    await new Promise((done) => setTimeout(done, 50))
  }
}

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1')
  await new Promise((done) => server.once('listening', done))
  const { port } = server.address()
  await new Promise((done) => server.close(done))
  return port
}

const socket = join(folder, 'redis.sock')
const redis = async (...args) => (await run('redis-cli', ['-s', socket, ...args])).stdout
async function startRedis() {
  start('redis-server', ['--port', '0', '--unixsocket', socket, '--save', '', '--dir', folder], 'ignore')
  await until('redis-server', () => redis('PING').then((answer) => answer.startsWith('PONG'), () => false))
}

async function startNode() {
  const [port, stomp] = [await freePort(), await freePort()]
  const args = ['--redis', `unix://${socket}`, '--listen', `127.0.0.1:${port}`, '--stomp-listen', `127.0.0.1:${stomp}`]
  const child = start(process.env.TAILCAST ?? here('../../target/debug/tailcast'), [...args, '--log', 'warn'], 'ignore')
  child.on('error', (error) => {
    console.error(`${error.message}; run cargo build, or set TAILCAST`)
    process.exit(1)
  })
  const ready = () => fetch(`http://127.0.0.1:${port}/health/ready`).then(({ ok }) => ok, () => false)
  await until('a node', ready)
  return { child, port, stomp }
}

function python() {
  if (values.venv !== undefined) return join(values.venv, 'bin', 'python')
  if (!values.python) return null
  const venv = join(folder, 'venv')
  execFileSync('python3', ['-m', 'venv', venv], { stdio: 'inherit' })
  const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...PACKAGES]
  execFileSync(join(venv, 'bin', 'python'), pip, { stdio: 'inherit' })
  return join(venv, 'bin', 'python')
}

/** A client in its room, and what it got. */
class Guest {
  got = []
  wrong = []
  isBack = false

  constructor(number, program, about) {
    Object.assign(this, about)
    this.room = `client-${number}`
    this.program = program
  }

  start(port, stomp) {
    this.child = start(this.program[0], [this.program[1], this.client, this.room, port, stomp].map(String), ['pipe', 'pipe', 'inherit'])
    this.child.stdin.on('error', () => {})
    this.child.on('exit', (code) => this.wrong.push(`it ended with ${code}`))
    createInterface({ input: this.child.stdout }).on('line', (line) => {
      const event = JSON.parse(line)
      if (event.wrong) this.wrong.push(event.wrong)
      else if (event.lost) this.lost = event.lost
      else this.got.push(event)
    })
  }

  async stream() {
    const answer = JSON.parse(await redis('--json', 'XRANGE', this.room, '-', '+'))
    return answer.map(([id, fields]) => ({ id, text: fields[1] }))
  }

  async has(count, what) {
    if (this.failed) return
    const enough = () => this.got.length >= count || this.wrong.length > 0
    await until(what, enough).catch((error) => {
      this.failed = `${error.message}; it has ${this.got.length} entries of ${count}`
    })
  }

  /** What is wrong with it, in a line, or null. */
  async verdict(count) {
    const stream = await this.stream()
    const ids = this.got.map(({ id }) => id)
    // Some clients keep no order themselves.
    const order = ({ id }) => stream.findIndex((entry) => entry.id === id)
    if (this.unordered) this.got.sort((one, other) => order(one) - order(other))
    const told = [...this.wrong, ...(this.failed ? [this.failed] : [])]
    const lost = stream.filter(({ id }) => !ids.includes(id)).length
    if (lost > 0) told.push(`${lost} lost`)
    if (new Set(ids).size < ids.length) told.push(`${ids.length - new Set(ids).size} twice`)
    if (stream.length !== count) told.push(`the stream has ${stream.length} entries, not ${count}`)
    if (told.length === 0 && JSON.stringify(this.got) !== JSON.stringify(stream)) told.push('another order, or another text')
    return told.length > 0 ? told.join('; ') : null
  }
}

function list(...program) {
  const lines = execFileSync(program[0], [program[1], '--list']).toString().trim().split('\n')
  return lines.map((line) => [program, JSON.parse(line)])
}

await startRedis()
const [first, second] = [await startNode(), await startNode()]
let up = [first]
const http = await balance(() => up.map(({ port }) => port))
const stomp = await balance(() => up.map(({ stomp }) => stomp))
const portOf = ({ url }) => new URL(url).port

const interpreter = python()
const programs = list(process.execPath, here('published/javascript.mjs'))
if (interpreter !== null) programs.push(...list(interpreter, here('published/python.py')))
const guests = programs
  .filter(([, { client }]) => wanted.length === 0 || wanted.some((name) => client.startsWith(name)))
  .map(([program, about], number) => new Guest(number, program, about))
if (guests.length === 0) throw new Error(`no such client; there are ${programs.map(([, { client }]) => client).join(', ')}`)

const all = (act) => Promise.all(guests.map(act))
let number = 0
const add = (count) => all(async ({ room }) => {
  for (let each = 0; each < count; each++) await redis('XADD', room, '*', 'message', `by redis-cli ${number++}`)
})
let total = 0
async function publish() {
  for (const { child } of guests) child.stdin.write(`by the client, grüße ${number++}\n`)
  total += 1
  await all((guest) => guest.has(total, 'its own entry'))
}

total += BEFORE
await add(BEFORE)
for (const guest of guests) guest.start(portOf(http), portOf(stomp))
await all((guest) => guest.has(total, 'what was there before'))
await add(LIVE)
total += LIVE
await all((guest) => guest.has(total, 'live entries'))
await publish()

up = []
first.child.kill('SIGKILL')
await add(AWAY)
total += AWAY
// A client that has not noticed would otherwise not be tried at a node that is away.
await all((guest) => until('the break', () => guest.lost || guest.wrong.length > 0).catch(() => guest.wrong.push('it did not notice the break')))
up = [second]
await all((guest) => guest.has(total, 'entries of the time away'))
await publish()
await add(AFTER)
total += AFTER
await all((guest) => guest.has(total, 'entries after'))
// What comes twice may come late.
await new Promise((done) => setTimeout(done, 1_000))

const rows = await all(async (guest) => ({ ...guest, verdict: await guest.verdict(total) }))
const cli = (await run('redis-cli', ['--version'])).stdout.trim().split(' ')[1]
const isHeard = rows.every(({ verdict }) => verdict === null)
rows.push({ client: 'redis-cli', version: cli, protocol: 'Redis', comes: '-', verdict: isHeard ? null : 'see above' })
const columns = ['client', 'version', 'protocol', 'comes']
const widths = columns.map((column) => Math.max(...rows.map((row) => row[column].length), column.length))
const line = (cells, verdict) => console.log([...cells.map((cell, at) => cell.padEnd(widths[at])), verdict].join('  '))
line(columns.map((column) => (column === 'comes' ? 'comes back' : column)), 'verdict')
for (const row of rows) line(columns.map((column) => row[column]), row.verdict ?? `ok, ${total} entries${row.unordered ? ', in the client\'s own order' : ''}`)
if (interpreter === null) console.log('The clients of Python did not take part: say --python.')
process.exit(isHeard ? 0 : 1)
