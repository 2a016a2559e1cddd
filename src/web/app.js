// The chat page: puts its parts together. The client does what is hard: it resumes, repeats and dedupes.
import { connect } from './tailcast.js'
import { forgetDeleted } from './away.js'
import { Composer } from './composer.js'
import { arrange, avatar, byId, h, icon, kept, paintAvatar, toast } from './dom.js'
import { Inbox } from './inbox.js'
import { MessageList } from './messages.js'
import { Moderation } from './moderation.js'
import { People, setUpDrawers } from './people.js'
import { go, here, isHere, onPlace, start } from './place.js'
import { Reactions } from './reactions.js'
import { Rooms } from './rooms.js'
import { base, enter, forget } from './session.js'
import { linked, quoted, spell } from './text.js'
import { Timeline } from './timeline.js'

/** Entries that a room begins with, and that scrolling up loads at a time. */
const FIRST = 50
const MORE = 50

/** What comes so soon after coming in was there before, in ms. */
const REPLAY = 500

const ALL_RIGHTS = ['subscribe', 'publish', 'history', 'presence', 'moderate', 'announce']
const LEADERS = new Set(['host', 'cohost', 'moderator'])

const who = await enter()
const me = who.user ?? null
/** The key that the last room visited is kept under. */
const LAST_ROOM = `room.${me ?? ''}`
const client = connect(base, { user: me ?? undefined, inbox: me ? 'last:200' : false })

const READ_ONLY = me || !who.accounts ? 'You can read here, but not write.' : 'You can read here.'

/** The room that the page is in; null in a conversation. */
let room = null
let rights = new Set(ALL_RIGHTS)
let role = null
let talk = null
let unseen = 0
/** What is shown above the messages, by kind. */
const banners = new Map()

const inbox = me ? new Inbox(client, me, onTalk) : null
const { closeDrawers } = setUpDrawers()
const rooms = new Rooms({ client, me, inbox, onTopic: (name, topic) => isHere({ kind: 'room', name }) && showTopic(topic) })
const moderation = new Moderation({ me, room: () => room, rights: () => rights, write: (user) => go({ kind: 'dm', name: user }) })
const people = new People({ me, onPick: (user, anchor) => moderation.aboutUser(user, anchor) })
const messages = new MessageList({ me, name: who.name ?? null, onMenu: (item, anchor) => moderation.aboutMessage(item, anchor) })
const reactions = new Reactions((reaction) => {
  try {
    room?.react(reaction)
  } catch (error) {
    toast(error.message, 'bad')
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
client.on('error', (error) => toast(error.message, 'bad'))
document.addEventListener('visibilitychange', () => document.hidden || seen())
onPlace(arrive)
start(firstRoom)

/** Where one comes in who said no place: the room of the last visit, the liveliest one, or the node's own. */
async function firstRoom() {
  const name = kept.read(LAST_ROOM) ?? (await rooms.latest()) ?? who.default_room ?? 'lobby'
  return { kind: 'room', name }
}

/** Comes to a room or a conversation. */
async function arrive(place) {
  closeDrawers()
  room?.leave()
  room = null
  talk = null
  banners.clear()
  showBanners()
  byId('refused').hidden = true
  byId('middle').classList.remove('is-refused')
  byId('messages').hidden = false
  for (const id of ['role', 'closed', 'slow', 'room-menu']) byId(id).hidden = true
  messages.showPeople(new Map())
  showTopic('')
  const sign = place.kind === 'dm' ? avatar(place.name, 'small') : h('span', { class: 'hash', 'aria-hidden': 'true' }, '#')
  byId('room-title').replaceChildren(sign, h('span', { class: 'title-text' }, place.name))
  byId('messages').setAttribute('aria-label', place.kind === 'dm' ? `Messages with ${place.name}` : `Messages in ${place.name}`)
  composer.to(`${place.kind} ${place.name}`, place.kind === 'dm' ? `Write to ${place.name}` : `Write in ${place.name}`)
  if (place.kind === 'dm') arriveAtTalk(place.name)
  else await arriveInRoom(place)
  seen()
  rooms.show()
  if (matchMedia('(hover: hover)').matches) byId('composer-text').focus({ preventScroll: true })
}

function arriveAtTalk(user) {
  if (!inbox) return refuse('You have no name here', 'Only who is known by name has conversations.')
  talk = inbox.talk(user)
  talk.timeline.news = inbox.news(talk)
  // Anybody's name is a place to write to, and nobody's is a promise that they read it.
  showTopic('Only the two of you read this.')
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
  const timeline = new Timeline(me, olderIn(place.name))
  const readTo = rooms.lastRead(place.name)
  timeline.news = readTo && { after: readTo, upTo: null }
  messages.show(timeline, `# ${place.name}`)
  await readRights(place.name)
  if (!isHere(place)) return
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
    return refuse('There can be no such room', error.message)
  }
  room = joined
  room.timeline = timeline
  timeline.hasOlder = options.from !== 'now'
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
    if (typeof fields.message === 'string') toast(`${user ?? 'Somebody'}: ${fields.message}`)
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
    const title = { banned: 'You are banned from this room', forbidden: 'You may not come in here' }[error.code]
    refuse(title ?? 'This room can’t be joined', error.message)
  })
  if (joined.state === 'refused') refuse('The server sent us away', joined.error.message)
}

