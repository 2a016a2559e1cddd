// Long rooms: wherever one reads, the document holds some hundreds of messages; what is let go comes back on scrolling,
// either way, in order and without a jump; and the way to the newest is short.
import assert from 'node:assert/strict'
import { HELD, base, everything, live, publish, run, shown, step, stored, until, write } from './browser.mjs'

const COUNT = 900

await run(async (open) => {
  const ids = []
  for (let number = 0; number < COUNT; number++) ids.push(await publish('lobby', `m${number}`, `user${number % 3}`))
  const all = Array.from({ length: COUNT }, (_, number) => `m${number}`)
  const page = await open('reader')
  await live(page)
  await stored(page, `m${COUNT - 1}`)
  assert.deepEqual(await everything(page), all)
  step('all the way up')

  // Up here, what comes is counted, and not put into the document.
  const before = await shown(page)
  assert.equal(before[0], 'm0')
  await publish('lobby', 'live', 'ann')
  await until('the button tells', async () => /1 new message/.test(await page.locator('#below').textContent()))
  assert.deepEqual(await shown(page), before)

  // Down again, and what is in sight stays where it is while messages come and go around it.
  const seen = new Set(before)
  const box = page.locator('#messages')
  let last = 0
  await until('the end is reached', async () => {
    const now = await shown(page)
    assert(now.length <= HELD, `${now.length} messages are in the document`)
    assert(now.some((text) => seen.has(text)), 'nothing is skipped')
    for (const text of now) seen.add(text)
    // What is in sight now, and where it is after the view has moved by so much and the document has changed.
    const moved = await box.evaluate(async (element) => {
      const top = element.getBoundingClientRect().top
      const nodes = [...document.querySelectorAll('.message')]
      const node = nodes.find((other) => other.getBoundingClientRect().top > top + element.clientHeight / 2)
      const at = node?.getBoundingClientRect().top
      const from = element.scrollTop
      element.scrollTop += element.clientHeight / 2
      const wanted = at - (element.scrollTop - from)
      for (let frames = 0; frames < 6; frames++) await new Promise(requestAnimationFrame)
      return node?.isConnected ? Math.abs(node.getBoundingClientRect().top - wanted) : 0
    })
    last = Math.max(last, moved)
    return page.locator('#below').isHidden()
  })
  assert(last < 4, `something jumped by ${last} pixels`)
  assert.deepEqual([...all, 'live'].filter((text) => !seen.has(text)), [])
  assert.equal((await shown(page)).at(-1), 'live')
  step('and down again')

  // From far up, one click is enough; what came meanwhile is there, and what was deleted is not.
  await everything(page)
  for (let number = 0; number < 30; number++) await publish('lobby', `late ${number}`, 'ann')
  const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ act: 'delete', id: ids[1] }) }
  assert.equal((await fetch(`${base}/rooms/lobby/moderation?user=mod`, init)).status, 200)
  await until('it is gone', async () => !(await shown(page)).includes('m1'))
  await page.locator('#below').click()
  await page.locator('#below').waitFor({ state: 'hidden' })
  assert.deepEqual((await shown(page)).slice(-31), ['live', ...Array.from({ length: 30 }, (_, number) => `late ${number}`)])
  step('one click')

  // Who writes from far up is at the end with it.
  await everything(page)
  await write(page, 'from up here')
  await stored(page, 'from up here')
  assert.deepEqual((await shown(page)).slice(-2), ['late 29', 'from up here'])
  assert((await shown(page)).length <= HELD)

  // A room that runs on under one's eyes is not held for ever either.
  for (let number = 0; number < 400; number++) await publish('lobby', `more ${number}`, 'ann')
  await stored(page, 'more 399')
  assert((await shown(page)).length <= HELD)
  assert.equal((await shown(page)).at(-1), 'more 399')
  assert.equal((await everything(page)).length, COUNT - 1 + 1 + 30 + 1 + 400)
})
