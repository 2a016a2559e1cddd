// A chat room over STOMP over SockJS, with the destinations and messages of the well-known Spring
// tutorial: /topic/public, /app/chat.addUser, /app/chat.sendMessage and {sender, content, type}.
// What a reconnect missed comes behind `last-id`, over whichever node answers.
const $ = (id) => document.getElementById(id)
let me = ''
let last = null
let client = null

function show(text, kind = '') {
  const line = document.createElement('li')
  line.textContent = text
  line.className = kind
  $('messages').append(line)
  line.scrollIntoView({ block: 'nearest' })
}

function onMessage(frame) {
  const { headers } = frame
  if (headers['x-gap-reason']) return show('some messages are gone', 'notice')
  last = headers['message-id']
  const { type, sender, content } = JSON.parse(frame.body)
  if (type === 'JOIN') show(`${sender} joined`, 'notice')
  else if (type === 'LEAVE') show(`${sender} left`, 'notice')
  else show(`${sender}: ${content}`)
}

function onPrivate(frame) {
  const { sender, content } = JSON.parse(frame.body)
  show(`${sender} to you: ${content}`, 'private')
}

function send(destination, message) {
  client.publish({ destination, body: JSON.stringify({ sender: me, ...message }) })
}

function onConnect() {
  $('state').textContent = `connected as ${me}`
  client.subscribe('/topic/public', onMessage, last ? { 'last-id': last } : {})
  send('/app/chat.addUser', { type: 'JOIN' })
  // From here on the connection has a name, and a room of its own.
  client.subscribe('/user/queue/private', onPrivate)
}

async function refresh() {
  const answer = await fetch('/rooms/public/presence')
  if (!answer.ok) return
  const { count, users } = await answer.json()
  const names = users.map((user) => user.user)
  $('online').textContent = `${names.join(', ') || 'nobody'} (${count})`
  const to = $('to').value
  const others = names.filter((name) => name !== me)
  const options = [['', 'everybody'], ...others.map((name) => [name, name])]
  $('to').replaceChildren(...options.map(([value, text]) => new Option(text, value, false, value === to)))
}

$('enter').addEventListener('submit', (event) => {
  event.preventDefault()
  me = $('name').value.trim()
  $('enter').hidden = true
  $('room').hidden = false
  client = new StompJs.Client({
    webSocketFactory: () => new SockJS('/ws'),
    reconnectDelay: 1000,
    onConnect,
    onStompError: (frame) => show(`refused: ${frame.headers.message}`, 'notice'),
    onWebSocketClose: () => { $('state').textContent = 'connecting …' },
  })
  client.activate()
  setInterval(() => refresh().catch(() => {}), 2000)
})

$('say').addEventListener('submit', (event) => {
  event.preventDefault()
  if (!client.connected) return
  const content = $('text').value
  const to = $('to').value
  if (to) {
    send(`/user/${to}/queue/private`, { type: 'CHAT', content })
    show(`you to ${to}: ${content}`, 'private')
  } else {
    send('/app/chat.sendMessage', { type: 'CHAT', content })
  }
  $('text').value = ''
})
