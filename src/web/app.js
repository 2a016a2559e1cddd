// The chat page: puts its parts together. The client does what is hard: it resumes, repeats and dedupes.
import { connect } from './tailcast.js'
import { forgetDeleted } from './away.js'
import { Composer } from './composer.js'
import { arrange, avatar, byId, h, icon, kept, paintAvatar, toast } from './dom.js'
import { Inbox } from './inbox.js'
import { MessageList } from './messages.js'
import { Moderation } from './moderation.js'
import { Outbox, REPEAT_MAX } from './outbox.js'
import { People, setUpDrawers } from './people.js'
import { go, here, isHere, onPlace, start } from './place.js'
import { Reactions } from './reactions.js'
import { Rooms } from './rooms.js'
import { base, enter, forget } from './session.js'
import { linked, quoted, spell } from './text.js'
import { Timeline } from './timeline.js'
import { heldAgainst, say, sentence } from './words.js'

/** Entries that a room begins with, and that scrolling up loads at a time. */
const FIRST = 50
const MORE = 100

/** How often it's asked whether a ban is lifted, in ms. */
const BAN_EVERY = 10_000

/** What comes so soon after coming in was there before, in ms. */
const REPLAY = 500

/** How often it's noted how far one has read, while messages come, in ms. */
const SEEN_EVERY = 500

const ALL_RIGHTS = ['subscribe', 'publish', 'history', 'presence', 'moderate', 'announce']
const LEADERS = new Set(['host', 'cohost', 'moderator'])

const who = await enter()
const me = who.user ?? null
/** The key that the last room visited is kept under. */
const LAST_ROOM = `room.${me ?? ''}`
const client = connect(base, { user: me ?? undefined, inbox: me ? 'last:200' : false, publishTimeout: REPEAT_MAX })

const READ_ONLY = me || !who.accounts ? 'You can read here, but not write.' : 'You can read here.'

/** The room that the page is in; null in a conversation. */
let room = null
let rights = new Set(ALL_RIGHTS)
let role = null
let talk = null
let unseen = 0
/** The room that one is banned from, while the page is there; and timers. */
let banned = null
let banAsked
let moderatedUntil
let seeing
let showConnection = () => {}
let seenAt = 0
/** What is shown above the messages, by kind. */
const banners = new Map()

const outbox = new Outbox(me, {
  room: (name, text, options) => client.publish(name, text, options),
  dm: (user, text, options, patiently) => inbox.send(user, text, options, patiently),
})
const inbox = me ? new Inbox(client, me, outbox, onTalk) : null
const { closeDrawers } = setUpDrawers()
const rooms = new Rooms({ client, me, inbox, onTopic: (name, topic) => isHere({ kind: 'room', name }) && showTopic(topic), onStorage })
const moderation = new Moderation({ me, room: () => room, rights: () => rights, write: (user) => go({ kind: 'dm', name: user }) })
const people = new People({ me, onPick: (user, anchor) => moderation.aboutUser(user, anchor) })
const messages = new MessageList({ me, name: who.name ?? null, onMenu: (item, anchor) => moderation.aboutMessage(item, anchor) })
const reactions = new Reactions((reaction) => {
  try {
    room?.react(reaction)
  } catch (error) {
    toast(say(error), 'bad')
  }
})
const composer = new Composer(onSend)

byId('room-menu').append(icon('shield'))
byId('room-menu').addEventListener('click', (event) => moderation.aboutRoom(event.currentTarget))
byId('theme').append(icon('half'), icon('sun'), icon('moon'))
byId('logout').append(icon('leave'))
byId('logout').addEventListener('click', () => forget(who))
byId('logout').hidden = who.auth !== 'none' && !who.accounts
if (!me && who.accounts) byId('logout').setAttribute('aria-label', 'Log in')
byId('composer-login').hidden = Boolean(me) || !who.accounts
byId('composer-login').addEventListener('click', () => forget(who))
byId('me-name').textContent = who.name ?? me ?? 'anonymous'
byId('me-state').textContent = who.name && who.name !== me ? `@${me}` : ''
paintAvatar(byId('me-avatar'), me ?? '?')
byId('app').hidden = false

// Also when it's the place one is at.
byId('rooms-panel').addEventListener('click', (event) => event.target.closest('.place') && closeDrawers())

client.on('state', onConnection)
client.on('error', (error) => toast(say(error), 'bad'))
document.addEventListener('visibilitychange', () => document.hidden || (seen(), askBan()))
addEventListener('pagehide', () => seen())
onPlace(arrive)
outbox.resume()
start(firstRoom)

