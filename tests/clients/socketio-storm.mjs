// A reconnect storm of the published socket.io-client: sockets in one room whose TCP connections are cut
// again and again, by balancers that give each connection to the next node, so that nothing is sticky.
//
//   node socketio-storm.mjs --url http://127.0.0.1:8080 --url http://127.0.0.1:8081 [--room storm]
//     [--sockets 10] [--cuts 20] [--transports polling,websocket] [--version 4] [--pause 60] [--double]
//
// When all have joined, it says {"event":"joined"}; at each cut, {"event":"cut"}; when all cuts are made and all are connected again,
// {"event":"settled"}. Then it takes {"finish":"ID"} on stdin, the stream's last entry, waits until every
// socket has it, and prints one line per socket:
//
//   {"event":"socket","first":"ID","ids":[…],"connects":21,"recovered":20,"gaps":0}
//
// and at last {"event":"finished","complete":10}. `first` is where it joined. With --double, every other
// connection is cut right after it's made, before anything is said on it.
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { io as io4 } from 'socket.io-client'
import io3 from 'socket.io-client-v3'
import { balance } from './balancer.mjs'

const { values } = parseArgs({
  options: {
    url: { type: 'string', multiple: true },
    room: { type: 'string', default: 'storm' },
    sockets: { type: 'string', default: '10' },
    cuts: { type: 'string', default: '20' },
    pause: { type: 'string', default: '60' },
    transports: { type: 'string', default: 'polling,websocket' },
    version: { type: 'string', default: '4' },
    double: { type: 'boolean', default: false },
  },
})
const io = values.version === '3' ? io3 : io4
const say = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const ports = values.url.map((url) => Number(new URL(url).port))

const open = async () => {
  // A socket's own way in, so that all its connections can be cut and no others.
  const { url, cut } = await balance(() => ports)
  const it = { ids: [], first: null, connects: 0, recovered: 0, gaps: 0, waits: [] }
  const socket = io(url, {
    transports: values.transports.split(','),
    query: { roomid: values.room },
    reconnectionDelay: 1,
    reconnectionDelayMax: 50,
    forceNew: true,
  })
  socket.on('connect', () => {
    it.connects += 1
    it.recovered += socket.recovered ? 1 : 0
    for (const done of it.waits.splice(0)) done()
  })
  socket.on('tailcast:rooms', ({ rooms }) => {
    it.first ??= rooms[values.room]
  })
  socket.on('tailcast:gap', () => {
    it.gaps += 1
  })
  socket.on('message', ({ data }) => it.ids.push(data.id))
  it.socket = socket
  it.connected = () =>
    socket.connected ? Promise.resolve() : new Promise((done) => it.waits.push(done))
  it.cut = cut
  return it
}

const all = await Promise.all(Array.from({ length: Number(values.sockets) }, open))
await Promise.all(
  all.map(async (it) => {
    await it.connected()
    while (it.first === null) await sleep(5)
  }),
)
say({ event: 'joined' })
await Promise.all(
  all.map(async (it) => {
    for (let cut = 0; cut < Number(values.cuts); cut += 1) {
      const isAtOnce = values.double && cut % 2 === 1
      if (!isAtOnce) await sleep(Math.random() * Number(values.pause))
      await it.connected()
      // One that polls may have no connection just now.
      while (it.socket.connected) {
        it.cut()
        await sleep(1)
      }
      say({ event: 'cut' })
    }
    await it.connected()
  }),
)
say({ event: 'settled' })

const after = (one, other) => {
  const [a, b] = [one, other].map((id) => id.split('-').map(Number))
  return a[0] - b[0] || a[1] - b[1]
}
for await (const line of createInterface({ input: process.stdin })) {
  const { finish } = JSON.parse(line)
  const deadline = Date.now() + 60_000
  const isComplete = (it) => after(it.ids.at(-1) ?? it.first, finish) >= 0
  while (!all.every(isComplete) && Date.now() < deadline) await sleep(20)
  for (const it of all) {
    const { first, ids, connects, recovered, gaps } = it
    say({ event: 'socket', first, ids, connects, recovered, gaps })
  }
  const finished = { event: 'finished', complete: all.filter(isComplete).length }
  // A pipe takes its time.
  process.stdout.write(JSON.stringify(finished) + '\n', () => process.exit(0))
}