/** With little in the room, there is nothing older to ask for. */
function onFirst(joined, timeline) {
  setTimeout(() => {
    if (timeline.items.length > 0 || !timeline.hasOlder) return
    timeline.hasOlder = false
    if (room === joined) messages.show(timeline, `# ${joined.name}`)
  }, 300)
}

function olderIn(name) {
  return async (before) => {
    const query = new URLSearchParams({ before, limit: String(MORE), order: 'desc' })
    const { entries, next } = await client.get(`/rooms/${encodeURIComponent(name)}?${query}`)
    return { entries: entries.reverse(), hasOlder: next !== null }
  }
}

async function readRights(name) {
  rights = new Set(ALL_RIGHTS)
  role = null
  if (!who.tells) return
  try {
    const told = await client.get(`/me?room=${encodeURIComponent(name)}`)
    if (told.rights) rights = new Set(told.rights)
    role = told.role ?? null
  } catch {
    // A server that does not say: what is refused shows it.
  }
}

// Writing.

async function onSend(text) {
  const place = here()
  if (talk) {
    const { user, timeline } = talk
    await timeline.send(text, (words, key, patiently) => inbox.send(user, words, key, patiently))
    rooms.show()
    return
  }
  if (!room) return
  const joined = room
  const { name, timeline } = room
  const onWait = ({ code, retryMs }) => code === 'slow_mode' && isHere(place) && composer.wait(retryMs)
  const error = await timeline.send(text, (words, key) => client.publish(name, words, { key }), onWait)
  const { slow } = joined.info
  if (!error && slow && isHere(place) && !LEADERS.has(role) && who.auth !== 'none') composer.wait(slow * 1000)
}

function onNew(entry) {
  if (document.hidden && entry.fields.user !== me) unseen += 1
  else seen()
  showTitle()
}

function seen() {
  if (document.hidden) return
  unseen = 0
  if (talk && talk.unread > 0) inbox.read(talk)
  if (room?.cursor) rooms.readTo(room.name, room.cursor)
  showTitle()
}

function showTitle() {
  const place = here()
  if (!place) return
  const name = place.kind === 'dm' ? place.name : `#${place.name}`
  document.title = `${unseen > 0 ? `(${unseen}) ` : ''}${name} · tailcast`
}

function onTalk(changed, entry = null) {
  if (changed.unread > 0 && talk === changed && !document.hidden) return inbox.read(changed)
  // Beside the room, the list shows it.
  if (entry && talk !== changed && matchMedia('(max-width: 759px)').matches) toast(`${changed.user} wrote to you`)
  rooms.show()
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
  showTopic(topic)
  const may = rights.has('moderate')
  if (!rights.has('publish')) composer.block(READ_ONLY)
  else composer.block(closed && !may ? 'This room is closed: only moderators can write.' : null)
  banners.set('announcement', announcement && banner('announcement', 'megaphone', 'Announcement', announcement, 'unannounce'))
  banners.set('pin', pin && banner('pin', 'pin', 'Pinned', pin, 'unpin'))
  showBanners()
}

