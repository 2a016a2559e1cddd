/** A client for tailcast. See README.md, and CONTRACT.md of the server. */

/** An entry's ID, `ms-seq`. Within a room they strictly increase. */
export type EntryId = `${bigint}-${bigint}`

/** Where a room begins: `now`, `start`, what follows an ID, `last:50` or `ago:10m`. `isPosition` checks a string. */
export type Position = 'now' | 'start' | EntryId | `${bigint}` | `last:${bigint}` | `ago:${bigint}${'s' | 'm' | 'h' | 'd'}`

/** A field's value: text, or bytes that are none. */
export type Value = string | { base64: string }

/** An entry's fields; a repeated name has an array. */
export type Fields = Record<string, Value | Value[]>

export interface Entry {
  id: EntryId
  fields: Fields
}

export interface RoomEntry extends Entry {
  room: string
}

/** Entries that nobody can have any more: those after `after` and before `before`. */
export interface Gap {
  room: string
  after: EntryId
  before: EntryId
  reason: 'trimmed' | 'deleted' | 'rewound'
}

/** What sets somebody apart in a room; who only takes part or looks on has none of these. */
export type LeadingRole = 'host' | 'cohost' | 'moderator'

export interface Member {
  user: string
  name: string | null
  /** By their token; null as well where anybody is believed. When it changes, `presence` says so. */
  role: LeadingRole | null
}

export interface Presence {
  room: string
  members: ReadonlyMap<string, Member>
  /** How many are here; `members` is empty in rooms too large for names. */
  count: number
  /** Everybody anew, if what was known is replaced. */
  join: { user: string; name?: string; role?: LeadingRole }[]
  leave: { user: string }[]
}

export interface Reactions {
  room: string
  /** Those since the last of these events. */
  counts: Record<string, number>
  totals: ReadonlyMap<string, number>
}

export interface Pin {
  id?: EntryId
  user?: string
  message: string
  by: string
  at: number
}

export interface RoomInfo {
  closed: boolean
  /** Seconds between two messages of a user; 0 is no slow mode. */
  slow: number
  pin: Pin | null
  announcement: { message: string; by: string; at: number } | null
  topic: string | null
  properties: Record<string, string>
}

export interface Ephemeral {
  room: string
  user: string | null
  fields: Fields
}

export interface Moderated {
  room: string
  act: string
  /** Unix milliseconds. */
  until: number | null
  reason: string | null
}

export interface RoomEvents {
  entry: RoomEntry
  gap: Gap
  presence: Presence
  reactions: Reactions
  room: RoomInfo
  deleted: { room: string; ids: EntryId[] }
  ephemeral: Ephemeral
  /** A moderator has done something to this very user. */
  moderated: Moderated
  state: RoomStateEvent
}

/** `error` is there exactly if the room was refused. */
export type RoomStateEvent = { state: 'joining' | 'joined' | 'left'; error: null } | { state: 'refused'; error: TailcastError }

export type RoomState = 'joining' | 'joined' | 'refused' | 'left'

export type ClientState = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed'

export type ClientStateEvent =
  | { state: 'idle' }
  | { state: 'connecting' | 'open'; url: string }
  | {
      state: 'waiting'
      /** The close code of the last connection. */
      code: number
      reason: string
      /** Until the next try. */
      retryMs: number
      attempt: number
    }
  | {
      state: 'closed'
      /** Why it was closed for good; null after `close()`. */
      error: TailcastError | null
      code: ErrorCode
      reason: string
    }

/** What `error.code` can be. A later node may have further codes. */
export type ErrorCode =
  // Of this client.
  | 'aborted'
  | 'bad_path'
  | 'closed'
  | 'handshake_refused'
  | 'network'
  | 'offline'
  | 'origin_not_allowed'
  | 'queue_full'
  | 'timeout'
  | 'token'
  | 'unauthorized'
  // Of nodes.
  | 'auth_unavailable'
  | 'bad_from'
  | 'bad_json'
  | 'bad_request'
  | 'bad_room'
  | 'bad_user'
  | 'banned'
  | 'busy'
  | 'draining'
  | 'forbidden'
  | 'internal'
  | 'muted'
  | 'not_found'
  | 'not_replicated'
  | 'reserved_field'
  | 'room_too_fast'
  | 'slow_mode'
  | 'too_fast'
  | 'too_large'
  | 'too_many_fields'
  | 'too_many_rooms'
  | 'unauthenticated'
  | `close_${number}`
  | `http_${number}`
  | (string & {})

