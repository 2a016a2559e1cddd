// A page as tutorials write it: it loads the client from the server, and talks to it with no URL at all. One page
// takes the classic script, another one the module.
//
//   node tutorial.mjs BASE_URL
import { run, step, until } from './browser.mjs'

const script = `
  const socket = io({ query: { roomid: 'lobby' } })
  globalThis.say = (text) => socket.emit('say', text)
  globalThis.heard = []
  socket.on('message', ({ data }) => heard.push(data.text))
  socket.on('tailcast:rooms', () => (globalThis.isIn = true))
`
const pages = [
  `<!doctype html><script src="/socket.io/socket.io.js"></script><script>${script}</script>`,
  `<!doctype html><script type="module">
    import { io } from '/socket.io/socket.io.esm.min.js'
    ${script}
  </script>`,
]

await run(async (open) => {
  // Written into a document of the node's own: one that a test makes up is a stranger to Chromium, and may not speak
  // to this machine.
  const [classic, module] = await Promise.all(
    pages.map(async (html) => {
      const page = await open(null, { path: '/health/live' })
      await page.setContent(html)
      return page
    }),
  )
  for (const page of [classic, module]) await until('it is in the room', () => page.evaluate(() => globalThis.isIn))
  step('both are in the room')
  await classic.evaluate(() => say('from the classic page'))
  await module.evaluate(() => say('from the module'))
  for (const page of [classic, module]) {
    await until('both messages are there', async () => {
      const heard = await page.evaluate(() => heard)
      return heard.length === 2 && heard.toSorted().join() === 'from the classic page,from the module'
    })
  }
}, [/favicon/])
