// Tries the clients of this folder on a small server that keeps the contract in memory, so that a
// failing end-to-end test is not the client's fault. Run by `node --test`.
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import { createInterface } from 'node:readline'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { WebSocketServer } from 'ws'

/** One room, with IDs 1-0, 2-0 and so on. */
async function serve() {
  const entries = []
  const subscribers = new Set()
  const seen = { cookies: [], lastEventIds: [], connects: 0 }
  const append = (message) => {
    entries.push({ id: `${entries.length + 1}-0`, message })
    for (const subscriber of subscribers) subscriber()
  }
  const server = createServer((request, response) => {
    seen.lastEventIds.push(request.headers['last-event-id'])
    const after = Number.parseInt(request.headers['last-event-id'] ?? '0')
    response.writeHead(200, { 'Content-Type': 'text/event-stream' })
    response.write('retry: 5\n\n')
    for (const { id, message } of entries.slice(after)) {
      response.write(`id: ${id}\ndata: ${message}\n\n`)
    }
    response.write('event: gap\ndata: {}\n\n')
    // Ends, so that the client comes again.
    if (seen.lastEventIds.length === 1) response.end()
  })
  const sockets = new WebSocketServer({ server, perMessageDeflate: false })
  sockets.on('connection', (socket, request) => {
    const url = new URL(request.url, 'http://localhost')
    seen.cookies.push(request.headers.cookie)
    seen.connects += 1
    const isJson = url.searchParams.get('format') === 'json'
    const from = url.searchParams.get('from')
    let cursor = from === null ? entries.length : Number.parseInt(from)
    const deliver = () => {
      for (; cursor < entries.length; cursor++) {
        const { id, message } = entries[cursor]
        socket.send(
          isJson
            ? JSON.stringify({ type: 'entry', room: 'r', id, fields: { message } })
            : message,
        )
      }
    }
    if (isJson) socket.send(JSON.stringify({ type: 'joined', room: 'r', head: `${cursor}-0` }))
    deliver()
    subscribers.add(deliver)
    socket.on('message', (data, isBinary) => append(isBinary ? data : data.toString()))
    socket.on('close', () => subscribers.delete(deliver))
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const close = () => {
    for (const socket of sockets.clients) socket.terminate()
    server.closeAllConnections()
    server.close()
  }
  return { append, entries, seen, close, host: `127.0.0.1:${server.address().port}` }
}

/** A client program; `next` gives its next line that fits, `all` those until it ends. */
function start(context, name, ...args) {
  const path = fileURLToPath(new URL(name, import.meta.url))
  const child = spawn(process.execPath, [path, ...args], { stdio: ['pipe', 'pipe', 'inherit'] })
  const ended = once(child, 'exit')
  context.after(() => child.kill())
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const next = async (fits = () => true) => {
    for (;;) {
      const { value, done } = await lines.next()
      assert(!done, `${name} ended too soon`)
      const event = JSON.parse(value)
      if (fits(event)) return event
    }
  }
  const all = async () => {
    const events = []
    for await (const line of lines) events.push(JSON.parse(line))
    return events
  }
  const say = (command) => child.stdin.write(JSON.stringify(command) + '\n')
  return { child, ended, next, all, say }
}

test('ws-client', { timeout: 30_000 }, async (context) => {
  const server = await serve()
  context.after(server.close)
  const client = start(context, 'ws-client.mjs', `ws://${server.host}/`, '--cookie', 'a=1', '--cookie', 'b=2')
  assert.equal((await client.next()).event, 'open')
  assert.deepEqual(server.seen.cookies, ['a=1; b=2'])
  client.say({ send: 'grüße' })
  assert.deepEqual(await client.next(), { event: 'frame', text: 'grüße' })
  client.say({ sendBinary: '/wA=' })
  assert.deepEqual(await client.next(), { event: 'frame', base64: '/wA=' })

  // More than any buffer holds, so that some of it can only come after the pause.
  client.say({ pause: true })
  client.say({ nonsense: true })
  assert.equal((await client.next()).event, 'error')
  for (let count = 0; count < 300; count++) server.append('x'.repeat(65_536))
  client.say({ resume: true })
  for (let count = 0; count < 300; count++) assert.equal((await client.next()).text.length, 65_536)
  client.say({ close: true })
  const close = await client.next()
  assert.equal(close.event, 'close')
  await client.ended
})

test('sse-client', { timeout: 30_000 }, async (context) => {
  const server = await serve()
  context.after(server.close)
  for (const message of ['one', 'two', 'three']) server.append(message)
  const client = start(context, 'sse-client.mjs', `http://${server.host}/`, '--last-event-id', '1-0')
  assert.equal((await client.next()).event, 'open')
  assert.deepEqual(await client.next(), { id: '2-0', event: 'message', data: 'two' })
  assert.equal((await client.next()).id, '3-0')
  assert.equal((await client.next()).event, 'gap')
  assert.equal((await client.next()).event, 'error')
  assert.equal((await client.next()).event, 'open')
  assert.deepEqual(server.seen.lastEventIds, ['1-0', '3-0'])
  client.child.stdin.end()
  await client.ended
})

test('storm', { timeout: 30_000 }, async (context) => {
  const server = await serve()
  context.after(server.close)
  const url = `ws://${server.host}`
  const client = start(context, 'storm.mjs', '--url', url, '--url', url, '--clients', '20', '--seconds', '2', '--seed', '1')
  const publishing = setInterval(() => server.append(`m${server.entries.length}`), 1)
  context.after(() => clearInterval(publishing))
  const events = []
  await client.next((event) => {
    events.push(event)
    return event.event === 'settling'
  })
  clearInterval(publishing)
  const last = server.entries.at(-1).id
  client.say({ finish: last })
  events.push(...(await client.all()))
  const finished = events.find((event) => event.event === 'finished')
  assert.equal(finished.complete, 20)
  // On a busy machine there are few more than each client's first and second.
  assert(finished.connects >= 40, `only ${finished.connects} connects`)
  for (let index = 0; index < 20; index++) {
    const own = events.filter((event) => event.client === `c${index}`)
    assert.deepEqual(own.filter((event) => event.event === 'error'), [])
    assert(own.some((event) => event.event === 'reconnected'))
    const head = Number.parseInt(own.find((event) => event.event === 'joined').head)
    const ids = own.filter((event) => event.event === 'entry').map((event) => Number.parseInt(event.id))
    assert.deepEqual(ids, Array.from({ length: Number.parseInt(last) - head }, (_, at) => head + at + 1))
    assert.equal(own.at(-1).event, 'done')
  }
})

test('storm ends with its stdin, also where no node answers', { timeout: 30_000 }, async (context) => {
  const client = start(context, 'storm.mjs', '--url', 'ws://127.0.0.1:1', '--clients', '3', '--seconds', '0')
  await client.next((event) => event.event === 'settling')
  client.child.stdin.end()
  const events = await client.all()
  assert.equal(events.at(-1).complete, 0)
  await client.ended
})