/** Where one comes in who said no place: the room of the last visit, the liveliest one, or the node's own. */
async function firstRoom() {
  const name = kept.read(LAST_ROOM) ?? (await rooms.latest()) ?? who.default_room ?? 'lobby'
  return { kind: 'room', name }
}

/** Comes to a room or a conversation. */
async function arrive(place) {
  closeDrawers()
  if (room?.cursor && !document.hidden) rooms.readTo(room.name, room.cursor)
  room?.leave()
  room = null
  talk = null
  clearTimeout(banAsked)
  clearTimeout(moderatedUntil)
  banned = null
  const { connection, storage } = Object.fromEntries(banners)
  banners.clear()
  if (connection) banners.set('connection', connection)
  if (storage) banners.set('storage', storage)
  showBanners()
  byId('refused').hidden = true
  byId('middle').classList.remove('is-refused')
  byId('messages').hidden = false
  for (const id of ['role', 'closed', 'slow', 'room-menu']) byId(id).hidden = true
  messages.showPeople(new Map())
  showTopic('')
  const sign = place.kind === 'dm' ? avatar(place.name, 'small') : h('span', { class: 'hash', 'aria-hidden': 'true' }, '#')
  byId('room-title').replaceChildren(sign, h('span', { class: 'title-text', dir: 'auto' }, place.name))
  byId('messages').setAttribute('aria-label', place.kind === 'dm' ? `Messages with ${place.name}` : `Messages in ${place.name}`)
  composer.to(`${place.kind} ${place.name}`, place.kind === 'dm' ? `Write to ${place.name}` : `Write in ${place.name}`)
  if (place.kind === 'dm') arriveAtTalk(place.name)
  else await arriveInRoom(place)
  seen()
  rooms.show()
  if (matchMedia('(hover: hover)').matches) byId('composer-text').focus({ preventScroll: true })
}

function arriveAtTalk(user) {
  if (!inbox) return refuse('Log in to send direct messages', 'Direct messages are between people with a name.')
  talk = inbox.talk(user)
  talk.timeline.news = inbox.news(talk)
  // Anybody's name is a place to write to, and nobody's is a promise that they read it.
  showTopic('Only the two of you can read this.')
  people.hide()
  byId('app').classList.add('in-talk')
  reactions.reset(false)
  const opened = talk
  messages.show(talk.timeline, `You and ${user}`, () =>
    opened.isNew || opened.timeline.items.length === 0
      ? `This is the beginning of your conversation with ${user}.`
      : `Your conversation with ${user}, as far back as it goes.`,
  )
}

async function arriveInRoom(place) {
  byId('app').classList.remove('in-talk')
  people.show({ members: new Map(), count: 0 })
  reactions.reset(true)
  rooms.visit(place.name)
  showTopic(rooms.topicOf(place.name) ?? '')
  const timeline = new Timeline(sourceOf(place.name), outbox.queue(place))
  const readTo = rooms.lastRead(place.name)
  timeline.news = readTo && { after: readTo, upTo: null }
  messages.show(timeline, `# ${place.name}`)
  const held = await readRights(place.name)
  if (!isHere(place)) return
  if (held?.banned) return ban(place, held.banned)
  // Nothing would come of a connection but a long wait.
  if (!rights.has('subscribe')) return refuseEntry()
  if (held?.muted) onModerated({ act: held.muted.until ? 'timeout' : 'mute', ...held.muted })
  // Where anybody is believed, everybody is host: that says nothing.
  byId('role').hidden = !role || who.auth === 'none'
  byId('role').textContent = role ?? ''
  byId('role').className = `chip ${role ?? ''}`
  byId('room-menu').hidden = !rights.has('moderate') && !rights.has('announce')
  byId('reactions').hidden = !rights.has('subscribe')
  if (!rights.has('publish')) composer.block(READ_ONLY)
  joinRoom(place, timeline, { from: rights.has('history') ? `last:${FIRST}` : 'now', presence: rights.has('presence') })
}

