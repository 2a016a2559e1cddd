// Published clients of every protocol in one room, one of each kind in one process. They come back after
// whatever happens, to the next node, and go on where they were by their protocol's own means.
//
//   node guests.mjs ROOM PORTS KIND…      PORTS: 8080,8081; KIND: a name in KINDS below
//
// On stdin comes a line of ports whenever the nodes are others; it ends when stdin does. It prints what
// each guest sees, in lines of values with tabs between them (JSON takes a debug build too long), of which
// the second is the guest's number:
//
//   joined N HEAD              it's in the room for the first time, and begins after HEAD
//   back N FROM                it has connected again, and asked for what follows FROM
//   entry N ID TEXT
//   gap N AFTER BEFORE REASON
//   error N TEXT               what it was told beside
//   wrong N TEXT               a promise that was broken
import { createInterface } from 'node:readline'
import { Client } from '@stomp/stompjs'
import SockJS from 'sockjs-client'
import { io } from 'socket.io-client'
import { WebSocket } from 'ws'
import { connect } from '../../../clients/js/tailcast.js'
import { balance } from '../balancer.mjs'

const [room, first, ...kinds] = process.argv.slice(2)
const read = (text) => text.split(',').map(Number)
let ports = read(first)

/** First and longest wait before a reconnect, and how long one may take; a stopped node never answers. */
const [BACKOFF, BACKOFF_MAX, TIMEOUT] = [50, 300, 5_000]

let lines = []
function print(...values) {
  if (lines.length === 0) setTimeout(flush, 5)
  lines.push(values.join('\t'))
}
function flush() {
  process.stdout.write(lines.join('\n') + '\n')
  lines = []
}

const step = (id, by) => {
  const [time, seq] = id.split('-').map(BigInt)
  const number = (time << 64n) + seq + by
  return `${number >> 64n}-${number & 0xffffffffffffffffn}`
}
const successor = (id) => step(id, 1n)
const predecessor = (id) => step(id, -1n)

/** What one guest sees, and where it is. */
class Guest {
  cursor = null
  #number
  #turn

  constructor(number) {
    this.#number = number
    // They don't all go to the same one.
    this.#turn = number
  }

  /** The next node's address. */
  host() {
    return `127.0.0.1:${ports[this.#turn++ % ports.length]}`
  }

