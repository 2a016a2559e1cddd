// The node under the page is killed, and comes back, while others publish at a second one and the page
// writes, too: nothing is missing, nothing doubled, nothing out of order. The test does the killing.
//
//   node fault.mjs BASE_URL OTHER_URL
import assert from 'node:assert/strict'
import { everything, live, print, run, shown, step, stored, stream, told, until, write } from './browser.mjs'

const other = process.argv[3]

await run(async (open) => {
  const pages = [await open('alice'), await open('bob')]
  for (const page of pages) await live(page)
  let number = 0
  let isOver = false
  const publishing = (async () => {
    while (!isOver) {
      const response = await fetch(`${other}/rooms/lobby?user=program`, { method: 'POST', body: `p${number++}` })
      assert.equal(response.status, 201)
      await new Promise((resolve) => setTimeout(resolve, 25))
    }
  })()
  for (let round = 0; round < 3; round++) {
    await stored(pages[0], `p${number}`)
    await write(pages[0], `before ${round}`)
    print({ event: 'kill' })
    await told()
    await pages[0].locator('#connection[data-state="waiting"]').waitFor()
    step(`killed ${round}`)
    // Written into the void; sent when there is a node again.
    await write(pages[0], `meanwhile ${round}`)
    await pages[0].locator('.banner.bad').waitFor()
    // Nothing on the page says otherwise.
    const said = () => pages[0].locator('#connection, #people-title').allTextContents()
    assert.match((await said()).join(), /^Offline,Who was here · \d$/)
    assert.equal(await pages[0].locator('.message.pending', { hasText: `meanwhile ${round}` }).count(), 1)
    print({ event: 'restart' })
    await told()
    for (const page of pages) {
      await live(page)
      await stored(page, `meanwhile ${round}`)
    }
    await pages[0].locator('.banner.bad').waitFor({ state: 'detached' })
    assert.match((await said()).join(), /^Live,Who is here · \d$/)
  }
  isOver = true
  await publishing
  const all = await stream('lobby', other)
  assert(all.length > 60, 'more than a room begins with')
  for (let round = 0; round < 3; round++) {
    for (const text of [`before ${round}`, `meanwhile ${round}`]) assert.equal(all.filter((line) => line === text).length, 1, text)
  }
  for (const page of pages) {
    await stored(page, all.at(-1))
    await until('nothing is under way', async () => (await page.locator('.message.pending, .message.failed').count()) === 0)
    assert.deepEqual(await everything(page), all)
    assert.equal(await page.locator('.gap').count(), 0)
  }
  step('nothing is missing')

  // What was deleted meanwhile is gone, too, though nobody was there to be told.
  const doomed = 'before 1'
  print({ event: 'kill' })
  await told()
  print({ event: 'delete', text: doomed })
  await told()
  print({ event: 'restart' })
  await told()
  for (const page of pages) {
    await until('it is gone', async () => !(await shown(page)).includes(doomed))
    await page.locator('#below').click()
    await stored(page, all.at(-1))
    await until('all else is there', async () => (await everything(page)).join() === all.filter((text) => text !== doomed).join())
    await page.locator('#below').click()
    await stored(page, all.at(-1))
  }
  step('deleted meanwhile')

  // And where something is missing, it's said in its place.
  print({ event: 'trim' })
  await told()
  for (const page of pages) {
    await page.locator('.gap').waitFor()
    await stored(page, 'after the gap')
    const [before, gap, after] = await page.locator('#list > :is(.message, .gap)').evaluateAll((nodes) => {
      const at = nodes.findIndex((node) => node.className === 'gap')
      return [nodes[at - 1], nodes[at], nodes[at + 1]].map((node) => node.textContent)
    })
    assert(before.includes(all.at(-1)), before)
    assert.match(gap, /missing/)
    assert.match(after, /after the gap/)
  }
  // A browser says so when nobody answers.
}, [/WebSocket connection to/, /ERR_CONNECTION_/, /ERR_EMPTY_RESPONSE/, /ERR_INCOMPLETE/])