function joinRoom(place, timeline, options) {
  let joined
  try {
    joined = client.join(place.name, options)
  } catch (error) {
    rooms.forget(place.name)
    return refuse('This room can’t be opened', say(error, 'join'))
  }
  room = joined
  room.timeline = timeline
  timeline.hasHistory = options.from !== 'now'
  timeline.hasOlder = timeline.hasHistory
  let times = 0
  let isReplay = true
  room.on('entry', (entry) => {
    if (isReplay && timeline.news) timeline.news.upTo = entry.id
    timeline.append(entry)
    onNew(entry)
  })
  room.on('gap', (gap) => {
    timeline.gap(gap)
    if (gap.reason !== 'trimmed') rooms.restart(place.name, joined.cursor)
  })
  room.on('deleted', ({ ids }) => timeline.remove(ids))
  room.on('presence', (presence) => {
    people.show(presence)
    messages.showPeople(presence.members)
    rooms.count(place.name, presence.count)
  })
  room.on('reactions', (told) => reactions.show(told))
  room.on('room', showInfo)
  room.on('moderated', onModerated)
  room.on('ephemeral', ({ user, fields }) => {
    if (typeof fields.message === 'string') toast(`${user ?? 'Someone'}: ${fields.message}`)
  })
  room.on('state', ({ state, error }) => {
    if (state === 'joined') {
      times += 1
      kept.write(LAST_ROOM, place.name)
      seen()
      if (times === 1) {
        onFirst(joined, timeline)
        // What is replayed comes at once; nobody says where it ends.
        setTimeout(() => (isReplay = false), REPLAY)
      } else if (rights.has('history')) forgetDeleted(joined, timeline)
    }
    // Where the whole client was sent away, the page says so.
    if (state !== 'refused' || room !== joined || client.state === 'closed') return
    room = null
    // What rights there are is not always known before.
    if (error.code === 'forbidden' && options.from !== 'now') return joinRoom(place, timeline, { from: 'now', presence: false })
    // Whoever comes without a place begins elsewhere.
    if (error.code === 'bad_room') rooms.forget(place.name)
    if (kept.read(LAST_ROOM) === place.name) kept.write(LAST_ROOM, null)
    if (error.code === 'banned') return onBanned(place)
    if (error.code === 'forbidden') return refuseEntry()
    refuse('This room can’t be opened', say(error, 'join'))
  })
  if (joined.state === 'refused') refuse('The server closed the connection', sentence(joined.error.message))
}

/** With little in the room, there is nothing older to ask for. */
function onFirst(joined, timeline) {
  setTimeout(() => {
    if (timeline.items.length > 0 || !timeline.hasOlder) return
    timeline.hasOlder = false
    if (room === joined) messages.show(timeline, `# ${joined.name}`)
  }, 300)
}

/** Where a room's timeline has its messages from. */
function sourceOf(name) {
  const page = async (query) => {
    const { entries, next } = await client.history(name, { ...query, limit: MORE })
    return { entries, hasMore: next !== null }
  }
  return {
    older: (id) => page({ before: id }),
    newer: (id) => page({ after: id }),
  }
}

/** Reads what one may do in a room; comes back with what moderators have done to one there: `{banned, muted}`. */
async function readRights(name) {
  rights = new Set(ALL_RIGHTS)
  role = null
  if (!who.tells) return null
  try {
    const told = await askMe(name)
    if (told.rights) rights = new Set(told.rights)
    role = told.role ?? null
    return told
  } catch {
    // A server that does not say: what is refused shows it.
    return null
  }
}

function askMe(name) {
  return client.get(`/me?room=${encodeURIComponent(name)}`)
}

/** One has no right to be here, and perhaps no token at all. */
function refuseEntry() {
  if (me || who.auth === 'none') return refuse('You don’t have access to this room', 'Ask a host to let you in, or choose another room.')
  if (who.accounts) return refuse('Log in to see this room', 'Only people with an account can read here.')
  refuse('You need a token to come in', 'Open this page with a link or a token from whoever runs this server.')
}

/** One was put out of the room: with the reason, if the server still tells it. */
async function onBanned(place) {
  const told = who.tells ? await askMe(place.name).catch(() => null) : null
  if (isHere(place)) ban(place, told?.banned ?? {})
}

/** Says that one is banned, and comes back to the room as soon as that is over. */
function ban(place, hold) {
  rights = new Set()
  banners.delete('moderated')
  showBanners()
  refuse('You are banned from this room', heldAgainst('You can’t read or write here', hold, (ms) => spell(Math.ceil(ms / 1000))))
  banned = place
  askBanLater(hold)
}

function askBanLater({ until }) {
  clearTimeout(banAsked)
  banAsked = setTimeout(askBan, Math.min(BAN_EVERY, until ? Math.max(500, until - Date.now() + 200) : BAN_EVERY))
}

async function askBan() {
  const place = banned
  if (!place || !who.tells) return
  if (document.hidden) return askBanLater({})
  const told = await askMe(place.name).catch(() => null)
  if (banned !== place || !isHere(place)) return
  if (told && !told.banned) return arrive(place)
  askBanLater(told?.banned ?? {})
}

// Writing.

