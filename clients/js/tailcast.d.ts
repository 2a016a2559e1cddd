/** A client for tailcast. See README.md, and CONTRACT.md of the server. */

/** An entry's ID, `ms-seq`. Within a room they strictly increase. */
export type EntryId = string

/** Where a room begins: `now`, `start`, what follows an ID, `last:50` or `ago:10m`. */
export type Position = 'now' | 'start' | EntryId | `last:${number}` | `ago:${string}`

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
  state: { state: RoomState; error: TailcastError | null }
}

export type RoomState = 'joining' | 'joined' | 'refused' | 'left'

export type ClientState = 'idle' | 'connecting' | 'open' | 'waiting' | 'closed'

export interface ClientEvents {
  state: {
    state: ClientState
    url?: string
    /** Close code, or for `closed` a word. */
    code?: number | string
    reason?: string
    /** Until the next try. */
    retryMs?: number
    attempt?: number
    /** Why it was closed for good; null after `close()`. */
    error?: TailcastError | null
  }
  /** It's known who the client is. */
  user: string
  /** What belongs to no request and no room. */
  error: TailcastError
}

export interface Options {
  /** A JWT, or where to get one. It goes in the first frame, never in the URL; a function is asked
   * again before each connection and before the token ends. */
  token?: string | (() => string | Promise<string>)
  /** Who to be, at nodes that believe anybody (`--auth none`). Elsewhere the token or cookie says so; if this says
   * the same, the inbox is there before any room is joined. */
  user?: string
  /** Where the user's inbox begins (default `now`), or false for none. */
  inbox?: Position | boolean
  /** A WebSocket constructor, where there is no global one. */
  WebSocket?: unknown
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
  /** How long a publish is repeated, in ms, at most 240,000: nodes forget keys after 5 minutes. Default 60,000. */
  publishTimeout?: number
  /** For any other answer, in ms. Default 30,000. */
  requestTimeout?: number
}

export interface PublishOptions {
  /** An idempotency key of your own, to repeat a publish later. One is made if there is none. */
  key?: string
  /** Shown to whoever is there now, and not stored. */
  ephemeral?: boolean
  /** In ms; see `publishTimeout`. */
  timeout?: number
}

export interface Published {
  room: string
  /** null for what is ephemeral. */
  id: EntryId | null
}

export type Message = string | Record<string, Value>

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
  publish(message: Message, options?: PublishOptions): Promise<Published>
  react(reaction: string): void
  moderate(act: Act): Promise<Done>
  /** A page, oldest first: the newest entries, those before an ID, or those after one. */
  history(query?: { before?: EntryId; after?: EntryId; limit?: number }): Promise<Page>
  leave(): void
}

export declare class Client extends Emitter<ClientEvents> {
  private constructor()
  readonly state: ClientState
  readonly user: string | null
  /** What is sent to this user. */
  readonly inbox: Room | null
  readonly rooms: Room[]
  /** A room at once; of a client that was sent away for good, one that is `refused`. Throws a RefusedError for what
   * can be no room or position, and a ClosedError after `close()`. */
  join(room: string, options?: { from?: Position; presence?: boolean }): Room
  publish(room: string, message: Message, options?: PublishOptions): Promise<Published>
  sendTo(user: string, message: Message, options?: PublishOptions): Promise<Published>
  presence(room: string, options?: { limit?: number }): Promise<{
    count: number
    users: { user: string; name?: string; role?: LeadingRole; devices: number; since: number }[]
    truncated: boolean
  }>
  get<T = unknown>(path: string): Promise<T>
  request<T = unknown>(method: string, path: string, body?: unknown): Promise<T>
  /** Tries now, if it waits for the next try. */
  reconnect(): void
  close(): void
}

export declare function connect(urls: string | string[], options?: Options): Client

export declare class TailcastError extends Error {
  code: string
  /** When it makes sense to try again, in ms. */
  retryMs?: number
  room?: string
  /** Of HTTP. */
  status?: number
}

/** A node said no. */
export declare class RefusedError extends TailcastError {}

/** The client was closed before there was an answer. */
export declare class ClosedError extends TailcastError {}

/** No answer in time: it may be done all the same. */
export declare class TimeoutError extends TailcastError {
  /** Repeat the publish under this key, within 5 minutes, to be sure. */
  key?: string
}

/** Orders two IDs: negative if `a` is the earlier one. */
export declare function compareIds(a: EntryId, b: EntryId): number

/** When an entry was stored: Unix milliseconds. */
export declare function timeOf(id: EntryId): number
