// A client for tailcast, over its JSON WebSocket format (CONTRACT.md). No dependency; for browsers, and
// for Node with the global WebSocket (Node 22 or later) or with the package `ws`.
//
// What it promises to a listener: the IDs of one room strictly increase, and no entry lies between two
// of them unless a `gap` said so in that place, over any number of reconnects and nodes. What it promises
// to a publisher: each publish has an idempotency key and is repeated until it is answered, so that it's
// stored once.
//
// The classes, from the outside in: `Client` (rooms, requests, HTTP); `Room`, which `join` returns (one
// holder of a channel); `Channel` (a room from one position on, shared by its holders); `Link` (one socket
// and the channels on it). A socket can be in a room once, and in as many rooms as the node lets it
// (`--max-rooms`). A channel that finds no place on the sockets there are gets another socket.

const SUBPROTOCOL = 'tailcast.json'

/** Frames sent per second, and at once; a tenth of what a node reads without slowing down (`--frame-rate`). */
const FRAMES_PER_SECOND = 100
const FRAMES_AT_ONCE = 50

/** Requests that wait for an answer at a time; half of a node's `--max-in-flight`. */
const IN_FLIGHT = 32

/**
 * How long a publish may be repeated after it was sent first, in ms. A node remembers an idempotency key for
 * 5 minutes (`--idempotency-window`): a later repeat could be stored twice.
 */
const REPEAT_MAX = 240_000

/** Connections in a row that end with one of the codes of `DOUBTFUL_CODES` before the client gives up. */
const DOUBTS_MAX = 3

/** Tokens in a row that a node may refuse before the client gives up, if a function gives them. */
const TOKENS_MAX = 3

const DEFAULTS = {
  backoffMin: 200,
  backoffMax: 15_000,
  connectTimeout: 10_000,
  pingInterval: 20_000,
  pongTimeout: 10_000,
  publishTimeout: 60_000,
  requestTimeout: 30_000,
  queueMax: 1_000,
  queueBytesMax: 4_194_304,
}

/** Close codes by which a node says that another connection can't help: CONTRACT.md's table. */
const FINAL_CODES = new Set([1008, 4400])

/** Close codes that say the same, but that a broken proxy can cause as well: one alone does not count. */
const DOUBTFUL_CODES = new Set([1002, 1003, 1007, 1009, 1010])

/** Refusals that pass: the publish is repeated under its key. */
const PASSING_CODES = new Set(['redis_unavailable', 'redis_loading', 'redis_read_only', 'busy', 'unknown_outcome'])

/** What a room and a client tell of. */
const ROOM_EVENTS = ['entry', 'gap', 'presence', 'reactions', 'room', 'deleted', 'ephemeral', 'moderated', 'state']
const CLIENT_EVENTS = ['state', 'user', 'error']

/** What can go wrong. `code` is a word for programs: the node's own, or one of this client's (tailcast.d.ts). */
export class TailcastError extends Error {
  constructor(code, message, { retryMs, room, status, key, sent, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause })
    this.name = new.target.name
    this.code = code
    this.retryMs = retryMs
    this.room = room
    this.status = status
    this.key = key
    this.sent = sent
  }
}

/** A node said no. `retryMs` is there where it makes sense to wait. */
export class RefusedError extends TailcastError {}

/** The client was closed, or was sent away for good, before there was an answer. */
export class ClosedError extends TailcastError {}

/** A publish was aborted by its signal. If `sent` is true, it may have been stored. */
export class AbortedError extends TailcastError {}

/** To be thrown by a `token` function: there is no token, and asking again will not help. It ends the client. */
export class UnauthorizedError extends TailcastError {
  constructor(message = 'there is no token for this user') {
    super('unauthorized', message)
  }
}

/** No answer in time. A publish may have been stored; repeat it under its key to find out. */
export class TimeoutError extends TailcastError {
  constructor(message, details) {
    super('timeout', message, details)
  }
}

/** Orders two entry IDs: negative if `a` is the earlier one. */
export function compareIds(a, b) {
  const [aTime, aSeq = '0'] = a.split('-')
  const [bTime, bSeq = '0'] = b.split('-')
  return compareNumbers(aTime, bTime) || compareNumbers(aSeq, bSeq)
}

/** When an entry was stored, by its ID: Unix milliseconds. */
export function timeOf(id) {
  return Number(id.split('-', 1)[0])
}

/** Whether a text can be the `from` of a room. */
export function isPosition(text) {
  return typeof text === 'string' && /^(now|start|\d+(-\d+)?|last:\d+|ago:\d+[smhd])$/.test(text)
}

/** Numbers without leading zeros, which may be larger than a JavaScript number is exact. */
function compareNumbers(a, b) {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0)
}

/** The largest ID below this one: what follows it begins with `id`. */
function predecessor(id) {
  const [time, seq = '0'] = id.split('-')
  if (BigInt(seq) > 0n) return `${time}-${BigInt(seq) - 1n}`
  return BigInt(time) > 0n ? `${BigInt(time) - 1n}-18446744073709551615` : '0-0'
}

/** Makes a client. It connects as soon as a room is joined, or at once where `user` is given. */
export function connect(urls, options = {}) {
  return new Client(urls, options)
}

class Emitter {
  #listeners = new Map()

  constructor(names) {
    for (const name of names) this.#listeners.set(name, [])
  }

  /** Calls `listener` with each event of that name; returns a function that ends it. */
  on(name, listener) {
    const listeners = this.#of(name)
    if (typeof listener !== 'function') throw new TypeError(`on('${name}'): give a function`)
    this.#listeners.set(name, [...listeners, listener])
    return () => this.off(name, listener)
  }

  off(name, listener) {
    this.#listeners.set(name, this.#of(name).filter((other) => other !== listener))
  }

  #of(name) {
    const listeners = this.#listeners.get(name)
    if (listeners) return listeners
    throw new TypeError(`there is no event '${String(name)}'; there are ${[...this.#listeners.keys()].join(', ')}`)
  }

  /** Calls the listeners in order. A listener that throws must not keep the others, or the next frame, from going on. */
  _emit(name, event) {
    for (const listener of this.#of(name)) {
      try {
        listener(event)
      } catch (error) {
        queueMicrotask(() => {
          throw error
        })
      }
    }
  }
}

/**
 * What `join` returns: one holder of a channel. Each holder has its own listeners, state and end; what the room
 * is like belongs to the channel.
 */
class Room extends Emitter {
  /** `joining`, `joined`, `refused` or `left`. */
  state = 'joining'
  /** Why it was refused. */
  error = null
  /** Resolves with the room once it's joined for the first time; rejects if it's refused. */
  ready

  #client
  #channel
  #ready

  constructor(client, channel) {
    super(ROOM_EVENTS)
    this.#client = client
    this.#channel = channel
    this.ready = new Promise((resolve, reject) => {
      this.#ready = { resolve, reject }
    })
    this.ready.catch(() => {})
    channel.add(this)
  }

