// A published client of server-sent events behind a proxy that can cut its connection. Each event is a
// line of JSON on stdout. It ends when stdin does.
//
//   node sse-cut.mjs eventsource|eventsource-v2|eventsource-v4|event-source-polyfill URL
//
//   {"event":"joined"|"message","id":"1-0","data":"…"}
//   {"event":"error"}                 the connection broke; the client comes back by itself
//
// On stdin, a line each: "cut" ends the connection and refuses others, "mend" lets them through again.
import net from 'node:net'
import { createInterface } from 'node:readline'

const [name, url] = process.argv.slice(2)
if (url === undefined) {
  console.error('usage: sse-cut.mjs CLIENT URL')
  process.exit(2)
}
const module = await import(name)
const EventSource =
  module.EventSourcePolyfill ?? module.default?.EventSourcePolyfill ?? module.EventSource ?? module.default

const target = new URL(url)
const { port, hostname } = target
const open = new Set()
let isCut = false
const proxy = net.createServer((client) => {
  if (isCut) return client.destroy()
  const server = net.connect(port, hostname)
  const end = () => {
    client.destroy()
    server.destroy()
    open.delete(end)
  }
  open.add(end)
  for (const side of [client, server]) side.on('error', end).on('close', end)
  client.pipe(server).pipe(client)
})
await new Promise((resolve) => proxy.listen(0, '127.0.0.1', resolve))

const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')
// The polyfill tells the console of each break.
console.error = () => {}
target.port = proxy.address().port
const source = new EventSource(target.href)
for (const event of ['joined', 'message']) {
  source.addEventListener(event, ({ lastEventId, data }) => print({ event, id: lastEventId, data }))
}
source.addEventListener('error', () => print({ event: 'error' }))

const commands = {
  cut() {
    isCut = true
    for (const end of open) end()
  },
  mend() {
    isCut = false
  },
}
createInterface({ input: process.stdin })
  .on('line', (line) => commands[line]())
  .on('close', () => process.exit(0))