export interface ClientEvents {
  /** Of the first socket. Rooms have a state of their own. */
  state: ClientStateEvent
  /** It's known who the client is. */
  user: string
  /** What belongs to no request and no room. With `origin_not_allowed` and `handshake_refused` no socket opens though
   * the network is there; the client goes on trying. */
  error: TailcastError
}

export interface Options {
  /** A JWT, or where to get one. It goes in the first frame, never in the URL; a function is asked
   * again before each connection and before the token ends. One that gives nothing is for an anonymous client. If it
   * throws, or does not answer within `connectTimeout`, it's asked again later; only an `UnauthorizedError`, or an error
   * whose `code` is `unauthorized`, ends the client. */
  token?: string | null | (() => string | null | undefined | Promise<string | null | undefined>)
  /** Who to be, at nodes that believe anybody (`--auth none`). Elsewhere the token or cookie says so; if this says
   * the same, the inbox is there before any room is joined. */
  user?: string
  /** Where the user's inbox begins (default `now`), or false for none. */
  inbox?: Position | boolean
  /** A WebSocket constructor, where there is no global one: of the package ws in Node before 22. */
  WebSocket?: new (url: string, protocols: string[]) => object
  /** `fetch`, where there is no global one. */
  fetch?: typeof fetch
  /** Of HTTP requests; `include` for cookies of another origin. Default `same-origin`. */
  credentials?: 'omit' | 'same-origin' | 'include'
  /** First and longest wait before a reconnect, in ms. Default 200 and 15,000. */
  backoffMin?: number
  backoffMax?: number
  /** For a handshake, in ms. Default 10,000. */
  connectTimeout?: number
  /** Silence after which to ask whether the node is there, and for its answer, in ms. Default 20,000 and 10,000. */
  pingInterval?: number
  pongTimeout?: number
  /** How long a publish is repeated after it was first sent, in ms, at most 240,000: nodes forget keys after 5 minutes.
   * Default 60,000. Until it's sent, it waits for a connection without end. */
  publishTimeout?: number
  /** How many requests may wait for a connection or an answer, and how many bytes; more are refused with
   * `queue_full`. Default 1,000 and 4,194,304. */
  queueMax?: number
  queueBytesMax?: number
  /** For any other answer, in ms. Default 30,000. */
  requestTimeout?: number
}

export interface PublishOptions {
  /** An idempotency key of your own, to repeat a publish later. One is made if there is none. */
  key?: string
  /** Shown to whoever is there now, and not stored. */
  ephemeral?: boolean
  /** In ms from the first time it's sent; see `publishTimeout`. */
  timeout?: number
  /** Gives up, also before it's sent: the promise rejects with an `AbortedError`. */
  signal?: AbortSignal
  /** For a repeat under a `key` of an earlier page or process: when that was sent first, in Unix ms. Once 4 minutes have
   * passed since then, it's not sent any more: the promise rejects with a `TimeoutError`. */
  firstSentAt?: number
  /** Called just before it's first sent, with the time in Unix ms. */
  onFirstSend?: (at: number) => void
}

export interface Published {
  room: string
  /** null for what is ephemeral. */
  id: EntryId | null
}

/** Text, or fields. An interface of your own does as well, if its members are text or `{base64}`. */
export type Message<Content = Record<string, Value>> = string | { [Name in keyof Content]: Value }

/** What an object of fields has to be like, as a bound for itself: that lets interfaces in. */
export type FieldsOf<Content> = object & { [Name in keyof Content]: Value }

export interface Page {
  entries: Entry[]
  /** The `before` (or `after`) of the next page; null at the end. */
  next: EntryId | null
}

export type Act =
  | { act: 'mute' | 'timeout' | 'ban'; user: string; seconds?: number; reason?: string }
  | { act: 'unmute' | 'unban'; user: string; reason?: string }
  | { act: 'delete'; id: EntryId; reason?: string }
  | { act: 'delete'; user: string; reason?: string }
  | { act: 'close' | 'open' | 'unpin' | 'unannounce' | 'untopic'; reason?: string }
  | { act: 'slow'; seconds: number; reason?: string }
  | { act: 'pin'; id: EntryId }
  | { act: 'pin' | 'announce' | 'topic'; message: string }
  /** A name has 1 to 64 of a-z, 0-9, `_` and `-`; a value at most 1,000 bytes. */
  | { act: 'property'; name: string; value: string }
  | { act: 'unproperty'; name: string }

export interface Done {
  room: string
  act: string
  audit: EntryId
  until?: number
  deleted?: number
}

