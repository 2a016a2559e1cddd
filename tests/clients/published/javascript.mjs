// One published client in one room, for ../published.mjs. It comes back after a lost connection and goes on
// behind the last entry ID it has, by its own reconnecting if it has one, else by a new connection.
//
//   node javascript.mjs --list                     the clients, as JSON lines {"client","version","protocol","comes"}
//   node javascript.mjs CLIENT ROOM PORT STOMP     ports of HTTP and of bare STOMP
//
// It prints {"id","text"} for each entry, {"lost":true} for each broken connection and {"wrong":"…"} for a
// broken promise. Each line on stdin is published by the client. It ends when stdin does.
import { execFileSync, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { Client } from '@stomp/stompjs'
import SockJS from 'sockjs-client'
import { io as io4 } from 'socket.io-client'
import io3 from 'socket.io-client-v3'
import { WebSocket } from 'ws'
import { connect } from '../../../clients/js/tailcast.js'

const require = createRequire(import.meta.url)
const [name, room, port, stompPort] = process.argv.slice(2)
const base = `http://127.0.0.1:${port}`
const RETRY = 100

const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const wrong = (text) => print({ wrong: String(text) })
let last
function got(id, text) {
  if (!id) return wrong(`an entry without an ID: ${text}`)
  last = id
  print({ id, text })
}

/** Calls `open` now, and again whenever the connection that it opened is lost. */
function again(open) {
  let isOver = false
  const lost = () => {
    if (isOver) return
    isOver = true
    print({ lost: true })
    setTimeout(() => again(open), RETRY)
  }
  open(lost)
}

async function post(text) {
  const headers = { 'Content-Type': 'text/plain' }
  const response = await fetch(`${base}/rooms/${room}`, { method: 'POST', headers, body: text })
  if (response.status !== 201) wrong(`POST answers ${response.status}: ${await response.text()}`)
}

/** What a JSON socket is told, and what an event stream calls `joined`, `message` and `gap`. */
function told(frame) {
  if (frame.type === 'entry') got(frame.id, frame.fields.message)
  else if (frame.type === 'gap' || frame.type === 'error') wrong(JSON.stringify(frame))
}
const socketUrl = () => `ws://127.0.0.1:${port}/rooms/${room}?format=json&from=${last ?? 'start'}`
const publishing = (text) => JSON.stringify({ type: 'publish', message: text })

function ws() {
  let socket
  again((lost) => {
    socket = new WebSocket(socketUrl())
    socket.on('message', (data) => told(JSON.parse(data)))
    socket.on('error', lost)
    socket.on('close', lost)
  })
  return (text) => socket.send(publishing(text))
}

function wscat() {
  let child
  again((lost) => {
    const path = fileURLToPath(new URL('../node_modules/.bin/wscat', import.meta.url))
    child = spawn(path, ['--connect', socketUrl()], { stdio: ['pipe', 'pipe', 'ignore'] })
    // It may print a prompt in front.
    createInterface({ input: child.stdout }).on('line', (line) => told(JSON.parse(line.replace(/^(> )+/, ''))))
    child.stdin.on('error', () => {})
    child.on('exit', lost)
  })
  return (text) => child.stdin.write(publishing(text) + '\n')
}

/** Browsers' own interface: it reconnects by itself, and sends `Last-Event-ID`. */
async function eventSource(module) {
  // The polyfill tells the console of each break.
  console.error = () => {}
  const { default: other, ...loaded } = await import(module)
  const EventSource = loaded.EventSourcePolyfill ?? other?.EventSourcePolyfill ?? loaded.EventSource ?? other
  const source = new EventSource(`${base}/rooms/${room}?from=start`)
  source.addEventListener('message', ({ lastEventId, data }) => got(lastEventId, JSON.parse(data).fields.message))
  source.addEventListener('gap', ({ data }) => wrong(data))
  source.addEventListener('error', ({ data }) => (data ? wrong(data) : print({ lost: true })))
  return post
}

function curl() {
  again((lost) => {
    const headers = ['-H', 'Accept: text/event-stream', ...(last ? ['-H', `Last-Event-ID: ${last}`] : [])]
    const child = spawn('curl', ['-sN', ...headers, `${base}/rooms/${room}?from=start`])
    let event = {}
    createInterface({ input: child.stdout }).on('line', (line) => {
      const [, field, value] = /^(\w*): ?(.*)$/.exec(line) ?? []
      if (field) event[field] = value
      if (line !== '') return
      if (event.event === undefined && event.data) got(event.id, JSON.parse(event.data).fields.message)
      else if (event.event === 'gap' || event.event === 'error') wrong(event.data)
      event = {}
    })
    child.on('exit', lost)
  })
  return (text) => {
    const child = spawn('curl', ['-sf', '--data-binary', '@-', '-H', 'Content-Type: text/plain', `${base}/rooms/${room}`])
    child.on('exit', (code) => code === 0 || wrong(`curl ends with ${code}`))
    child.stdin.end(text)
  }
}

function own() {
  const client = connect([base], { WebSocket, backoffMax: 500 })
  const here = client.join(room, { from: 'start' })
  here.on('entry', ({ id, fields }) => got(id, fields.message))
  here.on('gap', (gap) => wrong(JSON.stringify(gap)))
  client.on('error', ({ message }) => wrong(message))
  client.on('state', ({ state }) => state === 'open' || print({ lost: true }))
  return (text) => here.publish(text).catch(wrong)
}

/** From 4.6 on the client recovers; an older one says in `auth` where it was. */
function socketio(io, recovers, transports) {
  let isFirst = true
  const socket = io(base, {
    transports,
    auth: (done) => done({ room, from: last ?? 'start' }),
    reconnectionDelay: RETRY,
    reconnectionDelayMax: 500,
    forceNew: true,
  })
  socket.on('connect', () => {
    if (!isFirst && recovers && !socket.recovered) wrong('it has not recovered')
    isFirst = false
  })
  socket.on('disconnect', () => print({ lost: true }))
  socket.on('message', ({ data }) => got(data.id, data.text))
  for (const name of ['tailcast:gap', 'tailcast:error', 'tailcast:left', 'tailcast:closed']) {
    socket.on(name, (about) => wrong(`${name} ${JSON.stringify(about)}`))
  }
  return (text) => socket.emit('say', text)
}

const destination = `/topic/${room}`
const position = () => (last ? { 'last-id': last } : { from: 'start' })
function message(headers, body) {
  if (headers['x-gap-reason']) wrong(body)
  else got(headers['message-id'], body)
}

function stompjs(open) {
  const client = new Client({ webSocketFactory: () => open(client), reconnectDelay: RETRY, maxReconnectDelay: 500 })
  client.onConnect = () => client.subscribe(destination, ({ headers, body }) => message(headers, body), position())
  client.onStompError = ({ headers }) => wrong(headers.message)
  client.onWebSocketClose = () => print({ lost: true })
  client.activate()
  return (body) => client.publish({ destination, body })
}

/** stompjs 2.3 and webstomp-client, which was made of it. */
function olderStomp(over, send) {
  let client
  again((lost) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/stomp`)
    // These clients set no `onerror`, and an error that nobody listens for ends the process.
    socket.on('error', () => {})
    client = over(socket)
    client.debug = () => {}
    const connected = () => client.subscribe(destination, ({ headers, body }) => message(headers, body), position())
    client.connect({}, connected, (error) => (error.command ? wrong(error.headers.message) : lost()))
  })
  return (text) => send(client, text)
}

function stompit() {
  let client
  again((lost) => {
    require('stompit').connect({ host: '127.0.0.1', port: Number(stompPort) }, (error, connected) => {
      if (error) return lost()
      client = connected
      client.on('error', lost)
      client.subscribe({ destination, ...position() }, (error, frame) => {
        if (error) return lost()
        frame.readString('utf-8', (error, body) => (error ? lost() : message(frame.headers, body)))
      })
    })
  })
  return (text) => client.sendString({ destination }, text)
}

function stompClient() {
  const StompClient = require('stomp-client')
  let client
  again((lost) => {
    client = new StompClient('127.0.0.1', Number(stompPort), 'reader', '', '1.1')
    client.on('error', lost)
    client.connect(() => client.subscribe(destination, position(), (body, headers) => message(headers, body)))
  })
  return (text) => client.publish(destination, text)
}

const sockjs = (transport) => () => stompjs(() => new SockJS(`${base}/ws`, null, { transports: [transport] }))
const overWs = (client) => new WebSocket(`ws://127.0.0.1:${port}/stomp`, client.stompVersions.protocolVersions())

const [itself, anew] = ['itself', 'new connection']
/** Client, package, protocol, how it comes back, and what opens it and gives what publishes. */
const CLIENTS = [
  ['ws', 'ws', 'WebSocket', anew, ws],
  ['wscat', 'wscat', 'WebSocket', anew, wscat],
  ['clients/js', null, 'WebSocket', itself, own],
  ['eventsource 2', 'eventsource-v2', 'SSE', itself, () => eventSource('eventsource-v2')],
  ['eventsource 3', 'eventsource', 'SSE', itself, () => eventSource('eventsource')],
  ['eventsource 4', 'eventsource-v4', 'SSE', itself, () => eventSource('eventsource-v4')],
  ['event-source-polyfill', 'event-source-polyfill', 'SSE', itself, () => eventSource('event-source-polyfill')],
  ['curl', null, 'SSE', anew, curl],
  ...['websocket', 'polling', 'polling,websocket'].flatMap((transports) => [
    [`socket.io-client 4 ${transports}`, 'socket.io-client', 'Socket.IO', itself, () => socketio(io4, true, transports.split(','))],
    [`socket.io-client 3 ${transports}`, 'socket.io-client-v3', 'Socket.IO', itself, () => socketio(io3, false, transports.split(','))],
  ]),
  ['@stomp/stompjs', '@stomp/stompjs', 'STOMP, WebSocket', itself, () => stompjs(overWs)],
  ['stompjs', 'stompjs', 'STOMP, WebSocket', anew, () => olderStomp((socket) => require('stompjs').over(socket), (client, text) => client.send(destination, {}, text))],
  ['webstomp-client', 'webstomp-client', 'STOMP, WebSocket', anew, () => olderStomp((socket) => require('webstomp-client').over(socket, { debug: false }), (client, text) => client.send(destination, text))],
  ['stompit', 'stompit', 'STOMP, TCP', anew, stompit],
  ['stomp-client', 'stomp-client', 'STOMP, TCP', anew, stompClient],
  ...['websocket', 'xhr-streaming', 'xhr-polling', 'eventsource'].map((transport) => [
    `sockjs-client ${transport}`, 'sockjs-client', 'STOMP, SockJS', itself, sockjs(transport),
  ]),
]

function version(client, from) {
  if (client === 'curl') return execFileSync('curl', ['--version']).toString().split(' ')[1]
  const path = from === null ? '../../../clients/js/package.json' : `../node_modules/${from}/package.json`
  return JSON.parse(readFileSync(new URL(path, import.meta.url))).version
}

if (name === '--list') {
  for (const [client, from, protocol, comes] of CLIENTS) print({ client, version: version(client, from), protocol, comes })
} else {
  const publish = await CLIENTS.find(([client]) => client === name)[4]()
  createInterface({ input: process.stdin })
    .on('line', (text) => publish(text))
    .on('close', () => process.exit(0))
}
