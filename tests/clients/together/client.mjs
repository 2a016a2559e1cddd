// One published client in one room, driven by lines: what it gets is a line of JSON on stdout, what
// it's to publish one on stdin.
//
//   node client.mjs KIND URL ROOM      KIND: ws, eventsource, socketio, stomp, js; URL: http://…
//
// Prints: {"event":"joined"}, {"event":"entry","id":"…","text":"…"}, {"event":"stored","text":"…"},
// {"event":"error","message":"…"}.
import { createInterface } from 'node:readline'

const [kind, url, room] = process.argv.slice(2)
const socketUrl = url.replace(/^http/, 'ws')
const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const fail = (error) => print({ event: 'error', message: String(error?.message ?? error) })
const joined = () => print({ event: 'joined' })
const entry = (id, text) => print({ event: 'entry', id, text })
const stored = (text) => print({ event: 'stored', text })

// Each takes to a room, and gives the way to publish there.
const KINDS = {
  async ws() {
    const { WebSocket } = await import('ws')
    const socket = new WebSocket(`${socketUrl}/rooms/${room}`, 'tailcast.json')
    socket.on('error', fail)
    socket.on('message', (data) => {
      const frame = JSON.parse(data)
      if (frame.type === 'joined') joined()
      if (frame.type === 'entry') entry(frame.id, frame.fields.message)
      if (frame.type === 'ack') stored(frame.ref)
      if (frame.type === 'error' || frame.type === 'gap') fail(JSON.stringify(frame))
    })
    return (text) => socket.send(JSON.stringify({ type: 'publish', message: text, ref: text }))
  },

  async eventsource() {
    const { EventSource } = await import('eventsource')
    const source = new EventSource(`${url}/rooms/${room}`)
    source.onerror = (error) => fail(error)
    source.onopen = joined
    source.onmessage = ({ data, lastEventId }) => entry(lastEventId, JSON.parse(data).fields.message)
    let before = Promise.resolve()
    return (text) => {
      before = before.then(async () => {
        const answer = await fetch(`${url}/rooms/${room}`, { method: 'POST', body: text })
        answer.ok ? stored(text) : fail(await answer.text())
      })
    }
  },

  async socketio() {
    const { io } = await import('socket.io-client')
    const socket = io(url, { query: { roomid: room } })
    socket.on('connect_error', fail)
    // The first thing after the connect, and it says where it was joined.
    socket.onAny((name) => name.startsWith('tailcast:') && name !== 'tailcast:gap' && once())
    const once = () => void (socket.seen ||= (joined(), true))
    socket.on('tailcast:gap', (gap) => fail(JSON.stringify(gap)))
    socket.on('message', ({ data }) => entry(data.id, data.text))
    return (text) => socket.emit('say', text, (id) => (typeof id === 'string' ? stored(text) : fail(JSON.stringify(id))))
  },

  async stomp() {
    const { Client } = await import('@stomp/stompjs')
    const { default: SockJS } = await import('sockjs-client')
    const client = new Client({ webSocketFactory: () => new SockJS(`${url}/ws`) })
    client.onStompError = (frame) => fail(frame.headers.message)
    client.onWebSocketError = fail
    client.onConnect = () => {
      client.watchForReceipt('in', joined)
      client.subscribe(`/topic/${room}`, ({ headers, body }) => entry(headers['message-id'], body), { receipt: 'in' })
    }
    client.activate()
    let number = 0
    return (text) => {
      const receipt = `r${number++}`
      client.watchForReceipt(receipt, () => stored(text))
      client.publish({ destination: `/topic/${room}`, body: text, headers: { receipt } })
    }
  },

  async js() {
    const { connect } = await import('../../../clients/js/tailcast.js')
    const { WebSocket } = await import('ws')
    const client = connect(url, { WebSocket })
    const here = client.join(room)
    here.on('entry', ({ id, fields }) => entry(id, fields.message))
    here.on('gap', (gap) => fail(JSON.stringify(gap)))
    here.on('state', ({ state, error }) => (state === 'joined' ? joined() : error && fail(error)))
    return (text) => here.publish(text).then(() => stored(text), fail)
  },
}

const publish = await KINDS[kind]()
const input = createInterface({ input: process.stdin })
input.on('line', (line) => publish(line))
// The test is gone: so is the client.
input.on('close', () => process.exit(0))
