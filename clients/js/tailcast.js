// A client for tailcast, over its JSON WebSocket format (CONTRACT.md). No dependency; for browsers, and
// for Node with the global WebSocket or the package `ws`.
//
// One socket carries any number of rooms. What it promises to whoever listens: the IDs of one room
// strictly increase, and between two entries there is no other one unless a `gap` said so in that place,
// over any number of reconnects and nodes. What it promises to whoever publishes: each publish has an
// idempotency key and is repeated until it is answered, so that it's stored once.

const SUBPROTOCOL = 'tailcast.json'

/** Frames sent per second, and at once; half of what a node lets in (`--frame-rate`). */
const FRAMES_PER_SECOND = 100
const FRAMES_AT_ONCE = 50

/** Requests that wait for an answer at a time; half of a node's `--max-in-flight`. */
const IN_FLIGHT = 32

/** A node remembers an idempotency key for 5 minutes (`--idempotency-window`): later repeats could be stored twice. */
const PUBLISH_TIMEOUT_MAX = 240_000

const DEFAULTS = {
  backoffMin: 200,
  backoffMax: 15_000,
  connectTimeout: 10_000,
  pingInterval: 20_000,
  pongTimeout: 10_000,
  publishTimeout: 60_000,
  requestTimeout: 30_000,
}

/** Close codes after which nothing helps but another request: CONTRACT.md's table. */
const FINAL_CODES = new Set([1002, 1003, 1007, 1008, 1009, 1010, 4400])

/** Refusals that pass: the publish is repeated under its key. */
const PASSING_CODES = new Set(['redis_unavailable', 'redis_loading', 'redis_read_only', 'busy', 'unknown_outcome'])

/** What can go wrong. `code` is a word for programs: a node's own, or one of `closed`, `timeout`, `offline`, `network`. */
export class TailcastError extends Error {
  constructor(code, message, { retryMs, room, status } = {}) {
    super(message)
    this.name = new.target.name
    this.code = code
    this.retryMs = retryMs
    this.room = room
    this.status = status
  }
}

/** A node said no. `retryMs` is there where it makes sense to wait. */
export class RefusedError extends TailcastError {}

/** The client was closed, or was sent away for good, before there was an answer. */
export class ClosedError extends TailcastError {}

