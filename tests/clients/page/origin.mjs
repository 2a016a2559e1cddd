// A page that a node refuses is told so by the client, though a browser tells it nothing: a page of another origin,
// and one behind a proxy that changes the header Host.
//
//   node origin.mjs BASE_URL
import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { createServer, request } from 'node:http'
import { connect } from 'node:net'
import { base, run, step } from './browser.mjs'

const there = new URL(base)
const client = await readFile(new URL('../../../clients/js/tailcast.js', import.meta.url))

async function serve(answer) {
  const server = createServer(answer)
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { server, url: `http://127.0.0.1:${server.address().port}` }
}

/** The page, and the client, of an application of one's own. */
function own(asked, response) {
  const isClient = asked.url === '/tailcast.js'
  response.writeHead(200, { 'Content-Type': isClient ? 'text/javascript' : 'text/html' })
  response.end(isClient ? client : '<!doctype html><title>app</title><link rel="icon" href="data:,">')
}

/** What the client says of that node first, as an error. */
const told = (page, node) =>
  page.evaluate(async (node) => {
    const { connect } = await import('./tailcast.js')
    const client = connect(node, { user: 'ann', backoffMax: 300 })
    client.join('lobby')
    const error = await new Promise((resolve) => client.on('error', resolve))
    const { state } = client
    client.close()
    return { code: error.code, message: error.message, state }
  }, node)

await run(async (open) => {
  const app = await serve(own)
  const page = await open(null, { from: app.url, path: '/' })
  const strange = await told(page, base)
  assert.equal(strange.code, 'origin_not_allowed', strange.message)
  assert(strange.message.includes(app.url) && strange.message.includes('--allowed-origins'), strange.message)
  assert.notEqual(strange.state, 'closed', 'it goes on trying')
  step('another origin')

  const proxy = await serve((asked, response) => {
    if (asked.url === '/app' || asked.url === '/tailcast.js') return own(asked, response)
    const { method, url, headers } = asked
    const on = request({ host: there.hostname, port: there.port, method, path: url, headers: { ...headers, host: 'inner.example' } }, (answer) => {
      response.writeHead(answer.statusCode, answer.headers)
      answer.pipe(response)
    })
    asked.pipe(on)
  })
  proxy.server.on('upgrade', (asked, near) => {
    const far = connect({ host: there.hostname, port: there.port })
    const lines = Object.entries({ ...asked.headers, host: 'inner.example' }).map(([name, value]) => `${name}: ${value}\r\n`)
    far.write(`GET ${asked.url} HTTP/1.1\r\n${lines.join('')}\r\n`)
    for (const [from, to] of [[near, far], [far, near]]) {
      from.on('error', () => {})
      from.on('close', () => to.destroy())
      from.pipe(to)
    }
  })
  const inner = await open(null, { from: proxy.url, path: '/app' })
  const changed = await told(inner, proxy.url)
  assert.equal(changed.code, 'origin_not_allowed', changed.message)
  assert.match(changed.message, /proxy/)
  step('a changed Host')

  // A server that answers, and opens no socket.
  const plain = await serve((asked, response) => {
    if (asked.url.startsWith('/health')) response.setHeader('Vary', 'origin').setHeader('Access-Control-Allow-Origin', asked.headers.origin ?? '*')
    own(asked, response)
  })
  const third = await open(null, { from: plain.url, path: '/' })
  const closed = await told(third, plain.url)
  assert.equal(closed.code, 'handshake_refused', closed.message)
  for (const { server } of [app, proxy, plain]) server.closeAllConnections()
}, [/WebSocket connection to/, /CORS/, /ERR_/, /the server responded with a status/])
