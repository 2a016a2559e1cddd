// What a moderator deletes while a page's connection is cut is gone once it is back, even the room's oldest
// message or all of them. A proxy of this script does the cutting.
//
//   node away.mjs BASE_URL
import assert from 'node:assert/strict'
import { base, live, publish, run, shown, stored, until } from './browser.mjs'
import { wire } from './wire.mjs'

async function moderate(room, act) {
  const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(act) }
  const response = await fetch(`${base}/rooms/${encodeURIComponent(room)}/moderation?user=mod`, init)
  assert.equal(response.status, 200, await response.text())
}

await run(async (open) => {
  const line = await wire()
  /** Does something while the page is away. */
  const away = async (page, act) => {
    line.cut()
    await page.locator('#connection:not([data-state="open"])').waitFor()
    await act()
    line.mend()
    await live(page)
  }
  const ids = {}
  for (const text of ['first', 'second', 'third', 'fourth']) ids[text] = await publish('lobby', text, text === 'fourth' ? 'ben' : 'ann')
  const page = await open('dora', { from: line.url })
  await stored(page, 'fourth')
  const texts = async (...wanted) => until(`there is ${wanted}`, async () => (await shown(page)).join() === wanted.join())
  await away(page, () => moderate('lobby', { act: 'delete', id: ids.second }))
  await texts('first', 'third', 'fourth')
  await away(page, () => moderate('lobby', { act: 'delete', id: ids.first }))
  await texts('third', 'fourth')
  await away(page, async () => {
    await moderate('lobby', { act: 'delete', user: 'ann' })
    await publish('lobby', 'fifth', 'ben')
  })
  await texts('fourth', 'fifth')
  assert.equal(await page.locator('.gap').count(), 0)
  await away(page, () => moderate('lobby', { act: 'delete', user: 'ben' }))
  await texts()
  await until('nothing is left for who listens', async () => (await page.locator('#said').textContent()) === '')
  line.close()
}, [/WebSocket connection to/, /ERR_/])
