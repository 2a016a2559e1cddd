// One WebSocket client, driven by lines: each event is a line of JSON on stdout, each command one on
// stdin. It ends when the socket has closed, or when stdin has.
//
//   node ws-client.mjs URL [--json] [--cookie VALUE] [--origin VALUE] [--subprotocol NAME]
//
// Events: {"event":"open","subprotocol":"…"}
//         {"event":"frame","text":"…"} or {"event":"frame","base64":"…"}; with --json
//         {"event":"frame","json":{…}} where a frame is JSON
//         {"event":"refused","status":403,"body":"…"}   the upgrade was refused
//         {"event":"error","message":"…"}
//         {"event":"close","code":1000,"reason":"…"}
// Commands: {"send":"text"} {"sendBinary":"base64"} {"pause":true} {"resume":true} {"close":true}
// {"close":4000} {"terminate":true}. Paused, the socket is not read at all, so TCP pushes back.
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { WebSocket } from 'ws'

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    json: { type: 'boolean', default: false },
    cookie: { type: 'string', multiple: true, default: [] },
    origin: { type: 'string' },
    subprotocol: { type: 'string', multiple: true, default: [] },
  },
})
if (positionals.length !== 1) {
  console.error('usage: ws-client.mjs URL [--json] [--cookie VALUE] [--origin VALUE] [--subprotocol NAME]')
  process.exit(2)
}

const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')

// Another's frames must not look like our events, so they are always inside one.
const frame = (data, isBinary) => {
  if (isBinary) return { event: 'frame', base64: data.toString('base64') }
  const text = data.toString()
  if (options.json) {
    try {
      return { event: 'frame', json: JSON.parse(text) }
    } catch {
      // Not JSON after all: shown as it is.
    }
  }
  return { event: 'frame', text }
}

const headers = options.cookie.length > 0 ? { Cookie: options.cookie.join('; ') } : {}
const socket = new WebSocket(positionals[0], options.subprotocol, {
  headers,
  origin: options.origin,
  // As browsers offer it; a server may leave it.
  perMessageDeflate: true,
})
const input = createInterface({ input: process.stdin })

socket.on('open', () => print({ event: 'open', subprotocol: socket.protocol }))
socket.on('message', (data, isBinary) => print(frame(data, isBinary)))
socket.on('error', (error) => print({ event: 'error', message: error.message }))
socket.on('unexpected-response', (_request, response) => {
  const chunks = []
  response.on('data', (chunk) => chunks.push(chunk))
  response.on('end', () => {
    print({ event: 'refused', status: response.statusCode, body: Buffer.concat(chunks).toString() })
    end()
  })
})
socket.on('close', (code, reason) => {
  print({ event: 'close', code, reason: reason.toString() })
  end()
})

// Closing stdin lets node end by itself, once stdout is written out.
function end() {
  input.close()
  process.stdin.destroy()
}

function obey(command) {
  if ('send' in command) socket.send(command.send)
  else if ('sendBinary' in command) socket.send(Buffer.from(command.sendBinary, 'base64'))
  else if (command.pause) socket.pause()
  else if (command.resume) socket.resume()
  else if (command.terminate) socket.terminate()
  else if (command.close === true) socket.close()
  else if (command.close) socket.close(command.close)
  else throw new Error('unknown command')
}

input.on('line', (line) => {
  try {
    obey(JSON.parse(line))
  } catch (error) {
    print({ event: 'error', message: `${line}: ${error.message}` })
  }
})
// The test is gone: so is the client.
input.on('close', () => socket.terminate())