  joined(head) {
    if (this.cursor !== null) return
    this.cursor = head
    print('joined', this.#number, head)
  }

  back() {
    if (this.cursor !== null) print('back', this.#number, this.cursor)
  }

  entry(id, text) {
    this.cursor = id
    print('entry', this.#number, id, text)
  }

  gap(after, before, reason) {
    this.cursor = predecessor(before)
    print('gap', this.#number, after, before, reason)
  }

  error(text) {
    print('error', this.#number, String(text).replace(/\s+/g, ' '))
  }

  wrong(text) {
    print('wrong', this.#number, text)
  }
}

/** It recovers by its pid and the offset of the last event; `url` is asked before each try. */
function socketio(guest, transports, url) {
  const socket = io(url(), {
    transports,
    query: { roomid: room },
    reconnectionDelay: BACKOFF,
    reconnectionDelayMax: BACKOFF_MAX,
    timeout: TIMEOUT,
    forceNew: true,
  })
  socket.io.on('reconnect_attempt', () => {
    socket.io.uri = url()
  })
  // Who has not recovered lacks something, and is told what before anything else.
  let lacks = false
  socket.on('connect', () => {
    guest.back()
    lacks = guest.cursor !== null && !socket.recovered
  })
  socket.on('tailcast:rooms', ({ rooms }) => guest.joined(rooms[room]))
  socket.on('tailcast:gap', ({ after, before, reason }) => {
    lacks = false
    guest.gap(after, before, reason)
  })
  socket.on('message', ({ data }) => {
    if (lacks) guest.wrong('it has not recovered, and was not told why')
    lacks = false
    guest.entry(data.id, data.text)
  })
  for (const name of ['connect_error', 'tailcast:error', 'tailcast:left', 'tailcast:closed']) {
    socket.on(name, (error) => guest.error(`${name} ${error.message ?? JSON.stringify(error)}`))
  }
  // Who is refused comes back only if told to.
  socket.on('connect_error', () => socket.active || setTimeout(() => socket.connect(), BACKOFF_MAX))
}

/** It subscribes behind the last `message-id`, as `resume` says that in headers. */
function stomp(guest, open, resume) {
  const client = new Client({
    webSocketFactory: () => open(client),
    reconnectDelay: BACKOFF,
    maxReconnectDelay: BACKOFF_MAX,
    connectionTimeout: TIMEOUT,
    heartbeatIncoming: TIMEOUT,
    heartbeatOutgoing: TIMEOUT,
    discardWebsocketOnCommFailure: true,
  })
  client.onConnect = () => {
    guest.back()
    client.watchForReceipt('in', ({ headers }) => guest.joined(headers['last-id']))
    const headers = guest.cursor === null ? {} : resume(guest.cursor)
    client.subscribe(`/topic/${room}`, take, { ...headers, receipt: 'in' })
  }
  const take = ({ headers, body }) => {
    const reason = headers['x-gap-reason']
    if (reason) guest.gap(headers['x-gap-after'], headers['x-gap-before'], reason)
    else guest.entry(headers['message-id'], body)
  }
  client.onStompError = ({ headers }) => guest.error(`${headers.code} ${headers.message}`)
  client.onWebSocketError = (error) => guest.error(error.message ?? error.type)
  client.activate()
}

const sockjs = (guest, transport) => () =>
  new SockJS(`http://${guest.host()}/ws`, null, { transports: [transport], timeout: TIMEOUT })

const KINDS = {
  'socket.io websocket'(guest) {
    socketio(guest, ['websocket'], () => `http://${guest.host()}`)
  },
  // Each request goes to another node.
  async 'socket.io polling'(guest) {
    const { url } = await balance(() => ports)
    socketio(guest, ['polling'], () => url)
  },
  async 'socket.io upgrade'(guest) {
    const { url } = await balance(() => ports)
    socketio(guest, ['polling', 'websocket'], () => url)
  },
  stomp(guest) {
    const open = (client) => new WebSocket(`ws://${guest.host()}/stomp`, client.stompVersions.protocolVersions())
    stomp(guest, open, (id) => ({ 'last-id': id }))
  },
  'stomp sockjs websocket'(guest) {
    stomp(guest, sockjs(guest, 'websocket'), (id) => ({ from: id }))
  },
  'stomp sockjs xhr-streaming'(guest) {
    stomp(guest, sockjs(guest, 'xhr-streaming'), (id) => ({ 'x-stream-offset': `offset=${successor(id)}` }))
  },
  // The last URL is for nodes that come later.
  async js(guest) {
    const { url } = await balance(() => ports)
    const urls = [...ports.map((port) => `http://127.0.0.1:${port}`), url]
    const client = connect(urls, {
      WebSocket,
      backoffMin: BACKOFF,
      backoffMax: BACKOFF_MAX,
      connectTimeout: TIMEOUT,
      pingInterval: TIMEOUT,
      pongTimeout: TIMEOUT,
    })
    const here = client.join(room)
    client.on('state', ({ state }) => state === 'open' && guest.back())
    client.on('error', (error) => guest.error(error.message))
    here.on('state', ({ state, error }) => {
      if (state === 'joined') guest.joined(here.cursor)
      if (error) guest.error(error.message)
    })
    here.on('entry', ({ id, fields }) => guest.entry(id, fields.message))
    here.on('gap', ({ after, before, reason }) => guest.gap(after, before, reason))
  },
}

for (const [number, kind] of kinds.entries()) KINDS[kind](new Guest(number))

createInterface({ input: process.stdin })
  .on('line', (line) => {
    ports = read(line)
  })
  .on('close', () => process.exit(0))
