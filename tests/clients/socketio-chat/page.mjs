// The page of examples/socketio-chat, each of three people behind a balancer that sends them to a node of
// their own as long as it lives. They chat, one goes, and twice a node dies under one of them while others
// write: nothing is missing, nothing doubled, and all see one order. The test does the killing.
//
//   node page.mjs URL_1 URL_2 URL_3 NODE_1 NODE_2 NODE_3
import assert from 'node:assert/strict'
import { print, run, step, told, until } from '../page/browser.mjs'

const [urls, nodes] = [process.argv.slice(2, 5), process.argv.slice(5, 8)]

const lines = (page, kind) => page.locator(`#messages .${kind}`).allTextContents()
const said = (page) => lines(page, 'said')
const noticed = (page, text) => until(text, async () => (await lines(page, 'notice')).includes(text))
const heard = (page, text) => until(`${text} is heard`, async () => (await said(page)).includes(text))
const counted = (page, text) => until(text, async () => (await page.locator('#count').textContent()) === text)

async function say(page, text) {
  await page.locator('#text').fill(text)
  await page.locator('#text').press('Enter')
}

await run(async (open) => {
  const enter = (name, at, room = 'kitchen') => open(undefined, { from: urls[at], path: `/?roomid=${room}&username=${name}` })
  const names = ['ann', 'bob', 'cid']
  const people = []
  for (const [at, name] of names.entries()) {
    people.push(await enter(name, at))
    for (const page of people) await noticed(page, `${name} joined`)
  }
  const [ann, bob, cid] = people
  const dan = await enter('dan', 0, 'cellar')
  await noticed(dan, 'dan joined')
  assert.equal(await ann.locator('#room').textContent(), 'kitchen')
  step('joined')

  for (const page of [...people, dan]) await counted(page, '4 connected, 3 processes')
  const sockets = await Promise.all(nodes.map(async (node) => {
    const text = await (await fetch(`${node}/metrics`)).text()
    return Number(/^tailcast_sockets\{kind="socketio"\} (\d+)/m.exec(text)[1])
  }))
  assert.deepEqual(sockets, [2, 1, 1], 'all have changed over to a WebSocket, at the node meant for them')
  step('counted')

  for (const [at, page] of people.entries()) {
    await say(page, `hello ${at}`)
    for (const other of people) await heard(other, `${names[at]}: hello ${at}`)
  }
  await say(dan, 'alone')
  await heard(dan, 'dan: alone')
  assert.deepEqual(await said(dan), ['dan: alone'])
  step('said')

  await bob.context().close()
  people.splice(1, 1)
  for (const page of people) await noticed(page, 'bob left')
  for (const page of people) await counted(page, '3 connected, 3 processes')
  step('left')

  let number = 0
  let isOver = false
  const publishing = (async () => {
    while (!isOver) {
      const response = await fetch(`${nodes[1]}/rooms/kitchen?user=program`, { method: 'POST', body: `p${number++}` })
      assert.equal(response.status, 201)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })()
  for (const [victim, page] of [[2, cid], [0, ann]]) {
    await heard(page, `program: p${number}`)
    print({ event: 'kill', node: victim })
    await told()
    // Kept by the client until it's back.
    await say(page, `still here ${victim}`)
    const name = page === ann ? 'ann' : 'cid'
    for (const other of people) await heard(other, `${name}: still here ${victim}`)
    await heard(page, `program: p${number}`)
    print({ event: 'restart', node: victim })
    await told()
    step(`node ${victim} was killed`)
  }
  await heard(ann, 'program: p50')
  isOver = true
  await publishing
  const last = `program: p${number - 1}`
  for (const page of people) await heard(page, last)

  const response = await fetch(`${nodes[1]}/rooms/kitchen?limit=1000`)
  const { entries } = await response.json()
  const stored = entries.map(({ fields }) => fields).filter(({ event }) => event === undefined)
  const want = stored.map(({ message, text }) => message ?? text)
  for (const page of people) {
    const got = (await said(page)).map((line) => line.slice(line.indexOf(': ') + 2))
    assert.deepEqual(got, want.slice(want.indexOf(got[0])))
    assert(!(await lines(page, 'notice')).includes('some messages are missing here'))
  }
  assert(want.length > 50, 'enough was said to miss some')
  // A browser says so when a node is gone.
}, [/WebSocket connection to/, /Failed to load resource/])