  /** The room's name. The inbox has none before it's known who the user is. */
  get name() {
    return this.#channel.name
  }

  /** The ID to resume from: of the last entry that came, or where the room began. */
  get cursor() {
    return this.#channel.cursor
  }

  /** Who is here, by user, if `presence` was asked for and the room is not too large. */
  get members() {
    return this.#channel.members
  }

  /** How many are here. */
  get count() {
    return this.#channel.count
  }

  /** How often each reaction was given. */
  get reactions() {
    return this.#channel.reactions
  }

  /** How the room stands. */
  get info() {
    return this.#channel.info
  }

  /** Publishes text or fields: `{id, room}` once it's stored. */
  publish(message, options) {
    return this.#client._publish({ room: this.name }, message, options)
  }

  /** Gives a reaction. It counts if there is a connection, and is not repeated. */
  react(reaction) {
    this.#client._now({ type: 'react', room: this.name, reaction })
  }

  /** An act of moderation, as `{act: 'timeout', user: 'bob', seconds: 60}`. */
  moderate(act) {
    return this.#client._request({ type: 'moderate', room: this.name, ...act })
  }

  /** A page of history, oldest first; `next` goes on where it ends, in the direction that was asked for. */
  async history(query) {
    if (this.name === null) throw new TailcastError('offline', 'it is not known yet whose inbox this is')
    return this.#client.history(this.name, query)
  }

  /** Leaves; other holders of the same room stay. The object can't be used again; join anew. */
  leave() {
    if (this.state === 'left') return
    this._to('left')
    this.#channel.remove(this)
    if (this.#channel.isUnheld) this.#client._leave(this.#channel)
  }

  _to(state, error = null) {
    if (this.state === state && error === null) return
    this.state = state
    this.error = error
    if (state === 'joined') this.#ready.resolve(this)
    if (state === 'refused') this.#ready.reject(error)
    if (state === 'left') this.#ready.reject(new ClosedError('closed', 'the room was left', { room: this.name }))
    this._emit('state', { state, error })
  }

  /** Comes to a channel that is joined already: is told what the others were told when they joined. */
  _catchUp() {
    const channel = this.#channel
    if (this.state !== 'joining' || channel.state !== 'joined') return
    this._to('joined')
    if (channel.isSpecial) this._emit('room', channel.info)
    if (!channel.presence || !channel.isCounted) return
    const { name: room, members, count } = channel
    this._emit('presence', { members, count, join: [...members.values()], leave: [], room })
  }

  /** Tells its listeners, unless one of another holder's has made it leave just now. */
  _take(name, event) {
    if (this.state !== 'left') this._emit(name, event)
  }
}

/** A room from one position on, on one socket. Its holders get the same events. */
class Channel {
  state = 'joining'
  cursor
  members = new Map()
  count = 0
  reactions = new Map()
  info = { closed: false, slow: 0, pin: null, announcement: null, topic: null, properties: {} }
  /** Whether the node has said who is here. */
  isCounted = false
  /** The socket that it's on. */
  link = null

  #holders = new Set()
  #wasJoined = false
  #resetting

  constructor(name, { from = 'now', presence = false } = {}) {
    this.name = name
    this.from = from
    this.presence = presence
    if (typeof from === 'string' && /^\d+-\d+$/.test(from)) this.cursor = from
  }

  add(room) {
    this.#holders.add(room)
    if (this.state === 'joined') queueMicrotask(() => room._catchUp())
  }

  remove(room) {
    this.#holders.delete(room)
  }