/** No answer in time. A publish may be stored all the same; repeat it under its key to find out. */
export class TimeoutError extends TailcastError {
  constructor(message, { key, room } = {}) {
    super('timeout', message, { room })
    this.key = key
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

  on(name, listener) {
    const listeners = this.#listeners.get(name) ?? []
    this.#listeners.set(name, [...listeners, listener])
    return () => this.off(name, listener)
  }

  off(name, listener) {
    const listeners = this.#listeners.get(name) ?? []
    this.#listeners.set(name, listeners.filter((other) => other !== listener))
  }

  /** Calls the listeners in order. One that throws must not keep the others, or the next frame, from going on. */
  _emit(name, event) {
    for (const listener of this.#listeners.get(name) ?? []) {
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

/** One room of a client; made by `client.join`. */
class Room extends Emitter {
  /** The room's name. The inbox has none before it's known who the user is. */
  name
  /** `joining`, `joined`, `refused` or `left`. */
  state = 'joining'
  /** Why it was refused. */
  error = null
  /** The ID to resume from: of the last entry that came, or where the room began. */
  cursor
  /** Who is here, by user, if `presence` was asked for and the room is not too large. */
  members = new Map()
  /** How many are here. */
  count = 0
  /** How often each reaction was given. */
  reactions = new Map()
  /** How the room stands. */
  info = { closed: false, slow: 0, pin: null, announcement: null, topic: null, properties: {} }
  /** Resolves with the room once it's joined for the first time; rejects if it's refused. */
  ready

  #client
  #from
  #ready
  #resetting

  constructor(client, name, { from, presence } = {}) {
    super()
    this.#client = client
    this.name = name
    this.#from = from ?? 'now'
    this.presence = presence ?? false
    if (typeof from === 'string' && /^\d+-\d+$/.test(from)) this.cursor = from
    this.ready = new Promise((resolve, reject) => {
      this.#ready = { resolve, reject }
    })
    this.ready.catch(() => {})
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
  async history({ before, after, limit = 50 } = {}) {
    if (this.name === null) throw new TailcastError('offline', 'it is not known yet whose inbox this is')
    const query = new URLSearchParams({ limit: String(limit) })
    if (after !== undefined) query.set('after', after)
    if (before !== undefined) query.set('before', before)
    const backwards = after === undefined
    if (backwards) query.set('order', 'desc')
    const page = await this.#client.get(`/rooms/${encodeURIComponent(this.name)}?${query}`)
    if (backwards) page.entries.reverse()
    return { entries: page.entries, next: page.next }
  }

  /** Leaves. The object can't be used again; join anew. */
  leave() {
    if (this.state === 'left') return
    this.#client._leave(this)
    this._to('left')
  }

  /** Where the next join begins. */
  get _position() {
    return this.cursor ?? this.#from
  }

  _to(state, error = null) {
    if (state !== 'joined') clearTimeout(this.#resetting)
    if (this.state === state && error === null) return
    this.state = state
    this.error = error
    if (state === 'refused') this.#ready.reject(error)
    if (state === 'left') this.#ready.reject(new ClosedError('closed', 'the room was left'))
    this._emit('state', { state, error })
  }

  _onJoined(head) {
    this.cursor ??= head
    this.reactions.clear()
    this._to('joined')
    this.#ready.resolve(this)
    // A node says how the room stands right after; of a room that is as rooms are, it says nothing.
    const { closed, slow, pin, announcement, topic, properties } = this.info
    if (closed || slow || pin || announcement || topic || Object.keys(properties).length > 0) {
      clearTimeout(this.#resetting)
      this.#resetting = setTimeout(() => this._onInfo({ topic: null, properties: {} }), 1_000)
    }
  }

  _onFrame(frame) {
    // Of an earlier stay in a room that was left and joined again; `joined` comes first.
    if (this.state !== 'joined') return
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
        return this._onInfo(frame)
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

  _onInfo({ closed = false, slow = 0, pin = null, announcement = null, topic, properties }) {
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
    this._emit('presence', { members: this.members, count: this.count, join: frame.join, leave: frame.leave, room: this.name })
  }
}

class Client extends Emitter {
  /** `idle` (nothing to be connected for), `connecting`, `open`, `waiting` or `closed`. */
  state = 'idle'
  /** Who the client is, once that is known; null before, and for who is nobody. */
  user = null
  /** What is sent to this user, as a room; null with `inbox: false`. */
  inbox = null

  #urls
  #options
  #WebSocket
  #url = 0
  #rooms = new Map()
  #home = null
  #socket = null
  #isOpen = false
  #attempts = 0
  #rejected = 0
  #waitMs = null
  #timers = new Map()
  #requests = new Map()
  #count = 0
  #prefix = randomText()
  #frames = []
  #budget = FRAMES_AT_ONCE
  #rate = FRAMES_PER_SECOND
  #refilled = 0
  #scheduled = false
  #unlisten = () => {}
  /** Why a node sent the client away for good. */
  #ended = null

  constructor(urls, options) {
    super()
    const list = (Array.isArray(urls) ? urls : [urls]).map(baseOf)
    if (list.length === 0) throw new TypeError('connect: give the URL of a node')
    this.#urls = list
    this.#options = { ...DEFAULTS, ...options }
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket
    if (!this.#WebSocket) throw new TypeError('connect: there is no WebSocket here; pass `WebSocket`, as of the package ws')
    if (options.user !== undefined && options.user !== null) this.user = String(options.user)
    if (options.inbox !== false) {
      const from = options.inbox === true ? 'now' : options.inbox
      this.inbox = new Room(this, this.user ? `@${this.user}` : null, { from })
    }
    this.#listen()
    if (this.user && this.inbox) this.#schedule()
  }

  /**
   * Joins a room, or gives the one that was joined already. Of a client that was sent away for good, it's
   * refused as the others are; after `close()` there is none.
   */
  join(name, { from, presence } = {}) {
    if (this.state === 'closed' && !this.#ended) throw new ClosedError('closed', 'the client is closed')
    const known = this.#rooms.get(name)
    if (known) return known
    check(name, from)
    const room = new Room(this, name, { from, presence })
    if (this.#ended) {
      room._to('refused', this.#ended)
      return room
    }
    this.#rooms.set(name, room)
    if (this.#isOpen) this.#sendJoin(room)
    else this.#schedule()
    return room
  }

  /** The rooms it is in, or wants to be in. */
  get rooms() {
    return [...this.#rooms.values()]
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
  presence(room, { limit = 100 } = {}) {
    return this.get(`/rooms/${encodeURIComponent(room)}/presence?limit=${limit}`)
  }

  /** A GET over HTTP with this client's credentials, of whichever node answers: its JSON. */
  get(path) {
    return this.request('GET', path)
  }

  /** A request over HTTP with this client's credentials. Only a GET is repeated at another node. */
  async request(method, path, body) {
    const fetch = this.#options.fetch ?? globalThis.fetch
    const headers = { Accept: 'application/json' }
    const token = await this.#token()
    if (token) headers.Authorization = `Bearer ${token}`
    if (body !== undefined) headers['Content-Type'] = 'application/json'
    let failure
    for (let tried = 0; tried < (method === 'GET' ? this.#urls.length : 1); tried++) {
      const url = new URL(this.#urls[(this.#url + tried) % this.#urls.length].http + path)
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
        failure = new TailcastError('network', `${method} ${path}: ${error.message}`)
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
    if (this.state !== 'waiting') return
    this.#stopTimer('reconnect')
    this.#open()
  }

  /** Ends it: rooms are left, and what is not answered yet fails. */
  close() {
    this.#end(new ClosedError('closed', 'the client is closed'))
  }

  // Rooms and requests.

  _leave(room) {
    this.#rooms.delete(room.name)
    if (this.#isOpen) this.#write({ type: 'leave', room: room.name })
    if (this.#rooms.size === 0 && !this.#homeName()) this.#rest()
  }

  _publish(target, message, { key, ephemeral = false, timeout } = {}) {
    if (typeof message !== 'string' && (message === null || typeof message !== 'object' || Array.isArray(message))) {
      const text = 'a message is text, or an object of fields, as {text: "hello"}; a value is text, or {base64: "…"}'
      return Promise.reject(new RefusedError('bad_request', text))
    }
    const content = typeof message === 'string' ? { message } : { fields: message }
    const frame = { type: 'publish', ...target, ...content }
    if (ephemeral) {
      if (!this.#isOpen) return Promise.reject(new TailcastError('offline', 'there is no connection to show it over'))
      frame.ephemeral = true
    } else {
      frame.key = key ?? `${this.#prefix}-${this.#count}`
    }
    const most = timeout ?? this.#options.publishTimeout
    return this._request(frame, { timeout: Math.min(most, PUBLISH_TIMEOUT_MAX), repeats: !ephemeral })
  }

  /** Sends what is not repeated and not answered. */
  _now(frame) {
    if (!this.#isOpen) throw new TailcastError('offline', 'there is no connection')
    this.#write(frame)
  }

  _request(frame, { timeout = this.#options.requestTimeout, repeats = false } = {}) {
    if (this.state === 'closed') return Promise.reject(new ClosedError('closed', 'the client is closed'))
    const ref = ++this.#count
    return new Promise((resolve, reject) => {
      const request = { ref, frame: { ...frame, ref }, resolve, reject, repeats, isSent: false, tries: 0, timer: null, again: null }
      request.timer = setTimeout(() => {
        this.#settle(request)
        reject(new TimeoutError('no answer in time; it may be done all the same', { key: frame.key, room: frame.room }))
      }, timeout)
      this.#requests.set(ref, request)
      this.#flush()
      this.#schedule()
    })
  }

  #settle(request) {
    clearTimeout(request.timer)
    clearTimeout(request.again)
    this.#requests.delete(request.ref)
    this.#flush()
  }

  #fail(request, error) {
    this.#settle(request)
    request.reject(error)
  }

  /** Sends the requests that wait, in their order, as far as there may be more under way. */
  #flush() {
    if (!this.#isOpen) return
    let underWay = 0
    for (const request of this.#requests.values()) {
      if (underWay >= IN_FLIGHT) return
      underWay += 1
      if (request.isSent || request.again !== null) continue
      request.isSent = true
      this.#write(request.frame)
    }
  }

  /** Sends a frame as soon as the pace allows. */
  #write(frame) {
    this.#frames.push(frame)
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
      this.#socket.send(JSON.stringify(this.#frames.shift()))
    }
  }

  #sendJoin(room) {
    room._to('joining')
    const frame = { type: 'join', room: room.name, from: room._position }
    if (room.presence) frame.presence = true
    this.#write(frame)
  }

  // The connection.

  /** Connects soon, if there is something to connect for; rooms joined in the same turn come along. */
  #schedule() {
    if (this.#scheduled || this.state !== 'idle' || !this.#homeName()) return
    this.#scheduled = true
    queueMicrotask(() => {
      this.#scheduled = false
      if (this.state === 'idle' && this.#homeName()) this.#open()
    })
  }

  /** The room of the socket's URL: it has to have one. */
  #homeName() {
    for (const room of this.#rooms.values()) if (room.state !== 'refused') return room.name
    if (this.inbox && this.user && this.inbox.state !== 'refused') return `@${this.user}`
    for (const { frame } of this.#requests.values()) if (frame.room) return frame.room
    return null
  }

  #socketUrl() {
    const home = this.#homeName()
    this.#home = home
    const query = new URLSearchParams({ room: home })
    const room = this.#rooms.get(home) ?? (this.inbox?.name === home ? this.inbox : null)
    if (room) query.set('from', room._position)
    if (room?.presence) query.set('presence', '1')
    if (room !== this.inbox || !this.inbox) query.set('inbox', this.inbox ? this.inbox._position : '0')
    if (this.#options.user) query.set('user', this.#options.user)
    return `${this.#urls[this.#url].ws}/?${query}`
  }

  async #open() {
    this.#to('connecting', { url: this.#urls[this.#url].ws })
    const attempt = {}
    this.#attempt = attempt
    this.#timer('connect', this.#options.connectTimeout, () => this.#lost(attempt, 4408, 'no answer in time'))
    let token
    try {
      token = await this.#token()
    } catch (error) {
      return this.#lost(attempt, 4401, `no token: ${error.message}`)
    }
    if (this.#attempt !== attempt) return
    if (!this.#homeName()) return this.#rest()
    let socket
    try {
      socket = new this.#WebSocket(this.#socketUrl(), [SUBPROTOCOL])
    } catch (error) {
      return this.#lost(attempt, 1006, error.message)
    }
    attempt.socket = socket
    socket.onopen = () => {
      if (this.#attempt === attempt) this.#onOpen(socket, token)
    }
    socket.onmessage = (event) => {
      if (this.#attempt === attempt) this.#onText(attempt, event.data)
    }
    // A close follows every error.
    socket.onerror = () => {}
    socket.onclose = (event) => this.#lost(attempt, event.code, event.reason)
  }

  #attempt = null

  #onOpen(socket, token) {
    this.#socket = socket
    this.#frames = []
    this.#budget = FRAMES_AT_ONCE
    this.#refilled = Date.now()
    if (token) {
      this.#write({ type: 'auth', token })
      this.#renewLater(token)
    }
    this.#isOpen = true
    this.#stopTimer('connect')
    this.#lastHeard = Date.now()
    for (const room of this.#rooms.values()) {
      if (room.name !== this.#home && room.state !== 'refused') this.#sendJoin(room)
    }
    for (const request of this.#requests.values()) request.isSent = false
    this.#flush()
    this.#listenForLife()
  }

  #onText(attempt, text) {
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
        return this.#onAnswer(frame)
      case 'error':
        return this.#onError(frame)
      case 'authenticated':
        if (frame.user) this.#is(frame.user)
        this.#rejected = 0
        return
      case 'bye':
        this.#waitMs = frame.retry_ms
        return
      case 'left': {
        const room = this.#roomOf(frame.room)
        if (room && frame.code) this.#refuse(room, new RefusedError(frame.code, frame.message, { room: frame.room }))
        else if (room && room.state === 'joined') {
          // A fresh token no longer grants it.
          this.#refuse(room, new RefusedError('forbidden', 'the token no longer grants this room', { room: frame.room }))
        }
        return
      }
      case 'pong':
        return
      default:
        this.#roomOf(frame.room)?._onFrame(frame)
    }
  }

  #is(user) {
    if (this.user !== user) {
      this.user = user
      this._emit('user', user)
    }
    if (this.inbox) this.inbox.name = `@${user}`
  }

  #roomOf(name) {
    if (name === undefined) return null
    return this.#rooms.get(name) ?? (this.inbox?.name === name ? this.inbox : null)
  }

  #onJoined(frame) {
    let room = this.#roomOf(frame.room)
    // With a cookie it's the inbox that tells who we are.
    if (!room && this.inbox && !this.inbox.name && frame.room.startsWith('@')) {
      this.#is(frame.room.slice(1))
      room = this.inbox
    }
    this.#attempts = 0
    this.#rejected = 0
    if (this.state !== 'open') this.#to('open', { url: this.#urls[this.#url].ws })
    room?._onJoined(frame.head)
  }

  #onAnswer(frame) {
    const request = this.#requests.get(frame.ref)
    if (!request) return
    this.#settle(request)
    const { type, ref, ...answer } = frame
    request.resolve(answer)
  }

  #onError(frame) {
    const error = new RefusedError(frame.code, frame.message, { retryMs: frame.retry_ms, room: frame.room })
    const request = this.#requests.get(frame.ref)
    if (request && request.repeats && PASSING_CODES.has(frame.code)) return this.#again(request)
    if (request) return this.#fail(request, error)
    const room = this.#roomOf(frame.room)
    if (room && room.state === 'joining') return this.#refuse(room, error)
    if (frame.code === 'too_fast') return this.#onTooFast(frame.retry_ms ?? 1000)
    this._emit('error', error)
  }

  /** Some frame was ignored, and it's not known which one. */
  #onTooFast(retryMs) {
    this.#rate = Math.max(2, this.#rate / 2)
    this.#frames = []
    this.#timer('pace', retryMs + 1000, () => {
      for (const room of this.#rooms.values()) {
        if (room.state === 'joining' && room.name !== this.#home) this.#sendJoin(room)
      }
      for (const request of this.#requests.values()) request.isSent = !request.repeats && request.isSent
      this.#flush()
      this.#pump()
    })
  }

  /** Redis is away: the same publish again, in a while. */
  #again(request) {
    request.tries += 1
    request.isSent = false
    request.again = setTimeout(() => {
      request.again = null
      this.#flush()
    }, backoff(this.#options.backoffMin, 5_000, request.tries))
  }

  #refuse(room, error) {
    this.#rooms.delete(room.name)
    room._to('refused', error)
  }

  /** The socket has ended, or is given up. */
  #lost(attempt, code, reason) {
    if (this.#attempt !== attempt) return
    this.#drop()
    for (const room of [...this.#rooms.values(), ...(this.inbox ? [this.inbox] : [])]) {
      if (room.state === 'joined') room._to('joining')
    }
    for (const request of [...this.#requests.values()]) {
      if (request.isSent && !request.repeats) {
        this.#fail(request, new TimeoutError('the connection was lost before there was an answer', { room: request.frame.room }))
      }
    }
    if (!this.#mayComeBack(code, reason)) return
    if (!this.#homeName()) return this.#rest()
    this.#attempts += 1
    const { backoffMin, backoffMax } = this.#options
    let wait = this.#waitMs ?? backoff(backoffMin, backoffMax, this.#attempts)
    if (code === 4429) wait = Math.max(wait, 5_000)
    this.#waitMs = null
    this.#url = (this.#url + 1) % this.#urls.length
    this.#to('waiting', { code, reason, retryMs: wait, attempt: this.#attempts })
    this.#timer('reconnect', wait, () => this.#open())
  }

  /** Whether another connection can help; ends the client, or does without a room or a request, if not. */
  #mayComeBack(code, reason) {
    const error = new RefusedError(`close_${code}`, reason || `closed with ${code}`)
    switch (code) {
      case 4401: {
        error.code = 'unauthenticated'
        this.#rejected += 1
        // A function may come up with another token. Twice in a row, it does not.
        const may = typeof this.#options.token === 'function' && this.#rejected < 3
        if (!may) this.#end(error)
        return may
      }
      case 4403: {
        error.code = /credential|authenticate/.test(reason) ? 'unauthenticated' : 'forbidden'
        const home = this.#rooms.get(this.#home)
        // It was about the room in the URL; the others can go on without it.
        if (error.code === 'forbidden' && home) {
          if (/^banned/.test(reason)) error.code = 'banned'
          error.room = home.name
          this.#refuse(home, error)
          return true
        }
        this.#end(error)
        return false
      }
      case 1009: {
        const sent = [...this.#requests.values()].filter((request) => request.isSent)
        const size = (request) => JSON.stringify(request.frame).length
        const largest = sent.sort((a, b) => size(b) - size(a))[0]
        if (!largest) break
        this.#fail(largest, new RefusedError('too_large', reason || 'the frame is too large', { room: largest.frame.room }))
        return true
      }
    }
    if (FINAL_CODES.has(code)) {
      this.#end(error)
      return false
    }
    return true
  }

  /** Nothing to be connected for. */
  #rest() {
    this.#drop()
    if (this.state !== 'closed') this.#to('idle', {})
  }

  /** Lets go of the socket. Browsers wait long for the other side of a close, so nobody waits here. */
  #drop() {
    const socket = this.#attempt?.socket
    this.#attempt = null
    this.#socket = null
    this.#isOpen = false
    this.#frames = []
    for (const name of [...this.#timers.keys()]) this.#stopTimer(name)
    if (socket && socket.readyState < 2) socket.close(1000)
  }

  #end(error) {
    if (this.state === 'closed') return
    this.#drop()
    this.#unlisten()
    this.#ended = error instanceof ClosedError ? null : error
    this.#to('closed', { error: this.#ended, code: error.code, reason: error.message })
    for (const request of [...this.#requests.values()]) {
      this.#fail(request, new ClosedError(error.code, error.message, { room: request.frame.room }))
    }
    for (const room of [...this.#rooms.values(), ...(this.inbox ? [this.inbox] : [])]) {
      if (this.#ended) room._to('refused', this.#ended)
      else room._to('left')
    }
    this.#rooms.clear()
  }

  #to(state, rest) {
    this.state = state
    this._emit('state', { state, ...rest })
  }

  // Signs of life, and tokens.

  #lastHeard = 0

  #heard() {
    this.#lastHeard = Date.now()
    this.#stopTimer('pong')
  }

  #listenForLife() {
    const silent = Date.now() - this.#lastHeard
    const wait = Math.max(this.#options.pingInterval - silent, 0)
    this.#timer('ping', wait || this.#options.pingInterval, () => {
      if (wait === 0 || Date.now() - this.#lastHeard >= this.#options.pingInterval) this.#ping()
      this.#listenForLife()
    })
  }

  /** A page is not told of a connection that has silently gone. */
  #ping() {
    const attempt = this.#attempt
    if (!this.#isOpen || this.#timers.has('pong')) return
    this.#timer('pong', this.#options.pongTimeout, () => this.#lost(attempt, 4408, 'silent'))
    this.#write({ type: 'ping' })
  }

  /** A page that comes back to light, or to a network, does not wait for its timers. */
  #listen() {
    if (typeof globalThis.addEventListener !== 'function' || typeof document === 'undefined') return
    const wake = () => {
      if (document.visibilityState === 'hidden') return
      if (this.state === 'waiting') this.reconnect()
      else this.#ping()
    }
    globalThis.addEventListener('online', wake)
    document.addEventListener('visibilitychange', wake)
    this.#unlisten = () => {
      globalThis.removeEventListener('online', wake)
      document.removeEventListener('visibilitychange', wake)
    }
  }

  async #token() {
    const { token } = this.#options
    return typeof token === 'function' ? await token() : token
  }

  /** Brings a fresh token before this one ends, if there is a function to ask. */
  #renewLater(token) {
    if (typeof this.#options.token !== 'function') return
    const end = endOf(token)
    if (end === null) return
    const left = end - Date.now()
    // A minute before, or in the last fifth of a short one; a timer takes at most 2^31 ms.
    const wait = Math.min(Math.max(left - Math.max(60_000, left / 5), left / 2, 1_000), 2_000_000_000)
    this.#timer('renew', wait, async () => {
      try {
        const fresh = await this.#token()
        if (!this.#isOpen || !fresh) return
        this.#write({ type: 'auth', token: fresh })
        this.#renewLater(fresh)
      } catch (error) {
        this._emit('error', new TailcastError('token', `no fresh token: ${error.message}`))
        this.#renewLater(token)
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

/** What a node would refuse with the handshake, where a browser does not tell why. */
function check(name, from) {
  const size = new TextEncoder().encode(name).length
  if (typeof name !== 'string' || size < 1 || size > 256 || /\p{Cc}/u.test(name) || name.startsWith('tailcast:')) {
    throw new RefusedError('bad_room', 'a room has a name of 1 to 256 bytes, without control characters, not beginning with `tailcast:`')
  }
  if (from !== undefined && !/^(now|start|\d+(-\d+)?|last:\d+|ago:\d+[smhd])$/.test(from)) {
    throw new RefusedError('bad_from', 'from is now, start, an entry ID, last:50 or ago:10m')
  }
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