function banner(kind, sign, label, { message, by, user, id }, undo) {
  const text = h('span', { class: 'banner-text' }, h('strong', {}, label), ' ', ...(id ? [message] : linked(message)))
  const jump = () => byId('list').querySelector(`[data-id="${CSS.escape(id)}"]`)?.focus()
  const source = user ?? by
  return h(
    'div',
    { class: `banner ${kind}`, role: 'region', 'aria-label': label },
    icon(sign),
    id ? h('button', { type: 'button', class: 'banner-body', onclick: jump }, text) : h('div', { class: 'banner-body' }, text),
    source ? h('small', {}, source) : null,
    rights.has('announce')
      ? h('button', { type: 'button', class: 'icon-button', 'aria-label': `Take down: ${label}`, onclick: () => room.moderate({ act: undo }).catch((error) => toast(error.message, 'bad')) }, icon('close'))
      : null,
  )
}

function showBanners() {
  const order = ['connection', 'moderated', 'announcement', 'pin']
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
    const text = `${what}${until ? ` for ${spell(Math.ceil(left / 1000))}` : ''}${reason ? `: ${reason}` : '.'}`
    composer.silence(act === 'ban' ? null : `${what}.`)
    banners.set('moderated', h('div', { class: 'banner bad', role: 'alert' }, icon('lock'), h('div', { class: 'banner-body' }, text)))
    // A timer takes at most so long; a mute of weeks is lifted by hand, or on the next visit.
    if (until && left < 2_000_000_000) setTimeout(() => clearModerated(), left)
  } else clearModerated()
  showBanners()
}

function clearModerated() {
  banners.delete('moderated')
  composer.silence(null)
  showBanners()
}

function refuse(title, text) {
  byId('messages').hidden = true
  const box = byId('refused')
  box.hidden = false
  const sentence = text.charAt(0).toUpperCase() + text.slice(1) + (/[.!?]$/.test(text) ? '' : '.')
  box.replaceChildren(icon('lock'), h('h2', {}, title), h('p', {}, ...quoted(sentence)))
  byId('middle').classList.add('is-refused')
  composer.block(title)
  for (const id of ['role', 'room-menu', 'reactions']) byId(id).hidden = true
  people.hide()
}

let troubled
const offline = offlineBanner()

function onConnection({ state, retryMs, error }) {
  const pill = byId('connection')
  const live = state === 'open'
  pill.dataset.state = state
  const say = () => {
    const isAway = banners.has('connection')
    pill.textContent = live ? 'Live' : state === 'closed' ? 'Closed' : isAway ? 'Offline' : 'Connecting…'
    // Who has come and gone since, nobody tells.
    byId('app').classList.toggle('is-offline', isAway)
    people.offline(isAway)
    showBanners()
  }
  clearTimeout(troubled)
  if (state !== 'waiting' && state !== 'connecting') banners.delete('connection')
  say()
  if (live || state === 'idle') return
  if (state === 'closed' && error) {
    if (error.code === 'unauthenticated' && who.accounts) return location.reload()
    const [title, text] =
      error.code === 'unauthenticated' ? ['A token is needed to come in', error.message] : ['The server sent us away', error.message]
    return refuse(title, text)
  }
  // Most are over before one could read it.
  if (state === 'waiting') {
    const until = Date.now() + retryMs
    const show = () => {
      offline.left.textContent = `trying again in ${Math.max(1, Math.ceil((until - Date.now()) / 1000))} s`
      banners.set('connection', offline.banner)
      say()
      troubled = setTimeout(show, 1_000)
    }
    troubled = setTimeout(show, banners.has('connection') ? 0 : 700)
  } else offline.left.textContent = 'trying now'
}

/** What is said without a connection. One element, so that its button keeps the focus; nobody counts seconds aloud. */
function offlineBanner() {
  const left = h('span', { 'aria-hidden': 'true' })
  const again = h('button', { type: 'button', class: 'link', onclick: () => client.reconnect() }, 'Try now')
  const text = h('div', { class: 'banner-body' }, 'No connection; ', left, '. What you write is sent when there is one.')
  return { left, banner: h('div', { class: 'banner bad', role: 'status' }, h('span', { class: 'spinner' }), text, again) }
}