  get holders() {
    return [...this.#holders]
  }

  get isUnheld() {
    return this.#holders.size === 0
  }

  /** Whether a holder that asks for this gets it here. Without a `from`, it takes what comes from now on. */
  suits(from, presence) {
    if (this.state === 'refused' || (presence && !this.presence)) return false
    const isSame = from === this.from && (from === 'now' || !this.#wasJoined)
    return from === undefined || isSame || from === this.cursor
  }

  /** Where the next join begins. */
  get position() {
    return this.cursor ?? this.from
  }

  /** Whether it stands otherwise than rooms do at first. */
  get isSpecial() {
    const { closed, slow, pin, announcement, topic, properties } = this.info
    return Boolean(closed || slow || pin || announcement || topic || Object.keys(properties).length > 0)
  }

  to(state, error = null) {
    if (state !== 'joined') clearTimeout(this.#resetting)
    this.state = state
    for (const room of this.holders) room._to(state, error)
  }

  /** Tells its holders; a holder that is added meanwhile is told of the next event on. */
  _emit(name, event) {
    for (const room of this.holders) room._take(name, event)
  }

  onJoined(head) {
    this.cursor ??= head
    this.#wasJoined = true
    this.reactions.clear()
    this.to('joined')
    // A node says how the room stands right after. Of a room that stands as rooms do at first, it says nothing.
    if (!this.isSpecial) return
    clearTimeout(this.#resetting)
    this.#resetting = setTimeout(() => this.#onInfo({ topic: null, properties: {} }), 1_000)
  }

  onFrame(frame) {
    if (this.state !== 'joined') return
    for (const room of this.holders) room._catchUp()
    switch (frame.type) {
      case 'entry':
        // Never again, nor out of order, whatever comes.
        if (this.cursor !== undefined && compareIds(frame.id, this.cursor) <= 0) return
        this.cursor = frame.id
        this._emit('entry', { id: frame.id, fields: frame.fields, room: this.name })
        return
      case 'gap':
        // What follows begins with `before`; in a stream begun anew that can be lower than what was.
        this.cursor = predecessor(frame.before)
        this._emit('gap', { after: frame.after, before: frame.before, reason: frame.reason, room: this.name })
        return
      case 'presence':
        return this.#onPresence(frame)
      case 'reactions':
        for (const [reaction, total] of Object.entries(frame.totals)) this.reactions.set(reaction, total)
        this._emit('reactions', { counts: frame.counts, totals: this.reactions, room: this.name })
        return
      case 'room':
        clearTimeout(this.#resetting)
        return this.#onInfo(frame)
      case 'deleted':
        this._emit('deleted', { ids: frame.ids, room: this.name })
        return
      case 'ephemeral':
        this._emit('ephemeral', { user: frame.user ?? null, fields: frame.fields, room: this.name })
        return
      case 'moderated':
        this._emit('moderated', { act: frame.act, until: frame.until ?? null, reason: frame.reason ?? null, room: this.name })
    }
  }

  #onInfo({ closed = false, slow = 0, pin = null, announcement = null, topic, properties }) {
    this.info = {
      closed,
      slow,
      pin,
      announcement,
      topic: topic === undefined ? this.info.topic : topic,
      properties: properties ?? this.info.properties,
    }
    this._emit('room', this.info)
  }

  #onPresence(frame) {
    if (frame.all) this.members.clear()
    for (const { user, name, role } of frame.join) this.members.set(user, { user, name: name ?? null, role: role ?? null })
    for (const { user } of frame.leave) this.members.delete(user)
    // Large rooms tell their number only.
    if (frame.join.length + frame.leave.length === 0 && !frame.all) this.members.clear()
    this.count = frame.count
    this.isCounted = true
    this._emit('presence', { members: this.members, count: this.count, join: frame.join, leave: frame.leave, room: this.name })
  }
}

class Client extends Emitter {
  /** `idle` (nothing to be connected for), `connecting`, `open`, `waiting` or `closed`: of the first socket. */
  state = 'idle'
  /** The user that the client is, once that is known; null before, and for an anonymous one. */
  user = null
  /** What is sent to this user, as a room; null with `inbox: false`. */
  inbox = null

  #urls
  #options
  #WebSocket
  /** The sockets; the first one carries the inbox. */
  #links
  /** The socket that requests go over. It stays the same as long as it is open, so that their order is kept. */
  #speaker = null
  /** How many rooms a socket may be in, once a node has said so. */
  #roomsPerSocket = Infinity
  /** Publishes and other requests that are not answered yet, in their order. */
  #requests = new Map()
  #queuedBytes = 0
  #count = 0
  #prefix = randomText()
  #asking = null
  #diagnosed = null
  #unlisten = () => {}
  /** Why the client was sent away for good. */
  #ended = null

  constructor(urls, options) {
    super(CLIENT_EVENTS)
    const list = (Array.isArray(urls) ? urls : [urls]).map(baseOf)
    if (list.length === 0) throw new TypeError('connect: give the URL of a node')
    this.#urls = list
    this.#options = { ...DEFAULTS, ...options }
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket
    if (typeof this.#WebSocket !== 'function') {
      throw new TypeError(
        'connect: there is no WebSocket here (Node has one from version 22 on): install the package ws, ' +
          "and write import { WebSocket } from 'ws' and connect(url, { WebSocket })",
      )
    }
    if (options.user !== undefined && options.user !== null) this.user = String(options.user)
    const main = new Link(this)
    this.#links = [main]
    if (options.inbox !== false) {
      const from = options.inbox === true ? 'now' : options.inbox
      if (from !== undefined) checkPosition(from)
      main.inbox = new Channel(this.user ? `@${this.user}` : null, { from })
      main.inbox.link = main
      this.inbox = new Room(this, main.inbox)
    }
    this.#listen()
    if (this.user && this.inbox) main.schedule()
  }

  /**
   * Joins a room: a holder of its own for each call. Holders share a channel where they ask for the same; a
   * holder that asks for another position, or for presence where there is none, gets a channel of its own on
   * another socket. If the client was sent away for good, the room is refused; after `close()` this throws.
   */
  join(name, { from, presence = false } = {}) {
    if (this.state === 'closed' && !this.#ended) throw new ClosedError('closed', 'the client is closed')
    checkName(name)
    if (from !== undefined) checkPosition(from)
    if (this.#ended) {
      const channel = new Channel(name, { from, presence })
      const room = new Room(this, channel)
      channel.to('refused', this.#ended)
      return room
    }
    const shared = this.#channels().find((channel) => channel.name === name && channel.suits(from, presence))
    if (shared) return new Room(this, shared)
    const channel = new Channel(name, { from, presence })
    const room = new Room(this, channel)
    this.#place(channel)
    return room
  }

  /** The rooms it is in, or wants to be in, one for each `join`. */
  get rooms() {
    return this.#links.flatMap((link) => [...link.channels.values()]).flatMap((channel) => channel.holders)
  }

  /** Publishes to a room without joining it. */
  publish(room, message, options) {
    return this._publish({ room }, message, options)
  }

  /** Publishes to a user, on all their devices; stored in their inbox. */
  sendTo(user, message, options) {
    return this._publish({ to: user }, message, options)
  }

  /** Who is in a room, without joining it. */
  async presence(room, { limit = 100 } = {}) {
    checkName(room)
    return this.get(roomPath(room, '/presence', { limit }))
  }

  /** A page of a room's history, oldest first, without joining it. */
  async history(room, { before, after, limit = 50 } = {}) {
    checkName(room)
    const isBackwards = after === undefined
    const page = await this.get(roomPath(room, '', { limit, after, before, order: isBackwards ? 'desc' : undefined }))
    if (isBackwards) page.entries.reverse()
    return { entries: page.entries, next: page.next }
  }

  /** A GET over HTTP with this client's credentials, of whichever node answers: its JSON. */
  get(path) {
    return this.request('GET', path)
  }

  /** A request over HTTP with this client's credentials. Only a GET is repeated at another node. */
  async request(method, path, body) {
    checkPath(path)
    const fetch = this.#options.fetch ?? globalThis.fetch
    const headers = { Accept: 'application/json' }
    const token = await this._token()
    if (token) headers.Authorization = `Bearer ${token}`
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    let failure
    for (let tried = 0; tried < (method === 'GET' ? this.#urls.length : 1); tried++) {
      const url = new URL(this._url(this.#links[0].url + tried).http + path)
      if (this.#options.user && !token) url.searchParams.set('user', this.#options.user)
      let response
      let text
      try {
        response = await fetch(url, {
          method,
          headers,
          body: body === undefined ? undefined : JSON.stringify(body),
          credentials: this.#options.credentials ?? 'same-origin',
          signal: AbortSignal.timeout(this.#options.requestTimeout),
        })
        text = await response.text()
      } catch (error) {
        failure = new TailcastError('network', `${method} ${path}: ${error.message}`, { cause: error })
        continue
      }
      const json = parse(text)
      if (response.ok) return json
      const seconds = Number(response.headers.get('retry-after'))
      failure = new RefusedError(json?.error?.code ?? `http_${response.status}`, json?.error?.message ?? response.statusText, {
        retryMs: seconds > 0 ? seconds * 1000 : undefined,
        status: response.status,
      })
      // This node is going away, or has lost its Redis; another one may do.
      if (response.status !== 503) throw failure
    }
    throw failure
  }

  /** Connects at once, if it is waiting for the next try. */
  reconnect() {
    for (const link of this.#links) link.reconnect()
  }

  /** Ends it: rooms are left, and what is not answered yet fails. */
  close() {
    this._end(new ClosedError('closed', 'the client is closed'))
  }

  // Rooms, and the sockets that they are on.

  #channels() {
    return this.#links.flatMap((link) => [...(link.inbox ? [link.inbox] : []), ...link.channels.values()])
  }

  /** Puts a channel on the first socket that has a place for it. */
  #place(channel) {
    let link = this.#links.find((link) => link.hasPlaceFor(channel.name, this.#roomsPerSocket))
    if (!link) {
      link = new Link(this)
      this.#links.push(link)
    }
    link.add(channel)
  }

  /** The node lets this socket into no more rooms: these channels go to other ones. */
  _onFull(link, count, channels) {
    this.#roomsPerSocket = Math.min(this.#roomsPerSocket, count)
    for (const channel of channels) this.#place(channel)
  }

  _leave(channel) {
    channel.link?.remove(channel)
    this._tidy()
  }

  /** Lets go of the sockets that carry nothing. The first one is kept, as long as there is no other. */
  _tidy() {
    const isNeeded = (link) => link.homeName() !== null
    const left = this.#links.filter(isNeeded)
    if (left.length === 0) left.push(this.#links[0])
    for (const link of this.#links) if (!isNeeded(link)) link.rest()
    const [main] = left
    const [before] = this.#links
    this.#links = left
    if (main !== before) {
      main.inbox = before.inbox
      before.inbox = null
      if (main.inbox) main.inbox.link = main
      this._onState(main, main.told)
    }
    this._flush()
  }

  _isMain(link) {
    return this.#links[0] === link
  }

  /** A room for the URL of a socket that is there for requests alone: '' is the node's default room. */
  _wantedRoom() {
    for (const { room } of this.#requests.values()) if (room) return room
    if (this.#requests.size === 0) return null
    return this.user ? `@${this.user}` : ''
  }

  /** A user is known by name now. */
  _is(user) {
    if (this.user !== user) {
      this.user = user
      this._emit('user', user)
    }
    const [main] = this.#links
    if (!main.inbox || main.inbox.name === `@${user}`) return
    main.inbox.name = `@${user}`
    const same = main.channels.get(main.inbox.name)
    if (!same) return
    main.makeWayForInbox(same)
    this.#place(same)
  }

  // What sockets ask of their client.

  _url(number) {
    return this.#urls[number % this.#urls.length]
  }

  get _options() {
    return this.#options
  }

  _connect(url) {
    return new this.#WebSocket(url, [SUBPROTOCOL])
  }

  /** The token to use now. Sockets that ask at the same time share one answer. */
  _token() {
    const { token } = this.#options
    if (typeof token !== 'function') return Promise.resolve(token)
    this.#asking ??= this.#ask(token).finally(() => {
      this.#asking = null
    })
    return this.#asking
  }

  /** Asks the application for a token. What it throws passes, unless it says that it does not. */
  async #ask(token) {
    let timer
    const wait = this.#options.connectTimeout
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new TailcastError('token', `the token function did not answer in ${wait} ms`)), wait)
    })
    try {
      return await Promise.race([token(), late])
    } catch (error) {
      if (error instanceof TailcastError) throw error
      const code = error?.code === 'unauthorized' ? 'unauthorized' : 'token'
      throw new TailcastError(code, `the token function failed: ${error?.message ?? error}`, { cause: error })
    } finally {
      clearTimeout(timer)
    }
  }

  _onState(link, event) {
    if (!this._isMain(link) || this.state === 'closed') return
    this.state = event.state
    this._emit('state', event)
  }

  _onOpen() {
    this.#diagnosed = null
  }

  /** Says once per outage why no socket opens, if that can be found out over HTTP. */
  async _diagnose(number, cause) {
    const found = await diagnose(this._url(number), this.#options.fetch ?? globalThis.fetch, cause)
    if (!found || this.#diagnosed === found.code || this.state === 'closed' || this.#links.some((link) => link.isOpen)) return
    this.#diagnosed = found.code
    this._emit('error', found)
  }

  /** A socket has ended: what was sent over it is sent anew over another one, as far as it may be repeated. */
  _onLost(link) {
    if (this.#speaker !== link) return
    this.#speaker = null
    if (this.state === 'closed') return
    for (const request of [...this.#requests.values()]) {
      if (request.isWritten && !request.repeats) {
        this.#fail(request, new TimeoutError('the connection was lost before there was an answer', { room: request.room, sent: true }))
      }
      request.isSent = false
    }
  }

  _onTooFast(link) {
    if (this.#speaker !== link) return
    for (const request of this.#requests.values()) request.isSent = !request.repeats && request.isWritten
    this._flush()
  }

  /** A frame was larger than the node takes: the largest one that was on its way, most likely. */
  _onTooLarge(reason) {
    const sent = [...this.#requests.values()].filter((request) => request.isWritten)
    const largest = sent.sort((a, b) => b.size - a.size)[0]
    if (!largest) return false
    this.#fail(largest, new RefusedError('too_large', reason || 'the frame is too large', { room: largest.room }))
    return true
  }

  /** The client may not be in a room that requests are for: nor can they be sent from there. */
  _onForbidden(name, error) {
    error.room = name
    for (const request of [...this.#requests.values()]) if (request.room === name) this.#fail(request, error)
  }

  _onAnswer(frame) {
    const request = this.#requests.get(frame.ref)
    if (!request) return
    this.#settle(request)
    const { type, ref, ...answer } = frame
    request.resolve(answer)
  }

  /** Whether an error was the answer to a request. */
  _onRefusal(frame, error) {
    const request = this.#requests.get(frame.ref)
    if (!request) return false
    if (request.repeats && PASSING_CODES.has(frame.code)) this.#again(request)
    else this.#fail(request, error)
    return true
  }

  // Publishes and other requests.

  _publish(target, message, options = {}) {
    const { key, ephemeral = false, timeout, signal, firstSentAt, onFirstSend } = options
    if (typeof message !== 'string' && (message === null || typeof message !== 'object' || Array.isArray(message))) {
      const text = 'a message is text, or an object of fields, as in {text: "hello"}; a value is text, or {base64: "…"}'
      return Promise.reject(new RefusedError('bad_request', text))
    }
    const content = typeof message === 'string' ? { message } : { fields: message }
    const frame = { type: 'publish', ...target, ...content }
    if (ephemeral) {
      if (!this.#openLink()) return Promise.reject(new TailcastError('offline', 'there is no connection to show it over'))
      frame.ephemeral = true
      return this._request(frame, { timeout, signal })
    }
    frame.key = key ?? `${this.#prefix}-${this.#count}`
    const most = Math.min(timeout ?? this.#options.publishTimeout, REPEAT_MAX)
    return this._request(frame, { timeout: most, repeats: true, signal, firstSentAt, onFirstSend })
  }

  /** Sends a frame that is neither repeated nor answered. */
  _now(frame) {
    const link = this.#openLink()
    if (!link) throw new TailcastError('offline', 'there is no connection')
    link.write(frame)
  }

  /** The socket that requests go over; null without one. */
  #openLink() {
    if (!this.#speaker?.isOpen) this.#speaker = this.#links.find((link) => link.isOpen) ?? null
    return this.#speaker
  }

  /**
   * Sends a request as soon as there is a connection. If it `repeats`, it waits for one without end, and its
   * time runs from when it's first written to a socket; otherwise from now.
   */
  _request(frame, { timeout = this.#options.requestTimeout, repeats = false, signal, firstSentAt = null, onFirstSend } = {}) {
    const { room, key } = frame
    if (this.state === 'closed') return Promise.reject(new ClosedError('closed', 'the client is closed', { room, key, sent: firstSentAt !== null }))
    const ref = ++this.#count
    return new Promise((resolve, reject) => {
      // Made here once: what can't be JSON is refused before it's in the queue.
      const text = JSON.stringify({ ...frame, ref })
      const size = new TextEncoder().encode(text).length
      const request = { ref, size, room, key, text, timeout, repeats, signal, firstSentAt, onFirstSend, resolve, reject }
      Object.assign(request, { isSent: false, isWritten: false, tries: 0, timer: null, again: null, onAbort: null })
      if (signal?.aborted) return reject(aborted(request))
      if (repeats && firstSentAt !== null && Date.now() - firstSentAt >= REPEAT_MAX) return reject(unanswered(request))
      const { queueMax, queueBytesMax } = this.#options
      if (this.#requests.size >= queueMax || this.#queuedBytes + size > queueBytesMax) {
        const most = `${queueMax} requests or ${queueBytesMax} bytes (queueMax, queueBytesMax)`
        return reject(new TailcastError('queue_full', `too much waits for a connection, ${most}; try again later`, { room }))
      }
      this.#requests.set(ref, request)
      this.#queuedBytes += size
      if (!repeats || firstSentAt !== null) this.#startTimer(request)
      if (signal) {
        request.onAbort = () => this.#fail(request, aborted(request))
        signal.addEventListener('abort', request.onAbort)
      }
      this._flush()
      this.#links[0].schedule()
    })
  }

  #startTimer(request) {
    const { firstSentAt, timeout, repeats } = request
    const left = repeats && firstSentAt !== null ? Math.min(timeout, REPEAT_MAX - (Date.now() - firstSentAt)) : timeout
    request.timer = setTimeout(() => this.#fail(request, unanswered(request)), left)
  }

  /** It is written to a socket now. */
  #onWrite(request) {
    request.isWritten = true
    if (request.firstSentAt !== null) return
    request.firstSentAt = Date.now()
    if (request.repeats) this.#startTimer(request)
    try {
      request.onFirstSend?.(request.firstSentAt)
    } catch (error) {
      queueMicrotask(() => {
        throw error
      })
    }
  }

  #settle(request) {
    clearTimeout(request.timer)
    clearTimeout(request.again)
    request.signal?.removeEventListener('abort', request.onAbort)
    if (this.#requests.delete(request.ref)) this.#queuedBytes -= request.size
    request.isOver = true
    this._flush()
  }

  #fail(request, error) {
    this.#settle(request)
    request.reject(error)
  }

  /** Redis is away: the same publish again, in a while. */
  #again(request) {
    request.tries += 1
    request.isSent = false
    request.again = setTimeout(() => {
      request.again = null
      this._flush()
    }, backoff(this.#options.backoffMin, 5_000, request.tries))
  }

  /** Sends the requests that wait, in their order, as far as there may be more under way. */
  _flush() {
    const link = this.state === 'closed' ? null : this.#openLink()
    if (!link) return
    let underWay = 0
    for (const request of [...this.#requests.values()]) {
      if (underWay >= IN_FLIGHT) return
      if (request.isOver) continue
      underWay += 1
      if (request.isSent || request.again !== null) continue
      // A machine that slept has timers that are late: the clock counts.
      if (request.repeats && request.firstSentAt !== null && Date.now() - request.firstSentAt >= REPEAT_MAX) {
        this.#fail(request, unanswered(request))
        continue
      }
      request.isSent = true
      link.write(request, () => this.#onWrite(request))
    }
  }

  // The end, and the page that this is in.

  _end(error) {
    if (this.state === 'closed') return
    const channels = this.#channels()
    this.#unlisten()
    this.#ended = error instanceof ClosedError ? null : error
    this.state = 'closed'
    for (const link of this.#links) link.drop()
    this._emit('state', { state: 'closed', error: this.#ended, code: error.code, reason: error.message })
    for (const request of [...this.#requests.values()]) {
      const { room, key, firstSentAt } = request
      this.#fail(request, new ClosedError(error.code, error.message, { room, key, sent: firstSentAt !== null }))
    }
    for (const channel of channels) {
      if (this.#ended) channel.to('refused', this.#ended)
      else channel.to('left')
    }
    for (const link of this.#links) link.channels.clear()
  }

  /** A page that comes back to the foreground, or to a network, does not wait for its timers. */
  #listen() {
    if (typeof globalThis.addEventListener !== 'function' || typeof document === 'undefined') return
    const wake = () => {
      if (document.visibilityState === 'hidden') return
      for (const link of this.#links) link.wake()
    }
    globalThis.addEventListener('online', wake)
    document.addEventListener('visibilitychange', wake)
    this.#unlisten = () => {
      globalThis.removeEventListener('online', wake)
      document.removeEventListener('visibilitychange', wake)
    }
  }
}

/** One socket, and the channels on it. It reconnects by itself as long as there is something to be connected for. */
class Link {
  /** By name, in the order in which they are joined. */
  channels = new Map()
  /** The user's own room, on the first socket alone. */
  inbox = null
  isOpen = false
  /** The number of the URL that it connects to. */
  url = 0
  /** What was last said of its state. */
  told = { state: 'idle' }

  #client
  /** The room in the URL of the socket, and the channel that it was for; null if it was for a request. */
  #home = null
  #homeChannel = null
  #attempt = null
  #socket = null
  #attempts = 0
  #rejected = 0
  #doubts = 0
  #waitMs = null
  #timers = new Map()
  /** Frames that wait for the pace: `{text}`, and of some `channel` (it's its join) or `onWrite`. */
  #frames = []
  #budget = FRAMES_AT_ONCE
  #rate = FRAMES_PER_SECOND
  #refilled = 0
  #isScheduled = false
  #lastHeard = 0
  #hasToken = false
  /** Rooms that it has left, until the node says so: what still comes belongs to the earlier stay. */
  #leaving = new Set()

  constructor(client) {
    this.#client = client
  }

  // The channels.

  hasPlaceFor(name, most) {
    if (this.channels.has(name) || this.inbox?.name === name) return false
    return this.channels.size + (this.inbox ? 1 : 0) < most
  }

  add(channel) {
    channel.link = this
    this.channels.set(channel.name, channel)
    if (this.isOpen) this.#sendJoin(channel)
    else this.schedule()
  }

  remove(channel) {
    channel.link = null
    if (channel === this.inbox) this.inbox = null
    else this.channels.delete(channel.name)
    if (this.isOpen && !this.#takeBack(channel)) this.#sendLeave(channel.name)
  }

  /** A channel turns out to be in the user's own room, as the inbox is: another socket has to carry it. */
  makeWayForInbox(channel) {
    this.channels.delete(channel.name)
    if (!this.isOpen) return
    if (!this.#takeBack(channel)) this.#sendLeave(channel.name)
    this.#sendJoin(this.inbox)
  }

  /** Takes back a join that waits for the pace. */
  #takeBack(channel) {
    const before = this.#frames.length
    this.#frames = this.#frames.filter((frame) => frame.channel !== channel)
    return this.#frames.length < before
  }

  #sendJoin(channel) {
    channel.to('joining')
    const frame = { type: 'join', room: channel.name, from: channel.position }
    if (channel.presence) frame.presence = true
    this.write(frame, null, channel)
  }

  #sendLeave(name) {
    this.#leaving.add(name)
    this.write({ type: 'leave', room: name })
  }

  /** The room of the socket's URL: it has to have one. Null if there is nothing to be connected for. */
  homeName() {
    const [first] = this.channels.keys()
    if (first !== undefined) return first
    if (!this.#client._isMain(this)) return null
    if (this.inbox?.name && this.inbox.state !== 'refused') return this.inbox.name
    return this.#client._wantedRoom()
  }

  #of(name) {
    if (name === undefined || this.#leaving.has(name)) return null
    return this.channels.get(name) ?? (this.inbox?.name === name ? this.inbox : null)
  }

  #refuse(channel, error) {
    if (channel !== this.inbox) this.channels.delete(channel.name)
    channel.to('refused', error)
    this.#client._tidy()
  }

  /** This channel, and those whose join has not been sent yet, find no place here. */
  #onFull(channel, error) {
    const names = [...this.channels.keys()]
    const index = names.indexOf(channel.name)
    if (index < 1) return this.#refuse(channel, error)
    const waiting = this.#frames.map((frame) => frame.channel).filter(Boolean)
    for (const other of waiting) this.#takeBack(other)
    const moved = [channel, ...waiting]
    for (const other of moved) this.channels.delete(other.name)
    this.#client._onFull(this, index + (this.inbox ? 1 : 0), moved)
  }

  // The pace of frames.

  /** Sends a frame as soon as the pace allows: an object, or what has its `text` already. */
  write(frame, onWrite = null, channel = null) {
    this.#frames.push({ text: frame.text ?? JSON.stringify(frame), onWrite, channel })
    this.#pump()
  }

  #pump() {
    if (this.#timers.has('pace')) return
    const now = Date.now()
    const earned = ((now - this.#refilled) / 1000) * this.#rate
    this.#budget = Math.min(FRAMES_AT_ONCE, this.#rate, this.#budget + Math.max(0, earned))
    this.#refilled = now
    while (this.#frames.length > 0 && this.#socket) {
      if (this.#budget < 1) return this.#timer('pace', 1000 / this.#rate, () => this.#pump())
      this.#budget -= 1
      const { text, onWrite } = this.#frames.shift()
      onWrite?.()
      this.#socket.send(text)
    }
  }

  /** Some frame was ignored, and it's not known which one. */
  #onTooFast(retryMs) {
    this.#rate = Math.max(2, this.#rate / 2)
    this.#frames = []
    this.#timer('pace', retryMs + 1000, () => {
      for (const name of this.#leaving) this.write({ type: 'leave', room: name })
      for (const channel of this.channels.values()) {
        if (channel.state === 'joining' && channel !== this.#homeChannel) this.#sendJoin(channel)
      }
      this.#client._onTooFast(this)
      this.#pump()
    })
  }

  // The connection.

  /** Connects soon, if there is something to connect for; rooms joined in the same turn come along. */
  schedule() {
    if (this.#isScheduled || this.told.state !== 'idle' || this.homeName() === null) return
    this.#isScheduled = true
    queueMicrotask(() => {
      this.#isScheduled = false
      if (this.told.state === 'idle' && this.#client.state !== 'closed' && this.homeName() !== null) this.#open()
    })
  }

  reconnect() {
    if (this.told.state !== 'waiting' || this.#client.state === 'closed') return
    this.#stopTimer('reconnect')
    this.#open()
  }

  wake() {
    if (this.told.state === 'waiting') this.reconnect()
    else this.#ping()
  }

  #to(event) {
    this.told = event
    this.#client._onState(this, event)
  }

  #socketUrl() {
    const home = this.homeName()
    const { user } = this.#client._options
    const channel = this.channels.get(home) ?? (this.inbox?.name === home ? this.inbox : null)
    this.#home = home
    this.#homeChannel = channel
    const query = new URLSearchParams(home === '' ? {} : { room: home })
    if (channel) query.set('from', channel.position)
    if (channel?.presence) query.set('presence', '1')
    if (!this.inbox) query.set('inbox', '0')
    else if (channel !== this.inbox) query.set('inbox', this.inbox.position)
    if (user) query.set('user', user)
    return `${this.#client._url(this.url).ws}/?${query}`
  }

  async #open() {
    this.#to({ state: 'connecting', url: this.#client._url(this.url).ws })
    const attempt = { isOpened: false, cause: '' }
    this.#attempt = attempt
    this.#timer('connect', this.#client._options.connectTimeout, () => this.#lost(attempt, 4408, 'no answer in time'))
    let token
    try {
      token = await this.#client._token()
    } catch (error) {
      if (this.#attempt !== attempt) return
      if (error.code === 'unauthorized') return this.#client._end(error)
      return this.#lost(attempt, 4401, error.message, true)
    }
    if (this.#attempt !== attempt) return
    if (this.homeName() === null) return this.rest()
    let socket
    try {
      socket = this.#client._connect(this.#socketUrl())
    } catch (error) {
      return this.#lost(attempt, 1006, error.message)
    }
    attempt.socket = socket
    socket.onopen = () => {
      if (this.#attempt === attempt) this.#onOpen(attempt, token)
    }
    socket.onmessage = (event) => {
      if (this.#attempt === attempt) this.#onText(event.data)
    }
    // A close follows every error. Outside of browsers, the error says more than the close does.
    socket.onerror = (event) => {
      attempt.cause = event?.message || event?.error?.message || ''
    }
    socket.onclose = (event) => this.#lost(attempt, event.code, event.reason || attempt.cause)
  }

  #onOpen(attempt, token) {
    attempt.isOpened = true
    this.#socket = attempt.socket
    this.#frames = []
    this.#budget = FRAMES_AT_ONCE
    this.#refilled = Date.now()
    this.#hasToken = Boolean(token)
    if (token) {
      this.write({ type: 'auth', token })
      this.#renewLater(token)
    }
    this.isOpen = true
    this.#stopTimer('connect')
    this.#lastHeard = Date.now()
    // It was left, or was joined anew, since the URL was made; or it's there for a request alone.
    const isHomeWanted = this.#homeChannel !== null && this.#homeChannel.link === this
    if (!isHomeWanted && this.#home !== '') this.#sendLeave(this.#home)
    for (const channel of this.channels.values()) {
      if (channel !== this.#homeChannel) this.#sendJoin(channel)
    }
    this.#client._onOpen()
    this.#client._flush()
    this.#listenForLife()
  }

  #onText(text) {
    const frame = typeof text === 'string' ? parse(text) : null
    if (!frame) return
    this.#heard()
    switch (frame.type) {
      case 'joined':
        return this.#onJoined(frame)
      case 'ack':
      case 'done':
      case 'users':
      case 'history':
        return this.#client._onAnswer(frame)
      case 'error':
        return this.#onError(frame)
      case 'authenticated':
        if (frame.user) this.#client._is(frame.user)
        this.#rejected = 0
        return
      case 'bye':
        this.#waitMs = frame.retry_ms
        return
      case 'left':
        return this.#onLeft(frame)
      case 'pong':
        return
      default:
        this.#of(frame.room)?.onFrame(frame)
    }
  }

  #onJoined(frame) {
    this.#attempts = 0
    this.#rejected = 0
    this.#doubts = 0
    if (this.told.state !== 'open') this.#to({ state: 'open', url: this.#client._url(this.url).ws })
    let channel = this.#of(frame.room)
    // With a cookie it's the inbox that tells who we are.
    if (!channel && this.inbox && !this.inbox.name && frame.room.startsWith('@') && frame.room !== this.#home) {
      this.#client._is(frame.room.slice(1))
      channel = this.inbox
    }
    if (channel) channel.onJoined(frame.head)
    else if (this.#home === '' && !this.#leaving.has(frame.room)) this.#sendLeave(frame.room)
  }

  #onLeft(frame) {
    if (this.#leaving.delete(frame.room)) return
    const channel = this.#of(frame.room)
    if (!channel) return
    const { code = 'forbidden', message = 'the token no longer grants this room', room } = frame
    if (frame.code || channel.state === 'joined') this.#refuse(channel, new RefusedError(code, message, { room }))
  }

  #onError(frame) {
    const error = new RefusedError(frame.code, frame.message, { retryMs: frame.retry_ms, room: frame.room })
    if (this.#client._onRefusal(frame, error)) return
    if (frame.code === 'not_in_room' && this.#leaving.delete(frame.room)) return
    // A join was sent twice, as it was not known whether the first one counted.
    if (frame.code === 'already_in') return
    const channel = this.#of(frame.room)
    if (channel?.state === 'joining') {
      if (frame.code === 'too_many_rooms') return this.#onFull(channel, error)
      return this.#refuse(channel, error)
    }
    if (frame.code === 'too_fast') return this.#onTooFast(frame.retry_ms ?? 1000)
    this.#client._emit('error', error)
  }

  /** The socket has ended, or is given up; `isPassing` if it's known that another try can help. */
  #lost(attempt, code, reason, isPassing = false) {
    if (this.#attempt !== attempt) return
    this.drop()
    for (const channel of [...this.channels.values(), ...(this.inbox ? [this.inbox] : [])]) {
      if (channel.state === 'joined') channel.to('joining')
    }
    if (!isPassing && !this.#mayComeBack(code, reason)) return
    if (this.#client.state === 'closed') return
    if (this.homeName() === null) {
      this.rest()
      return this.#client._tidy()
    }
    this.#attempts += 1
    const { backoffMin, backoffMax } = this.#client._options
    let wait = this.#waitMs ?? backoff(backoffMin, backoffMax, this.#attempts)
    if (code === 4429) wait = Math.max(wait, 5_000)
    this.#waitMs = null
    const number = this.url
    this.url += 1
    this.#to({ state: 'waiting', code, reason, retryMs: wait, attempt: this.#attempts })
    this.#timer('reconnect', wait, () => this.#open())
    // Some handshakes fail while a node comes up; to ask about each of them would be as many requests again.
    const isTime = this.#attempts === 2 || this.#attempts % 8 === 0
    if (code === 1006 && !attempt.isOpened && isTime) this.#client._diagnose(number, attempt.cause)
    // Requests can go over another socket that is open.
    this.#client._flush()
  }

  /** Whether another connection can help; ends the client, or does without a room or a request, if not. */
  #mayComeBack(code, reason) {
    const error = new RefusedError(`close_${code}`, reason || `closed with ${code}`)
    switch (code) {
      case 4401: {
        error.code = 'unauthenticated'
        this.#rejected += 1
        // A function may come up with another token.
        const may = typeof this.#client._options.token === 'function' && this.#rejected < TOKENS_MAX
        if (!may) this.#client._end(error)
        return may
      }
      case 4403: {
        const isWithout = /credential|authenticate/.test(reason)
        error.code = isWithout ? 'unauthenticated' : 'forbidden'
        // There was a token, which the network brought too late.
        if (isWithout && this.#hasToken) return true
        const home = this.#homeChannel
        // It was about the room in the URL; the others can go on without it.
        if (error.code === 'forbidden' && home && home !== this.inbox && home.link === this) {
          if (/^banned/.test(reason)) error.code = 'banned'
          error.room = home.name
          this.#refuse(home, error)
          return true
        }
        // It was about a room that only a request named, or that has been left since.
        if (error.code === 'forbidden' && this.#home && (home === null || home !== this.inbox)) {
          this.#client._onForbidden(this.#home, error)
          return true
        }
        this.#client._end(error)
        return false
      }
      case 1009:
        if (this.#client._onTooLarge(reason)) return true
    }
    if (DOUBTFUL_CODES.has(code)) this.#doubts += 1
    if (FINAL_CODES.has(code) || this.#doubts >= DOUBTS_MAX) {
      this.#client._end(error)
      return false
    }
    return true
  }

  /** Nothing to be connected for. */
  rest() {
    if (this.told.state === 'idle') return
    this.drop()
    this.#to({ state: 'idle' })
  }

  /** Lets go of the socket. Browsers wait long for the other side of a close, so nobody waits here. */
  drop() {
    const socket = this.#attempt?.socket
    this.#attempt = null
    this.#socket = null
    this.isOpen = false
    this.#frames = []
    this.#leaving.clear()
    for (const name of [...this.#timers.keys()]) this.#stopTimer(name)
    if (socket && socket.readyState < 2) socket.close(1000)
    this.#client._onLost(this)
  }

  // Signs of life, and tokens.

  #heard() {
    this.#lastHeard = Date.now()
    this.#stopTimer('pong')
  }

  #listenForLife() {
    const { pingInterval } = this.#client._options
    const silent = Date.now() - this.#lastHeard
    const wait = Math.max(pingInterval - silent, 0)
    this.#timer('ping', wait || pingInterval, () => {
      if (wait === 0 || Date.now() - this.#lastHeard >= pingInterval) this.#ping()
      this.#listenForLife()
    })
  }

  /** A page is not told of a connection that has silently gone. */
  #ping() {
    const attempt = this.#attempt
    if (!this.isOpen || this.#timers.has('pong')) return
    this.#timer('pong', this.#client._options.pongTimeout, () => this.#lost(attempt, 4408, 'silent'))
    this.write({ type: 'ping' })
  }

  /** Brings a fresh token before this one ends, if there is a function to ask. */
  #renewLater(token) {
    if (typeof this.#client._options.token !== 'function') return
    const end = endOf(token)
    if (end === null) return
    const left = end - Date.now()
    // A minute before, or in the last fifth of a short one; a timer takes at most 2^31 ms.
    const wait = Math.min(Math.max(left - Math.max(60_000, left / 5), left / 2, 1_000), 2_000_000_000)
    this.#timer('renew', wait, async () => {
      const attempt = this.#attempt
      try {
        const fresh = await this.#client._token()
        if (this.#attempt !== attempt || !this.isOpen || !fresh) return
        this.write({ type: 'auth', token: fresh })
        this.#renewLater(fresh)
      } catch (error) {
        if (this.#attempt !== attempt || !this.isOpen) return
        this.#client._emit('error', error)
        // The token that it has still counts.
        if (error.code !== 'unauthorized') this.#renewLater(token)
      }
    })
  }

  #timer(name, wait, run) {
    this.#stopTimer(name)
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name)
      run()
    }, wait))
  }

  #stopTimer(name) {
    clearTimeout(this.#timers.get(name))
    this.#timers.delete(name)
  }
}

/** The two addresses of a node, whichever was given. A path counts as a prefix that a proxy takes away. */
function baseOf(url) {
  const parsed = new URL(url, globalThis.location?.href)
  const secure = { 'https:': true, 'wss:': true, 'http:': false, 'ws:': false }[parsed.protocol]
  if (secure === undefined) throw new TypeError(`connect: ${url} is no http(s) or ws(s) URL`)
  const rest = parsed.host + parsed.pathname.replace(/\/+$/, '')
  return secure ? { ws: `wss://${rest}`, http: `https://${rest}` } : { ws: `ws://${rest}`, http: `http://${rest}` }
}

/** The path of a room, with a query. No path can have `.` or `..` between its slashes: those go into the query. */
function roomPath(name, tail, query) {
  const isDots = name === '.' || name === '..'
  const given = Object.entries({ room: isDots ? name : undefined, ...query }).filter(([, value]) => value !== undefined)
  const segment = isDots ? '-' : encodeURIComponent(name)
  return `/rooms/${segment}${tail}?${new URLSearchParams(given.map(([key, value]) => [key, String(value)]))}`
}

/** A URL loses its `.` and `..` without a word: the request would go elsewhere. */
function checkPath(path) {
  const [plain] = String(path).split(/[?#]/, 1)
  if (!plain.startsWith('/')) throw new TailcastError('bad_path', 'a path begins with a slash, as in /rooms/lobby')
  if (plain.split(/[/\\]/).some((segment) => /^(\.|%2e){1,2}$/i.test(segment))) {
    throw new TailcastError('bad_path', `no path can have . or .. between slashes: for a room of that name, write /rooms/-?room=..`)
  }
}

/** What a node would refuse with the handshake, where a browser does not tell why. */
function checkName(name) {
  const isText = typeof name === 'string' && !/[\p{Cc}\p{Cs}]/u.test(name) && !name.startsWith('tailcast:')
  const size = isText ? new TextEncoder().encode(name).length : 0
  if (size < 1 || size > 256) {
    throw new RefusedError('bad_room', 'a room has a name of 1 to 256 bytes, without control characters, not beginning with `tailcast:`')
  }
}

function checkPosition(from) {
  if (!isPosition(from)) throw new RefusedError('bad_from', 'from is now, start, an entry ID, last:50 or ago:10m')
}

function aborted({ room, key, firstSentAt, signal }) {
  const sent = firstSentAt !== null
  const text = sent ? 'it was aborted after it was sent; it may have been stored' : 'it was aborted before it was sent'
  return new AbortedError('aborted', text, { room, key, sent, cause: signal.reason })
}

function unanswered({ room, key, firstSentAt }) {
  if (firstSentAt === null) return new TailcastError('offline', 'there was no connection in time; it was not sent', { room, sent: false })
  return new TimeoutError('no answer in time; it may have been done', { room, key, sent: true })
}

/**
 * Why a socket does not open though the network is there: null if it is not, or nobody can tell. A browser tells a
 * page nothing of a refused handshake, so an answer over HTTP is what there is to go by.
 */
async function diagnose({ http }, fetch, cause) {
  if (typeof fetch !== 'function') return null
  const own = globalThis.location?.origin
  const isSame = own === new URL(http).origin
  const ask = async (init) => {
    try {
      return await fetch(`${http}/health/ready`, { cache: 'no-store', credentials: 'omit', signal: AbortSignal.timeout(5_000), ...init })
    } catch {
      return null
    }
  }
  const refused = (why) =>
    new TailcastError('origin_not_allowed', `${why}: start the node with --allowed-origins ${own === 'null' ? "'*'" : own} to let them in`)
  // A request of the page's own origin has an `Origin` only if it's no GET; a node's answers vary by it.
  const asked = isSame ? await ask({ method: 'OPTIONS' }) : null
  if (asked?.headers.get('vary')?.includes('origin') && !asked.headers.has('access-control-allow-origin')) {
    return refused(`the node at ${http} refuses pages of ${own}, whose name it does not know; does a proxy change the header Host?`)
  }
  const response = await ask()
  // A node that is not ready says so; that passes.
  if (response && !response.ok) return null
  if (response) {
    const more = cause ? ` (${cause})` : ''
    return new TailcastError('handshake_refused', `${http} answers over HTTP, but no WebSocket opens${more}; does a proxy pass on upgrades?`)
  }
  if (own === undefined || isSame || (await ask({ mode: 'no-cors' })) === null) return null
  return refused(`${http} answers, but not to pages of ${own}. Most likely the node refuses them`)
}

/** Doubling from `min` to `max`, and half of it by chance, so that clients of one node don't come back as one. */
function backoff(min, max, tries) {
  const most = Math.min(max, min * 2 ** Math.min(tries - 1, 20))
  return most / 2 + (Math.random() * most) / 2
}

/** 96 random bits. Not `randomUUID`, which pages without TLS don't have. */
function randomText() {
  const bytes = globalThis.crypto.getRandomValues(new Uint8Array(12))
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
}

/** When a JWT ends, in Unix milliseconds; null if that can't be read. */
function endOf(token) {
  try {
    const claims = JSON.parse(atob(token.split('.')[1].replaceAll('-', '+').replaceAll('_', '/')))
    return typeof claims.exp === 'number' ? claims.exp * 1000 : null
  } catch {
    return null
  }
}

function parse(text) {
  try {
    return JSON.parse(text)
  } catch {
    return null
  }
}
