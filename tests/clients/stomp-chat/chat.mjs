// The page of `examples/stomp-chat` through its balancer, as two people on two nodes: one over a WebSocket,
// one in a browser without any. What the CDN would give comes from this folder's packages, if it's what
// the page says it is.
//
//   node chat.mjs BASE_URL NODE_URL...
import assert from 'node:assert/strict'
import { base, print, run, step, told, until } from '../page/browser.mjs'

const nodes = process.argv.slice(3)
/** Connections of each node. */
const sockets = () =>
  Promise.all(nodes.map(async (node) => (await (await fetch(`${node}/status.json`)).json()).now.sockets))

const lines = (page) => page.locator('#messages li:not(.private)').allTextContents()
const line = (page, text) => page.locator('#messages li', { hasText: text }).last().waitFor()
const connected = (page, name) => page.locator('#state', { hasText: `connected as ${name}` }).waitFor()
const online = (page, text) => until(`${text} are online`, async () => (await page.locator('#online').textContent()) === text)

async function say(page, text, to = '') {
  await page.locator('#to').selectOption(to)
  await page.locator('#text').fill(text)
  await page.locator('#text').press('Enter')
}

/** What the room's stream would look like in the page. */
async function truth(node) {
  const { entries } = await (await fetch(`${node}/rooms/public?limit=1000`)).json()
  return entries.map(({ fields }) => {
    const { type, sender, content } = JSON.parse(fields.message)
    return { JOIN: `${sender} joined`, LEAVE: `${sender} left` }[type] ?? `${sender}: ${content}`
  })
}

/** From the last time that somebody joined. */
const since = (all, name) => all.slice(all.lastIndexOf(`${name} joined`))

// The socket that goes with its node.
const expected = [/WebSocket connection to .* failed/, /favicon/]

await run(async (open) => {
  const elsewhere = []
  const prepare = async (context) => {
    await context.route(/^https:/, (route) => {
      elsewhere.push(route.request().url())
      return route.abort()
    })
  }
  const enter = async (name, init) => {
    const page = await open(null, { path: '/', prepare })
    if (init) {
      await page.addInitScript(init)
      await page.reload()
    }
    await page.locator('#name').fill(name)
    await page.locator('#name').press('Enter')
    await connected(page, name)
    await line(page, `${name} joined`)
    return page
  }

  const alice = await enter('alice')
  assert.deepEqual(elsewhere, [])
  const under = (await sockets()).indexOf(1)
  assert.notEqual(under, -1, 'she is on some node')
  // The balancer may send anybody anywhere.
  let bob
  for (;;) {
    bob = await enter('bob', () => delete globalThis.WebSocket)
    await line(alice, 'bob joined')
    if ((await sockets())[under] === 1) break
    const before = (await lines(alice)).length
    await bob.context().close()
    await until('he has left', async () => (await lines(alice)).slice(before).includes('bob left'))
  }
  const bobs = nodes[(await sockets()).findIndex((count, node) => count === 1 && node !== under)]
  assert(bobs, 'he is on another node')
  for (const page of [alice, bob]) await online(page, 'alice, bob (2)')
  step('both are there')

  await say(alice, 'hello bob')
  await line(bob, 'alice: hello bob')
  await say(bob, 'hello "alice" \\ \u2028 é 😀')
  await line(alice, 'bob: hello "alice" \\')
  await say(bob, 'psst', 'alice')
  await line(alice, 'bob to you: psst')
  await line(bob, 'you to alice: psst')
  assert.equal(await alice.locator('#messages .private').count(), 1)
  step('they talk')

  // The room never rests while her node is killed under her.
  let number = 0
  let isOver = false
  const talking = (async () => {
    while (!isOver) {
      const body = JSON.stringify({ sender: 'news', content: `n${number++}`, type: 'CHAT' })
      const response = await fetch(`${bobs}/rooms/public`, { method: 'POST', body, headers: { 'content-type': 'text/plain' } })
      assert.equal(response.status, 201)
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  })()
  await line(alice, 'news: n5')
  await say(alice, 'before')
  await line(bob, 'alice: before')
  print({ event: 'kill', node: under })
  await told()
  const killed = number
  await alice.locator('#state', { hasText: 'connecting' }).waitFor()
  await say(bob, 'meanwhile')
  await connected(alice, 'alice')
  await line(alice, `news: n${killed + 20}`)
  await say(alice, 'back again')
  await line(bob, 'alice: back again')
  isOver = true
  await talking
  for (const page of [alice, bob]) await line(page, `news: n${number - 1}`)
  const all = await truth(bobs)
  assert.equal(all.filter((text) => text === 'alice joined').length, 2, 'she came back once')
  await until('she has all', async () => (await lines(alice)).length === all.length)
  assert.deepEqual(await lines(alice), all)
  assert.deepEqual(since(await lines(bob), 'bob'), since(all, 'bob'))
  await online(bob, 'alice, bob (2)')
  await say(bob, 'psst again', 'alice')
  await line(alice, 'bob to you: psst again')
  step('nothing is missing')

  await alice.context().close()
  await line(bob, 'alice left')
  await online(bob, 'bob (1)')
}, expected)
