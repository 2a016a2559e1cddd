// One socket of the published socket.io-client, driven by lines of JSON on stdin.
//
//   node socketio-client.mjs --url http://127.0.0.1:8080 [--version 4|3] [--transports polling,websocket]
//     [--namespace /] [--query '{"roomid":"lobby"}'] [--auth '{"token":"…"}'] [--cookie token=…]
//
// It prints what happens, one object a line:
//
//   {"event":"connect","sid","recovered","transport"}   {"event":"disconnect","reason"}
//   {"event":"connect_error","message","data"}          {"event":"upgrade","transport"}
//   {"event":"got","name","args"}                       {"event":"ack","ref","args"}
//
// and takes {"emit":[name,…],"ref"?}, {"cut":true} (the connection breaks; the client comes back),
// {"open":true}, {"leave":true} (it disconnects). Bytes are {"base64":"…"} both ways.
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { io as io4 } from 'socket.io-client'
import io3 from 'socket.io-client-v3'

const { values } = parseArgs({
  options: {
    url: { type: 'string' },
    version: { type: 'string', default: '4' },
    transports: { type: 'string', default: 'polling,websocket' },
    namespace: { type: 'string', default: '/' },
    query: { type: 'string', default: '{}' },
    auth: { type: 'string', default: '{}' },
    cookie: { type: 'string' },
  },
})
const io = values.version === '3' ? io3 : io4
const say = (event) => process.stdout.write(JSON.stringify(event) + '\n')

const packed = (value) => {
  if (value instanceof Uint8Array) return { base64: Buffer.from(value).toString('base64') }
  if (value instanceof ArrayBuffer) return packed(new Uint8Array(value))
  if (Array.isArray(value)) return value.map(packed)
  if (value && typeof value === 'object') {
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, packed(item)]))
  }
  return value
}
const unpacked = (value) => {
  if (Array.isArray(value)) return value.map(unpacked)
  if (value && typeof value === 'object') {
    if (typeof value.base64 === 'string') return Buffer.from(value.base64, 'base64')
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, unpacked(item)]))
  }
  return value
}

const socket = io(values.url + values.namespace, {
  transports: values.transports.split(','),
  query: JSON.parse(values.query),
  auth: JSON.parse(values.auth),
  extraHeaders: values.cookie ? { cookie: values.cookie } : undefined,
  reconnectionDelay: 20,
  reconnectionDelayMax: 200,
  forceNew: true,
})
socket.on('connect', () => {
  const transport = socket.io.engine.transport.name
  say({ event: 'connect', sid: socket.id, recovered: socket.recovered === true, transport })
  socket.io.engine.on('upgrade', (to) => say({ event: 'upgrade', transport: to.name }))
})
socket.on('disconnect', (reason) => say({ event: 'disconnect', reason }))
socket.on('connect_error', (error) => {
  say({ event: 'connect_error', message: error.message, data: error.data ?? null })
})
socket.onAny((name, ...args) => say({ event: 'got', name, args: packed(args) }))

const cut = () => {
  const transport = socket.io.engine.transport
  if (transport.ws) transport.ws.terminate()
  else socket.io.engine.close()
}
for await (const line of createInterface({ input: process.stdin })) {
  const asked = JSON.parse(line)
  if (asked.emit && asked.ref !== undefined) {
    socket.emit(...unpacked(asked.emit), (...args) => {
      say({ event: 'ack', ref: asked.ref, args: packed(args) })
    })
  } else if (asked.emit) {
    socket.emit(...unpacked(asked.emit))
  } else if (asked.cut) {
    cut()
  } else if (asked.open) {
    socket.connect()
  } else if (asked.leave) {
    socket.disconnect()
  }
}
process.exit(0)
