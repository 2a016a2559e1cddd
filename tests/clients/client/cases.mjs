// The JavaScript client in the cases that need no browser, each by its name, at real nodes.
//
//   node cases.mjs CASE URL [TOKEN]
//
// It says {"event":"passed"} or {"event":"failed","message"}, and {"event":"alive"} while it waits.
import assert from 'node:assert/strict'
import { connect as dial, createServer } from 'node:net'
import { WebSocket } from 'ws'
import { AbortedError, RefusedError, TimeoutError, UnauthorizedError, compareIds, connect } from '../../../clients/js/tailcast.js'

const [name, url, token] = process.argv.slice(2)
const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))
const options = { WebSocket, backoffMax: 300 }

async function until(what, holds) {
  const end = Date.now() + 40_000
  while (!holds()) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`)
    await sleep(10)
  }
}

async function post(room, text) {
  const response = await fetch(`${url}/rooms/-?${new URLSearchParams({ room })}`, { method: 'POST', body: text })
  assert.equal(response.status, 201)
  return (await response.json()).id
}

async function stream(room) {
  const response = await fetch(`${url}/rooms/-?${new URLSearchParams({ room, limit: '1000' })}`)
  return (await response.json()).entries.map(({ id, fields }) => [id, fields.message])
}

/** What a room brings: its entries as ID and text. */
function record(room) {
  const got = []
  room.on('entry', ({ id, fields }) => got.push([id, fields.message]))
  room.on('gap', (gap) => got.push(gap))
  return got
}

/** A way to the node: while it's `cut` nobody gets through, while it's `deaf` no answer comes back. */
async function wire() {
  const sockets = new Set()
  const line = { isCut: false, isDeaf: false }
  const server = createServer((near) => {
    if (line.isCut) return near.destroy()
    const far = dial({ host: '127.0.0.1', port: new URL(url).port })
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from)
      from.on('error', () => {})
      from.on('close', () => {
        sockets.delete(from)
        to.destroy()
      })
      from.on('data', (data) => (from === far && line.isDeaf) || to.write(data))
    }
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  line.url = `http://127.0.0.1:${server.address().port}`
  line.cut = () => {
    line.isCut = true
    for (const socket of sockets) socket.destroy()
  }
  line.close = () => {
    line.cut()
    server.close()
  }
  return line
}

