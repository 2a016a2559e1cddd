// One @stomp/stompjs client, driven by lines: each event is a line of JSON on stdout, each command one
// on stdin. It ends when stdin has closed, or when its connection has, unless it reconnects.
//
//   node stomp-client.mjs URL… [--transport ws|tcp|websocket|xhr-streaming|xhr-polling|eventsource]
//        [--header NAME=VALUE]… [--cookie VALUE] [--version 1.2]… [--heartbeat MS] [--reconnect MS] [--resume]
//
// The last four transports are those of sockjs-client. With several URLs it reconnects to the next one
// each time; with --resume it subscribes again behind the last message-id it has.
//
// Events: {"event":"connected","version":"1.2","headers":{…}}
//         {"event":"message","subscription":"…","headers":{…},"body":"…"|"base64":"…"}
//         {"event":"receipt","id":"…","headers":{…}} {"event":"error","headers":{…},"body":"…"}
//         {"event":"close","code":1000,"reason":"…"}
// Commands: {"subscribe":"/topic/a","headers":{…}} {"unsubscribe":"id"} {"disconnect":true} {"drop":true}
//           {"publish":"/topic/a","headers":{…},"body":"…"|"base64":"…"} {"ack":"id","headers":{…}}
//           {"nack":"id"} {"begin":"tx"} {"commit":"tx","receipt":"…"} {"abort":"tx"}
import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { Client } from '@stomp/stompjs'
import SockJS from 'sockjs-client'
import { WebSocket } from 'ws'

const { values: options, positionals: urls } = parseArgs({
  allowPositionals: true,
  options: {
    transport: { type: 'string', default: 'ws' },
    header: { type: 'string', multiple: true, default: [] },
    cookie: { type: 'string' },
    version: { type: 'string', multiple: true, default: ['1.2', '1.1', '1.0'] },
    heartbeat: { type: 'string', default: '10000' },
    reconnect: { type: 'string', default: '0' },
    resume: { type: 'boolean', default: false },
  },
})

const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')

// A socket of bytes in the shape of a WebSocket.
class Tcp {
  constructor(url) {
    const { hostname, port } = new URL(url)
    this.readyState = 0
    this.socket = connect({ host: hostname, port: Number(port) })
    this.socket.on('connect', () => {
      this.readyState = 1
      this.onopen?.({})
    })
    this.socket.on('data', (data) => this.onmessage?.({ data: new Uint8Array(data).buffer }))
    this.socket.on('error', (error) => this.onerror?.(error))
    this.socket.on('close', () => {
      this.readyState = 3
      this.onclose?.({ code: 1006, reason: '', wasClean: true })
    })
  }
  send(data) {
    this.socket.write(typeof data === 'string' ? data : Buffer.from(data))
  }
  close() {
    this.readyState = 2
    this.socket.end()
  }
  terminate() {
    this.socket.destroy()
  }
}

let attempt = 0
const headers = options.cookie ? { Cookie: options.cookie } : {}
function open() {
  const url = urls[attempt++ % urls.length]
  if (options.transport === 'ws') {
    return new WebSocket(url, client.stompVersions.protocolVersions(), { headers })
  }
  if (options.transport === 'tcp') return new Tcp(url)
  return new SockJS(url, null, { transports: [options.transport] })
}

const last = new Map()
const subscriptions = new Map()
const body = (frame) => {
  const bytes = Buffer.from(frame.binaryBody)
  const text = bytes.toString()
  return Buffer.from(text).equals(bytes) ? { body: text } : { base64: bytes.toString('base64') }
}

function subscribe(destination, wanted = {}) {
  const at = { ...wanted }
  if (options.resume && last.has(destination)) at['last-id'] = last.get(destination)
  const subscription = client.subscribe(
    destination,
    (frame) => {
      if (frame.headers['message-id']) last.set(destination, frame.headers['message-id'])
      print({ event: 'message', subscription: subscription.id, headers: frame.headers, ...body(frame) })
    },
    at,
  )
  subscriptions.set(destination, wanted)
}

const client = new Client({
  webSocketFactory: open,
  connectHeaders: Object.fromEntries(options.header.map((pair) => pair.split(/=(.*)/s).slice(0, 2))),
  reconnectDelay: Number(options.reconnect),
  heartbeatIncoming: Number(options.heartbeat),
  heartbeatOutgoing: Number(options.heartbeat),
  onConnect: (frame) => {
    for (const [destination, wanted] of subscriptions) subscribe(destination, wanted)
    print({ event: 'connected', version: client.connectedVersion, headers: frame.headers })
  },
  onUnhandledReceipt: (frame) => {
    const { 'receipt-id': id } = frame.headers
    if (subscriptions.size > 0 && frame.headers['last-id'] && options.resume) {
      for (const destination of subscriptions.keys()) {
        if (!last.has(destination)) last.set(destination, frame.headers['last-id'])
      }
    }
    print({ event: 'receipt', id, headers: frame.headers })
  },
  onStompError: (frame) => print({ event: 'error', headers: frame.headers, body: frame.body }),
  onWebSocketError: () => {},
  onWebSocketClose: (event) => {
    print({ event: 'close', code: event.code, reason: event.reason })
    if (!client.active || options.reconnect === '0') end()
  },
})
client.stompVersions.versions = options.version
client.activate()

const input = createInterface({ input: process.stdin })
function end() {
  client.deactivate({ force: true })
  input.close()
  process.stdin.destroy()
}

function obey(command) {
  if ('subscribe' in command) subscribe(command.subscribe, command.headers)
  else if ('unsubscribe' in command) client.unsubscribe(command.unsubscribe, command.headers)
  else if ('publish' in command) {
    const { publish: destination, headers = {} } = command
    const binaryBody = command.base64 && new Uint8Array(Buffer.from(command.base64, 'base64'))
    client.publish({ destination, headers, ...(binaryBody ? { binaryBody } : { body: command.body }) })
  } else if ('ack' in command) client.ack(command.ack, command.subscription ?? '', command.headers)
  else if ('nack' in command) client.nack(command.nack, '')
  else if ('begin' in command) client.begin(command.begin)
  else if ('commit' in command) {
    const headers = { transaction: command.commit, receipt: command.receipt }
    client._stompHandler._transmit({ command: 'COMMIT', headers })
  } else if ('abort' in command) client.abort(command.abort)
  else if (command.disconnect) client.deactivate()
  else if (command.drop) client.forceDisconnect()
  else throw new Error('unknown command')
}

input.on('line', (line) => {
  try {
    obey(JSON.parse(line))
  } catch (error) {
    print({ event: 'failed', message: `${line}: ${error.message}` })
  }
})
input.on('close', end)
