// A chat in many rooms, over many processes: the page of a hundred tutorials, with nothing of tailcast
// in it but the name of one event.
const query = new URLSearchParams(location.search)
const roomid = query.get('roomid') ?? 'lobby'
const username = query.get('username') ?? `guest${Math.floor(Math.random() * 10000)}`
const at = (id) => document.getElementById(id)
at('room').textContent = roomid

const socket = io({ query: { roomid } })

const show = (text, kind) => {
  const item = document.createElement('li')
  item.className = kind
  item.textContent = text
  at('messages').append(item)
  item.scrollIntoView()
}
const count = () => {
  socket.emit('tailcast:count', ({ connections, nodes }) => {
    at('count').textContent = `${connections} connected, ${nodes} processes`
  })
}

socket.on('connect', () => {
  // A connection that came back has missed nothing, and its name is known still.
  if (!socket.recovered) socket.emit('join', { username })
  count()
})
socket.on('message', ({ event, data }) => {
  if (event === 'join') show(`${data.username} joined`, 'notice')
  if (event === 'broadcast_say') show(`${data.username ?? 'someone'}: ${data.text}`, 'said')
  if (event === 'broadcast_quit') show(`${data.username} left`, 'notice')
  count()
})
// Others come and go on other nodes, in other rooms.
setInterval(() => socket.connected && count(), 2000)
socket.on('tailcast:gap', () => show('some messages are missing here', 'notice'))

at('say').addEventListener('submit', (event) => {
  event.preventDefault()
  socket.emit('say', { text: at('text').value })
  at('text').value = ''
})
