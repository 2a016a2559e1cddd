// What `tsc --strict` has to take from users of the client, and what it has to refuse. It's compiled, never run.
import { connect, isPosition, RefusedError, UnauthorizedError } from 'tailcast-client'
import type { Client, EntryId, ErrorCode, Message, Position, Room } from 'tailcast-client'

const client: Client = connect(['wss://a.example'], { token: () => Promise.resolve('token'), inbox: 'last:5' })
connect('ws://a.example', { token: () => null })
connect('ws://a.example', { WebSocket: globalThis.WebSocket })
// @ts-expect-error: not a constructor
connect('ws://a.example', { WebSocket: 'ws' })
// @ts-expect-error: a function that gives no text
connect('ws://a.example', { token: () => 5 })

// Positions.
const positions: Position[] = ['now', 'start', '1700000000000-0', '1700000000000', 'last:50', 'ago:10m']
for (const from of positions) client.join('lobby', { from, presence: true })
// @ts-expect-error: no position
client.join('lobby', { from: 'yesterday' })
// @ts-expect-error: no unit that there is
client.join('lobby', { from: 'ago:10y' })
// @ts-expect-error: no number
client.join('lobby', { from: 'last:some' })
const kept: string = 'from somewhere'
// @ts-expect-error: any text
client.join('lobby', { from: kept })
if (isPosition(kept)) client.join('lobby', { from: kept })

// Events.
const room: Room = client.join('lobby')
const cursor: EntryId | undefined = room.cursor
client.join('lobby', cursor === undefined ? {} : { from: cursor })
room.on('entry', ({ id, fields }) => [id satisfies EntryId, fields.message])
// @ts-expect-error: there is no such event
room.on('message', () => {})
// @ts-expect-error: it's a room's
client.on('entry', () => {})
room.on('state', (event) => {
  if (event.state === 'refused') event.error.code satisfies ErrorCode
  else event.error satisfies null
  // @ts-expect-error: there is no such state
  return event.state === 'open'
})
client.on('state', (event) => {
  switch (event.state) {
    case 'idle':
      // @ts-expect-error: nothing else is known then
      return event.url
    case 'connecting':
    case 'open':
      return event.url.length
    case 'waiting':
      return event.code + event.retryMs + event.attempt + event.reason.length
    case 'closed':
      return event.error?.message
    default:
      return event satisfies never
  }
})

// Errors.
client.on('error', ({ code }) => {
  if (code === 'origin_not_allowed' || code === 'a code of a later node') return
})
const code: ErrorCode = new RefusedError('forbidden', 'no').code
// @ts-expect-error: a code is text
const number: number = code
void [number, new UnauthorizedError(), new UnauthorizedError('logged out')]

// Messages.
interface Said {
  text: string
  image?: { base64: string }
}
declare const said: Said
declare const wrong: { at: Date }
void room.publish('hello', { signal: AbortSignal.timeout(5) })
void room.publish(said)
void room.publish({ text: 'hello', user: 'x' } as const)
void client.publish('lobby', said)
void client.sendTo('bob', said, { key: 'k', firstSentAt: 5, onFirstSend: (at) => at.toFixed() })
const message: Message = { text: 'hello' }
const own: Message<Said> = said
void [message, own]
// @ts-expect-error: a value is text or {base64}
void room.publish(wrong)
// @ts-expect-error: so are the values of an object written in place
void room.publish({ count: 5 })
// @ts-expect-error: no message
void room.publish(5)
