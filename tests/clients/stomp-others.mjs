// One client of those that speak STOMP beside @stomp/stompjs, driven by lines as stomp-client.mjs is.
// They read frames each in its own way: some end one at the first NUL byte, some take the last of a
// repeated header, some fold its case.
//
//   node stomp-others.mjs webstomp|stompjs2|stompit|stomp-client ws://…|tcp://… DESTINATION [--header NAME=VALUE]…
//
// It connects, subscribes with these headers, and prints what the client gives to its application:
//
//   {"event":"connected"} {"event":"message","headers":{…},"body":"…"}
//   {"event":"receipt","id":"…"} {"event":"error","message":"…"} {"event":"close"}
//
// and takes {"send":"body","headers":{…}}, {"unsubscribe":true} and {"disconnect":true}.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { WebSocket } from 'ws'

const require = createRequire(import.meta.url)
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { header: { type: 'string', multiple: true, default: [] } },
})
const [kind, url, destination] = positionals
const wanted = Object.fromEntries(values.header.map((pair) => pair.split(/=(.*)/s).slice(0, 2)))
const say = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const onMessage = (headers, body) => say({ event: 'message', headers: { ...headers }, body })

// What webstomp-client and stompjs 2.3 have in common: the one was made of the other.
function overWebSocket(client, send) {
  client.debug = () => {}
  let subscription
  client.onreceipt = (frame) => say({ event: 'receipt', id: frame.headers['receipt-id'] })
  client.onreceive = (frame) => onMessage(frame.headers, frame.body)
  const connected = () => {
    say({ event: 'connected' })
    subscription = client.subscribe(destination, (frame) => onMessage(frame.headers, frame.body), wanted)
  }
  const failed = (error) => say({ event: 'error', message: error.body ?? String(error.reason ?? error) })
  client.connect({}, connected, failed)
  return {
    send,
    unsubscribe: () => subscription.unsubscribe({ id: subscription.id, receipt: 'unsubscribed' }),
    disconnect: () => client.disconnect(() => say({ event: 'close' }), {}),
  }
}

function stompit() {
  const { hostname, port } = new URL(url)
  let client, subscription
  require('stompit').connect({ host: hostname, port: Number(port) }, (error, connected) => {
    if (error) return say({ event: 'error', message: error.message })
    client = connected
    client.on('error', (error) => say({ event: 'error', message: error.message }))
    say({ event: 'connected' })
    subscription = client.subscribe({ destination, ...wanted }, (error, message) => {
      if (error) return say({ event: 'error', message: error.message })
      message.readString('utf-8', (error, body) => {
        if (error) say({ event: 'error', message: error.message })
        else onMessage(message.headers, body)
      })
    })
  })
  return {
    send: (body, headers) => {
      const onReceipt = () => say({ event: 'receipt', id: 'sent' })
      client.sendString({ destination, ...headers }, body, { onReceipt })
    },
    unsubscribe: () => subscription.unsubscribe(),
    disconnect: () => client.disconnect((error) => say({ event: error ? 'error' : 'close', message: error?.message })),
  }
}

function stompClient() {
  const { hostname, port } = new URL(url)
  const StompClient = require('stomp-client')
  const client = new StompClient(hostname, Number(port), 'reader', '', '1.1')
  client.on('error', (error) => say({ event: 'error', message: error.message }))
  const onBody = (body, headers) => onMessage(headers, body)
  client.connect(() => {
    say({ event: 'connected' })
    client.subscribe(destination, wanted, onBody)
  })
  return {
    send: (body, headers) => client.publish(destination, body, headers),
    unsubscribe: () => client.unsubscribe(destination, wanted),
    disconnect: () => client.disconnect(() => say({ event: 'close' })),
  }
}

const open = {
  webstomp: () => {
    const client = require('webstomp-client').over(new WebSocket(url), { debug: false })
    return overWebSocket(client, (body, headers) => client.send(destination, body, headers))
  },
  stompjs2: () => {
    const client = require('stompjs').over(new WebSocket(url))
    return overWebSocket(client, (body, headers) => client.send(destination, headers, body))
  },
  stompit,
  'stomp-client': stompClient,
}
const client = open[kind]()
const input = createInterface({ input: process.stdin })
input.on('line', (line) => {
  const command = JSON.parse(line)
  if ('send' in command) client.send(command.send, command.headers ?? {})
  else if (command.unsubscribe) client.unsubscribe()
  else if (command.disconnect) client.disconnect()
})
input.on('close', () => process.exit(0))
