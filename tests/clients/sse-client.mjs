// One server-sent-events client: each event is a line of JSON on stdout. It ends when stdin does.
//
//   node sse-client.mjs URL [--last-event-id ID] [--once]
//
//   {"event":"open"}
//   {"id":"1-0","event":"message","data":"…"}   also for "gap", and whatever else the server names
//   {"event":"error","status":503,"message":"…"}   the client reconnects by itself after it
//
// --last-event-id is sent with the first request; later ones send what came last, as browsers do.
// With --once it ends at the first error instead of reconnecting.
import { parseArgs } from 'node:util'
import { EventSource } from 'eventsource'

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    'last-event-id': { type: 'string' },
    once: { type: 'boolean', default: false },
  },
})
if (positionals.length !== 1) {
  console.error('usage: sse-client.mjs URL [--last-event-id ID] [--once]')
  process.exit(2)
}

const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')
let first = true

const source = new EventSource(positionals[0], {
  fetch: (url, init) => {
    const headers = { ...init.headers }
    if (first && options['last-event-id'] !== undefined) {
      headers['Last-Event-ID'] = options['last-event-id']
    }
    first = false
    return fetch(url, { ...init, headers })
  },
})

source.addEventListener('open', () => print({ event: 'open' }))
for (const name of ['message', 'gap']) {
  source.addEventListener(name, (event) =>
    print({ id: event.lastEventId, event: name, data: event.data }),
  )
}
source.addEventListener('error', (error) => {
  // A server that names an event "error" would come here, too; that one has data.
  if (error.data !== undefined) {
    print({ id: error.lastEventId, event: 'error', data: error.data })
    return
  }
  print({ event: 'error', status: error.code, message: error.message })
  if (options.once || source.readyState === EventSource.CLOSED) end()
})

function end() {
  source.close()
  process.stdin.destroy()
}

process.stdin.on('end', end)
process.stdin.resume()