const cases = {
  async token() {
    let calls = 0
    const errors = []
    const client = connect(url, {
      ...options,
      connectTimeout: 500,
      token: () => {
        calls += 1
        if (calls === 1) throw new Error('no network')
        if (calls === 2) return Promise.reject(new TypeError('no network'))
        if (calls === 3) return new Promise(() => {})
        return token
      },
    })
    client.on('state', (event) => event.state === 'waiting' && errors.push(event.reason))
    await client.join('lobby').ready
    assert.equal(client.state, 'open')
    assert.match(errors[0], /no network/)
    assert.match(errors[1], /no network/)
    assert.equal(errors.length, 3)
    client.close()
    // Only this ends it, and says so.
    for (const make of [() => new UnauthorizedError('logged out'), () => Object.assign(new Error('logged out'), { code: 'unauthorized' })]) {
      const ended = connect(url, { ...options, token: () => Promise.reject(make()) })
      const room = ended.join('lobby')
      await assert.rejects(room.ready, { code: 'unauthorized', message: /logged out/ })
      assert.equal(ended.state, 'closed')
    }
    // A publish to a room that the token does not grant fails by itself, also where nothing else is connected for.
    const alone = connect(url, { ...options, token, inbox: false })
    await assert.rejects(alone.publish('elsewhere', 'hello'), { code: 'forbidden' })
    assert.notEqual(alone.state, 'closed')
    await alone.join('lobby').ready
    alone.close()
    // What an HTTP request suffers ends nothing.
    const asking = connect(url, { ...options, token: () => Promise.reject(new Error('no network')) })
    await assert.rejects(asking.get('/rooms'), { code: 'token' })
    assert.equal(asking.state, 'idle')
    asking.close()
  },

  async holders() {
    for (let number = 0; number < 5; number++) await post('lobby', `old ${number}`)
    const client = connect(url, { ...options, user: 'ann' })
    const [one, two] = [client.join('lobby'), client.join('lobby', { from: 'now' })]
    assert.notEqual(one, two)
    const [ofOne, ofTwo] = [record(one), record(two)]
    await Promise.all([one.ready, two.ready])
    const first = await post('lobby', 'first')
    await until('both have it', () => ofOne.length + ofTwo.length === 2)
    // Another position is a story of its own, whole and in order, beside the others.
    const whole = client.join('lobby', { from: 'start', presence: true })
    const tail = client.join('lobby', { from: 'last:2' })
    const late = client.join('lobby')
    const [ofWhole, ofTail, ofLate] = [record(whole), record(tail), record(late)]
    const people = []
    whole.on('presence', ({ members }) => people.push(...members.keys()))
    assert.equal(late.state, 'joining')
    await Promise.all([whole.ready, tail.ready, late.ready])
    one.leave()
    assert.equal(one.state, 'left')
    await post('lobby', 'second')
    const all = await stream('lobby')
    await until('all have all', () => ofTwo.length === 2 && ofWhole.length >= 7 && ofTail.length >= 3 && ofLate.length >= 1)
    await until('presence came', () => people.includes('ann'))
    assert.deepEqual(ofOne, [[first, 'first']])
    assert.deepEqual(ofTwo, all.slice(-2))
    assert.deepEqual(ofWhole, all)
    assert.deepEqual(ofTail, all.slice(-3))
    assert.deepEqual(ofLate, all.slice(-1))
    // A holder of a joined room with presence is told who is here, too.
    const again = client.join('lobby', { presence: true })
    const told = []
    again.on('presence', ({ members }) => told.push([...members.keys()]))
    await until('it is told', () => told.length > 0)
    assert.deepEqual(told[0], ['ann'])
    assert.equal(client.rooms.length, 5)
    for (const room of [two, whole, tail, late]) room.leave()
    await post('lobby', 'third')
    await until('the last holder has it', () => again.cursor === undefined || compareIds(again.cursor, all.at(-1)[0]) > 0)
    again.leave()
    assert.equal(client.rooms.length, 0)
    // It can come back, and the socket's own room is no obstacle.
    const back = client.join('lobby', { from: 'last:1' })
    const ofBack = record(back)
    await until('it has the last one', () => ofBack.length === 1)
    assert.equal(ofBack[0][1], 'third')
    client.close()
  },

  async inbox() {
    // Who it is is not known before the node says so; by then its own room has been joined by name.
    const client = connect(url, { ...options, token, inbox: 'last:5' })
    await client.join('lobby').ready
    const own = client.join('@ann', { from: 'now' })
    const [ofOwn, ofInbox] = [record(own), record(client.inbox)]
    await own.ready
    const { id } = await client.sendTo('ann', 'to myself')
    await until('both have it', () => ofOwn.length + ofInbox.length === 2)
    assert.deepEqual([ofOwn[0][0], ofInbox[0][0]], [id, id])
    client.close()
    const other = connect(url, { ...options, token })
    const first = other.join('@ann')
    const [ofFirst, ofOther] = [record(first), record(other.inbox)]
    await first.ready
    await other.inbox.ready
    await other.sendTo('ann', 'again')
    await until('both have it', () => ofFirst.length + ofOther.length === 2)
    other.close()
  },

  async rooms() {
    let sockets = 0
    class Counted extends WebSocket {
      constructor(...all) {
        super(...all)
        sockets += 1
      }
    }
    const client = connect(url, { ...options, WebSocket: Counted, user: 'ann' })
    client.on('error', (error) => assert.fail(error))
    const rooms = Array.from({ length: 300 }, (_, number) => client.join(`room-${number}`))
    const got = rooms.map(record)
    await Promise.all(rooms.map(({ ready }) => ready))
    assert.equal(sockets, 3, 'as few sockets as a node allows')
    for (let number = 0; number < 300; number++) await rooms[number].publish(`to ${number}`)
    await until('all have theirs', () => got.every((entries) => entries.length === 1))
    got.forEach(([[, text]], number) => assert.equal(text, `to ${number}`))
    // Places that are free again are used.
    for (const room of rooms.slice(0, 10)) room.leave()
    await Promise.all(Array.from({ length: 10 }, (_, number) => client.join(`other-${number}`).ready))
    assert.equal(sockets, 3)
    // The first socket may be done without: another one takes its part.
    for (const room of client.rooms.slice(0, 250)) room.leave()
    assert.equal(client.state, 'open')
    const { id } = await client.sendTo('ann', 'still there')
    await until('the inbox brings it', () => client.inbox.cursor === id)
    client.close()
  },

  async dots() {
    const client = connect(url, { ...options, user: 'ann' })
    for (const name of ['.', '..', '-', 'a/../b']) {
      const room = client.join(name, { presence: true })
      await room.ready
      const { id } = await room.publish('dotted')
      assert.deepEqual((await room.history()).entries.map((entry) => entry.id), [id], name)
      assert.deepEqual((await client.history(name)).entries.map((entry) => entry.id), [id], name)
      let count = 0
      await until('it is present', () => {
        client.presence(name).then((presence) => (count = presence.count))
        return count === 1
      })
      room.leave()
    }
    for (const path of ['/rooms/..', '/rooms/%2E%2e/presence', '/./me']) await assert.rejects(client.get(path), { code: 'bad_path' })
    client.close()
  },

  async offline() {
    const line = await wire()
    line.cut()
    const client = connect(line.url, { ...options, user: 'ann', publishTimeout: 1_500, requestTimeout: 300, queueMax: 5 })
    const room = client.join('lobby')
    const sent = []
    let isOver = false
    const publishing = room.publish('patient', { onFirstSend: (at) => sent.push(at) }).finally(() => (isOver = true))
    publishing.catch(() => {})
    // What does not wait says that it was never sent.
    await assert.rejects(room.moderate({ act: 'close' }), { code: 'offline', sent: false })
    const giveUp = new AbortController()
    const given = room.publish('given up', { signal: giveUp.signal })
    giveUp.abort(new Error('no more'))
    await assert.rejects(given, (error) => error instanceof AbortedError && error.sent === false && error.cause.message === 'no more')
    await assert.rejects(room.publish('never', { signal: AbortSignal.abort() }), { code: 'aborted' })
    await assert.rejects(room.publish({ at: 5n }), TypeError)
    const others = Array.from({ length: 4 }, (_, number) => room.publish(`more ${number}`))
    await assert.rejects(room.publish('too much'), { code: 'queue_full' })
    // Longer than a publish may take once it's sent.
    await sleep(2_000)
    assert.equal(isOver, false)
    assert.deepEqual(sent, [])
    line.isCut = false
    const { id } = await publishing
    await Promise.all(others)
    assert.equal(sent.length, 1)
    assert.deepEqual((await stream('lobby')).map(([, text]) => text), ['patient', 'more 0', 'more 1', 'more 2', 'more 3'])
    // From the first sending on, time runs; and under its key it's stored once.
    line.isDeaf = true
    const before = Date.now()
    const lost = await room.publish('unheard').catch((error) => error)
    assert(lost instanceof TimeoutError && lost.sent && lost.key, String(lost))
    assert(Date.now() - before >= 1_400)
    line.isDeaf = false
    line.cut()
    line.isCut = false
    const repeated = await room.publish('unheard', { key: lost.key, firstSentAt: before })
    assert.deepEqual((await stream('lobby')).slice(5), [[repeated.id, 'unheard']])
    assert.equal(repeated.id > id, true)
    // Too late to be sure of that, it's not sent.
    await assert.rejects(room.publish('unheard', { key: lost.key, firstSentAt: Date.now() - 240_000 }), { code: 'timeout', sent: true })
    assert.equal((await stream('lobby')).length, 6)
    client.close()
    line.close()
    // To a user alone, without any room or inbox.
    const plain = connect(url, { ...options, inbox: false })
    const words = await plain.sendTo('bob', 'hello')
    assert.equal(words.room, '@bob')
    plain.close()
  },

  async words() {
    const client = connect(url, { ...options, inbox: false })
    const room = client.join('lobby')
    assert.throws(() => room.on('message', () => {}), { name: 'TypeError', message: /no event 'message'; there are entry, gap, presence/ })
    assert.throws(() => room.off('constructor', () => {}), TypeError)
    assert.throws(() => client.on('entry', () => {}), { message: /there are state, user, error/ })
    assert.throws(() => room.on('entry'), TypeError)
    for (const bad of ['', 5, undefined, 'a\u0000', '\ud800', 'tailcast:x', 'é'.repeat(129)]) assert.throws(() => client.join(bad), RefusedError)
    assert.throws(() => client.join('lobby', { from: 'yesterday' }), { code: 'bad_from' })
    const known = globalThis.WebSocket
    delete globalThis.WebSocket
    assert.throws(() => connect(url), { message: /no WebSocket here.*npm|no WebSocket here.*package ws/ })
    if (known) globalThis.WebSocket = known
    client.close()
  },
}

const alive = setInterval(() => print({ event: 'alive' }), 5_000)
cases[name]().then(
  () => print({ event: 'passed' }),
  (error) => print({ event: 'failed', message: error.stack }),
).finally(() => {
  clearInterval(alive)
  process.exit()
})
