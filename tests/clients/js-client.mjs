// The JavaScript client of this repository, driven by lines: each event is a line of JSON on stdout,
// each command one on stdin. It ends when stdin does.
//
//   node js-client.mjs --url URL [--url URL] [--room NAME] [--from POSITION] [--user NAME] [--token TOKEN…]
//     [--cut N] [--ping MS]
//
// Events: {"event":"entry","id","text","user"} {"event":"gap",…} {"event":"state","state",…}
//         {"event":"room-state",…} {"event":"presence","users":[…],"count"} {"event":"info",…}
//         {"event":"deleted","ids"} {"event":"reactions","totals"} {"event":"inbox","id","text","user"}
//         {"event":"not-ready","room","code","name","state","error"}
//         {"event":"stored","text","id"} {"event":"refused","text","code"}
// Commands: {"publish":"text"} {"load":ms,"name":"p"} {"stop":true} {"react":"heart"} {"moderate":{…}}
// {"to":"bob","text":"…"} {"history":{…}} {"join":"room"} {"close":true}
//
// With --cut, the connection of every Nth publish is lost once its frame is out and before its ack is
// read, which is when a client can't know whether it's stored.
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { WebSocket } from 'ws'
import { connect } from '../../clients/js/tailcast.js'

const { values } = parseArgs({
  options: {
    url: { type: 'string', multiple: true, default: [] },
    room: { type: 'string', default: 'lobby' },
    from: { type: 'string', default: 'now' },
    user: { type: 'string' },
    token: { type: 'string', multiple: true, default: [] },
    cut: { type: 'string' },
    ping: { type: 'string' },
  },
})

const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')

let sent = 0
let asked = 0

class Cutting extends WebSocket {
  /** The request whose answer, like all later ones, is not read any more. */
  #cut = Infinity

  send(data) {
    super.send(data)
    const { type, ref } = JSON.parse(data)
    if (type !== 'publish' || this.#cut < Infinity) return
    sent += 1
    if (sent % Number(values.cut) !== 0) return
    this.#cut = ref
    // Long enough for the node to store it and to answer.
    setTimeout(() => this.terminate(), 20)
  }

  set onmessage(listener) {
    super.onmessage = (event) => {
      if (!(JSON.parse(event.data).ref >= this.#cut)) listener(event)
    }
  }
}

const client = connect(values.url, {
  WebSocket: values.cut ? Cutting : WebSocket,
  user: values.user,
  // Several are what a function gives, one after the other.
  token: values.token.length > 1 ? () => values.token[Math.min(asked++, values.token.length - 1)] : values.token[0],
  backoffMax: 1_000,
  ...(values.ping ? { pingInterval: Number(values.ping), pongTimeout: Number(values.ping), connectTimeout: 1_000 } : {}),
})
client.on('state', ({ error, ...event }) => print({ event: 'state', ...event, error: error?.code }))
client.on('error', (error) => print({ event: 'error', code: error.code, message: error.message }))

function watch(room) {
  room.on('entry', ({ id, fields }) => print({ event: 'entry', room: room.name, id, text: fields.message, user: fields.user }))
  room.on('gap', (gap) => print({ event: 'gap', ...gap }))
  room.on('deleted', ({ ids }) => print({ event: 'deleted', ids }))
  room.on('presence', ({ members, count }) => print({ event: 'presence', users: [...members.keys()].sort(), count }))
  room.on('reactions', ({ totals }) => print({ event: 'reactions', totals: Object.fromEntries(totals) }))
  room.on('room', (info) => print({ event: 'info', ...info }))
  room.on('state', ({ state, error }) => print({ event: 'room-state', room: room.name, state, code: error?.code }))
}

/** What `ready` says of a room that is never joined. */
function refusals(room) {
  room.ready.catch((error) => {
    print({ event: 'not-ready', room: room.name, code: error.code, name: error.name, state: room.state, error: room.error?.code })
  })
}

const room = client.join(values.room, { from: values.from, presence: true })
watch(room)
refusals(room)
client.inbox.on('entry', ({ id, fields }) => print({ event: 'inbox', id, text: fields.message, user: fields.user }))

const tell = (text, publishing) =>
  publishing.then(
    ({ id }) => print({ event: 'stored', text, id }),
    (error) => print({ event: 'refused', text, code: error.code, retryMs: error.retryMs }),
  )

let load
let number = 0

async function obey(command) {
  if ('publish' in command) tell(command.publish, room.publish(command.publish))
  else if ('to' in command) tell(command.text, client.sendTo(command.to, command.text))
  else if ('load' in command) {
    load = setInterval(() => {
      const text = `${command.name} ${number++}`
      tell(text, room.publish(text))
    }, command.load)
  } else if (command.stop) {
    clearInterval(load)
    print({ event: 'stopped', count: number })
  } else if ('react' in command) room.react(command.react)
  else if ('moderate' in command) print({ event: 'done', ...(await room.moderate(command.moderate)) })
  else if ('history' in command) print({ event: 'history', ...(await room.history(command.history)) })
  else if ('join' in command) {
    const other = client.join(command.join)
    watch(other)
    refusals(other)
  }
  else if (command.close) client.close()
  else throw new Error('unknown command')
}

const input = createInterface({ input: process.stdin })
input.on('line', (line) => {
  obey(JSON.parse(line)).catch((error) => print({ event: 'error', code: error.code, message: error.message }))
})
input.on('close', () => {
  clearInterval(load)
  client.close()
})
