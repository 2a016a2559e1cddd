// Scrolling up loads what is older, without a jump, to the beginning.
import assert from 'node:assert/strict'
import { base, live, publish, run, shown, step, stored, until } from './browser.mjs'

const COUNT = 230

await run(async (open) => {
  for (let number = 0; number < COUNT; number++) await publish('lobby', `m${number}`, `user${number % 3}`)
  const page = await open('reader')
  await live(page)
  await stored(page, `m${COUNT - 1}`)
  assert((await shown(page)).length <= 100, 'not all at once')
  step('the newest')

  const box = page.locator('#messages')
  const topOf = (text) =>
    page.evaluate((wanted) => {
      const node = [...document.querySelectorAll('.message .text')].find((other) => other.textContent === wanted)
      return node.getBoundingClientRect().top
    }, text)
  while ((await page.locator('.begin').count()) === 0) {
    const before = (await shown(page)).length
    const first = (await shown(page))[0]
    await box.evaluate((element) => (element.scrollTop = 120))
    const at = await topOf(first)
    await until('older ones are there', async () => (await shown(page)).length > before || (await page.locator('.begin').count()) > 0)
    const moved = Math.abs((await topOf(first)) - at)
    // The line that says it loads may come and go.
    assert(moved < 4, `${first} moved by ${moved} pixels`)
  }
  assert.deepEqual(await shown(page), Array.from({ length: COUNT }, (_, number) => `m${number}`))
  assert.match(await page.locator('.begin').textContent(), /This is the beginning/)
  step('the beginning')

  // What a program adds comes below, also now, and other fields show, too.
  await fetch(`${base}/rooms/lobby`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ fields: { temperature: '21', unit: 'C' } }),
  })
  await until('fields are shown', async () => (await shown(page)).at(-1) === 'temperature: 21\nunit: C')
})