async function onSend(text) {
  const place = here()
  if (talk) {
    await talk.timeline.send(text)
    rooms.show()
    return
  }
  if (!room) return
  const joined = room
  const { timeline } = room
  const onWait = ({ code, retryMs }) => code === 'slow_mode' && isHere(place) && composer.wait(retryMs)
  const error = await timeline.send(text, onWait)
  const { slow } = joined.info
  if (!error && slow && isHere(place) && !LEADERS.has(role) && who.auth !== 'none') composer.wait(slow * 1000)
}

function onNew(entry) {
  if (document.hidden && entry.fields.user !== me) unseen += 1
  clearTimeout(seeing)
  // How far one has read is kept in the browser's storage, which is slow: not for each of many messages.
  seeing = setTimeout(seen, Math.max(0, seenAt + SEEN_EVERY - Date.now()))
}

function seen() {
  clearTimeout(seeing)
  showTitle()
  if (document.hidden) return
  seenAt = Date.now()
  unseen = 0
  if (talk && talk.unread > 0) inbox.read(talk)
  if (room?.cursor) rooms.readTo(room.name, room.cursor)
  showTitle()
}

function showTitle() {
  const place = here()
  if (!place) return
  const name = place.kind === 'dm' ? place.name : `#${place.name}`
  // Direct messages count wherever one is; those of the conversation that is open are among the unseen.
  const others = (inbox?.talks ?? []).filter((other) => other !== talk || unseen === 0)
  const count = unseen + others.reduce((sum, { unread }) => sum + unread, 0)
  const title = `${count > 0 ? `(${count}) ` : ''}${name} · tailcast`
  if (document.title !== title) document.title = title
}

function onTalk(changed, entry = null) {
  if (changed.unread > 0 && talk === changed && !document.hidden) return inbox.read(changed)
  // Beside the room, the list shows it.
  if (entry && talk !== changed && matchMedia('(max-width: 759px)').matches) toast(`New message from ${changed.user}`)
  rooms.show()
  showTitle()
}

// How the room stands, and how the connection does.

function showTopic(topic) {
  byId('room-topic').textContent = topic ?? ''
  byId('room-topic').title = topic ?? ''
}

function showInfo({ closed, slow, pin, announcement, topic }) {
  byId('closed').hidden = !closed
  byId('slow').hidden = slow === 0
  byId('slow').textContent = `slow: ${spell(slow)}`
  // What one waits for is no longer than the slow mode that holds now.
  composer.waitAtMost(slow * 1000)
  if (slow === 0) room?.timeline.hurry()
  showTopic(topic)
  const may = rights.has('moderate')
  if (!rights.has('publish')) composer.block(READ_ONLY)
  else composer.block(closed && !may ? 'This room is closed. Only moderators can write.' : null)
  banners.set('announcement', announcement && banner('announcement', 'megaphone', 'Announcement', announcement, 'unannounce'))
  banners.set('pin', pin && banner('pin', 'pin', 'Pinned', pin, 'unpin'))
  showBanners()
}

function banner(kind, sign, label, { message, by, user, id }, undo) {
  const text = h('span', { class: 'banner-text', dir: 'auto' }, h('strong', {}, label), ' ', ...(id ? [message] : linked(message)))
  const source = user ?? by
  const parts = [icon(sign)]
  if (id && rights.has('history')) parts.push(h('button', { type: 'button', class: 'banner-body', onclick: () => jump(id) }, text))
  else parts.push(h('div', { class: 'banner-body' }, text), expander(text))
  return h(
    'div',
    { class: `banner ${kind}`, role: 'region', 'aria-label': label },
    ...parts,
    source ? h('small', { dir: 'auto' }, source) : null,
    rights.has('announce')
      ? h('button', { type: 'button', class: 'icon-button', 'aria-label': `Remove: ${label}`, onclick: () => room.moderate({ act: undo }).catch((error) => toast(say(error), 'bad')) }, icon('close'))
      : null,
  )
}

/** Shows all of a text that is cut off; there as long as it is. */
function expander(text) {
  const button = h('button', { type: 'button', class: 'link', 'aria-expanded': 'false', hidden: true }, 'Show all')
  const isOpen = () => button.getAttribute('aria-expanded') === 'true'
  button.addEventListener('click', () => {
    button.setAttribute('aria-expanded', String(!isOpen()))
    button.textContent = isOpen() ? 'Show less' : 'Show all'
    text.classList.toggle('open', isOpen())
  })
  new ResizeObserver(() => {
    if (!isOpen()) button.hidden = text.scrollHeight <= text.clientHeight + 1
  }).observe(text)
  return button
}

/** Goes to the message that is pinned, however far back it is. */
async function jump(id) {
  const isThere = await messages.goTo(id).catch((error) => toast(say(error), 'bad'))
  if (isThere === false) toast('This message is no longer in the room.')
}