declare class Emitter<Events> {
  /** Calls `listener` with each event of that name; the result takes it away again. */
  on<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): () => void
  off<Name extends keyof Events>(name: Name, listener: (event: Events[Name]) => void): void
}

/** One holder of a room: each `join` gives one. */
export declare class Room extends Emitter<RoomEvents> {
  private constructor()
  readonly name: string
  readonly state: RoomState
  readonly error: TailcastError | null
  /** The ID to resume from. */
  readonly cursor: EntryId | undefined
  readonly members: ReadonlyMap<string, Member>
  readonly count: number
  readonly reactions: ReadonlyMap<string, number>
  readonly info: RoomInfo
  /** Resolves once it's joined for the first time; rejects if it's refused, with the same error as `error`. */
  readonly ready: Promise<Room>
  publish<Content extends FieldsOf<Content>>(message: string | Content, options?: PublishOptions): Promise<Published>
  react(reaction: string): void
  moderate(act: Act): Promise<Done>
  /** A page, oldest first: the newest entries, those before an ID, or those after one. */
  history(query?: { before?: EntryId; after?: EntryId; limit?: number }): Promise<Page>
  /** Leaves; other holders of the same room stay. */
  leave(): void
}

export declare class Client extends Emitter<ClientEvents> {
  private constructor()
  readonly state: ClientState
  readonly user: string | null
  /** What is sent to this user. */
  readonly inbox: Room | null
  readonly rooms: Room[]
  /** A room at once: a holder of its own for each call, with its own `leave`. Without `from`, or with the same one before
   * the room is joined, holders share what comes. Another `from`, or `presence` where the first holder has none, is a
   * place of its own in the room, on another socket. Of a client that was sent away for good, the room is `refused`.
   * Throws a RefusedError for what can be no room or position, and a ClosedError after `close()`. */
  join(room: string, options?: { from?: Position; presence?: boolean }): Room
  publish<Content extends FieldsOf<Content>>(room: string, message: string | Content, options?: PublishOptions): Promise<Published>
  sendTo<Content extends FieldsOf<Content>>(user: string, message: string | Content, options?: PublishOptions): Promise<Published>
  /** A page, oldest first, without joining: the newest entries, those before an ID, or those after one. */
  history(room: string, query?: { before?: EntryId; after?: EntryId; limit?: number }): Promise<Page>
  presence(room: string, options?: { limit?: number }): Promise<{
    count: number
    users: { user: string; name?: string; role?: LeadingRole; devices: number; since: number }[]
    truncated: boolean
  }>
  get<T = unknown>(path: string): Promise<T>
  /** Throws `bad_path` for a path with `.` or `..` between slashes: a URL would lose it without a word. */
  request<T = unknown>(method: string, path: string, body?: unknown): Promise<T>
  /** Tries now, if it waits for the next try. */
  reconnect(): void
  close(): void
}

export declare function connect(urls: string | string[], options?: Options): Client

export declare class TailcastError extends Error {
  constructor(
    code: ErrorCode,
    message: string,
    details?: { retryMs?: number; room?: string; status?: number; key?: string; sent?: boolean; cause?: unknown },
  )
  code: ErrorCode
  /** When it makes sense to try again, in ms. */
  retryMs?: number
  room?: string
  /** Of HTTP. */
  status?: number
  /** Of a publish that was not answered: repeat it under this key, within 4 minutes of its first sending, to be sure. */
  key?: string
  /** Of a request that was not answered: whether it was sent, so that it may have been done. */
  sent?: boolean
}

/** A node said no. */
export declare class RefusedError extends TailcastError {}

/** The client was closed before there was an answer. */
export declare class ClosedError extends TailcastError {}

/** A publish was aborted by its signal, whose reason is the `cause`. */
export declare class AbortedError extends TailcastError {}

/** To be thrown by a `token` function: there is no token, and asking again will not help. It ends the client. */
export declare class UnauthorizedError extends TailcastError {
  constructor(message?: string)
}

/** No answer in time: it may have been done. */
export declare class TimeoutError extends TailcastError {
  constructor(message: string, details?: { key?: string; room?: string; sent?: boolean })
}

/** Whether a text can be the `from` of a room. */
export declare function isPosition(text: string): text is Position

/** Orders two IDs: negative if `a` is the earlier one. */
export declare function compareIds(a: EntryId, b: EntryId): number

/** When an entry was stored: Unix milliseconds. */
export declare function timeOf(id: EntryId): number