function showBanners() {
  const order = ['connection', 'storage', 'moderated', 'announcement', 'pin']
  const box = byId('banners')
  const hadFocus = box.contains(document.activeElement)
  arrange(box, order.map((kind) => banners.get(kind)).filter(Boolean))
  // What had the focus may be gone with its banner; from the body, the way would begin anew.
  if (hadFocus && !box.contains(document.activeElement)) byId('messages').focus()
}

function onModerated({ act, until, reason }) {
  const what = { mute: 'You are muted', timeout: 'You are timed out', ban: 'You are banned' }[act]
  const left = until ? Math.max(0, until - Date.now()) : 0
  if (what) {
    const text = heldAgainst(what, { until, reason }, (ms) => spell(Math.max(1, Math.ceil(ms / 1000))))
    composer.silence(act === 'ban' ? null : `${what}.`)
    banners.set('moderated', h('div', { class: 'banner bad', role: 'alert' }, icon('lock'), h('div', { class: 'banner-body', dir: 'auto' }, text)))
    // A timer takes at most so long; a mute of weeks is lifted by hand, or on the next visit.
    clearTimeout(moderatedUntil)
    if (until && left < 2_000_000_000) moderatedUntil = setTimeout(() => clearModerated(), left)
  } else clearModerated()
  showBanners()
}

function clearModerated() {
  clearTimeout(moderatedUntil)
  banners.delete('moderated')
  composer.silence(null)
  showBanners()
}

function refuse(title, text) {
  byId('messages').hidden = true
  const box = byId('refused')
  box.hidden = false
  box.replaceChildren(icon('lock'), h('h2', {}, title), h('p', { dir: 'auto' }, ...quoted(text)))
  byId('middle').classList.add('is-refused')
  composer.block(title)
  for (const id of ['role', 'room-menu', 'reactions']) byId(id).hidden = true
  people.hide()
}

/** Redis is away, or back: what is published meanwhile waits. */
function onStorage(isThere) {
  if (isThere === !banners.has('storage')) return
  if (isThere) banners.delete('storage')
  else {
    const text = h('div', { class: 'banner-body' }, 'Messages can’t be stored or delivered right now. What you write is sent as soon as they can.')
    banners.set('storage', h('div', { class: 'banner bad', role: 'status' }, h('span', { class: 'spinner' }), text))
  }
  showBanners()
  showConnection()
}

let troubled
const offline = offlineBanner()

function onConnection({ state, retryMs, error }) {
  const pill = byId('connection')
  const live = state === 'open'
  const show = () => {
    const isAway = banners.has('connection')
    const isStuck = live && banners.has('storage')
    pill.dataset.state = isStuck ? 'stuck' : state
    pill.textContent = isStuck ? 'Waiting for storage' : live ? 'Live' : state === 'closed' ? 'Closed' : isAway ? 'Offline' : state === 'idle' ? '' : 'Connecting…'
    // Who has come and gone since, nobody tells.
    byId('app').classList.toggle('is-offline', isAway)
    people.offline(isAway)
    showBanners()
  }
  clearTimeout(troubled)
  if (state !== 'waiting' && state !== 'connecting') banners.delete('connection')
  show()
  showConnection = show
  if (live || state === 'idle') return
  if (state === 'closed' && error) {
    if (error.code === 'unauthenticated' && who.accounts) return location.reload()
    if (error.code === 'unauthenticated') return me ? refuse('Your login has ended', 'Open this page again with a new token.') : refuseEntry()
    return refuse('The server closed the connection', sentence(error.message))
  }
  // Most are over before one could read it.
  if (state === 'waiting') {
    const until = Date.now() + retryMs
    const count = () => {
      offline.left.textContent = `trying again in ${Math.max(1, Math.ceil((until - Date.now()) / 1000))} s`
      banners.set('connection', offline.banner)
      show()
      troubled = setTimeout(count, 1_000)
    }
    troubled = setTimeout(count, banners.has('connection') ? 0 : 700)
  } else offline.left.textContent = 'trying now'
}

/** What is said without a connection. One element, so that its button keeps the focus; nobody counts seconds aloud. */
function offlineBanner() {
  const left = h('span', { 'aria-hidden': 'true' })
  const again = h('button', { type: 'button', class: 'link', onclick: () => client.reconnect() }, 'Try now')
  const text = h('div', { class: 'banner-body' }, 'No connection, ', left, '. What you write is sent as soon as there is one.')
  return { left, banner: h('div', { class: 'banner bad', role: 'status' }, h('span', { class: 'spinner' }), text, again) }
}
