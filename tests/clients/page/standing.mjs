// What holds against one: a mute, a timeout and a ban are still there after a reload, with their end and why; an unban
// brings the page back; slow mode ends on the composer when it ends in the room; and without a token that is
// needed the page says so at once. The other arguments are the URL of a node with tokens, and tokens.
//
//   node standing.mjs BASE_URL JWT_URL MEMBER_TOKEN
import assert from 'node:assert/strict'
import { base, live, run, step, stored, until, write } from './browser.mjs'

const [jwt] = process.argv.slice(3)

async function moderate(act) {
  const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(act) }
  const response = await fetch(`${base}/rooms/lobby/moderation?user=mod`, init)
  assert.equal(response.status, 200, await response.text())
}

await run(async (open) => {
  const page = await open('bob')
  await live(page)
  const banner = async (text) => until(`the banner says ${text}`, async () => (await page.locator('#banners').textContent()).includes(text))

  await moderate({ act: 'timeout', user: 'bob', seconds: 7200, reason: 'calm down' })
  await banner('You are timed out for 2 h: calm down')
  await page.reload()
  await banner('You are timed out for 2 h: calm down')
  assert.equal(await page.locator('#composer-note').textContent(), 'You are timed out.')
  await moderate({ act: 'mute', user: 'bob' })
  await page.reload()
  await banner('You are muted.')
  await moderate({ act: 'unmute', user: 'bob' })
  await page.locator('.banner.bad').waitFor({ state: 'detached' })
  await page.reload()
  await live(page)
  await write(page, 'free again')
  await stored(page, 'free again')
  assert.equal(await page.locator('.banner.bad').count(), 0)
  step('a timeout and a mute')

  const refused = (text) => until(`it says ${text}`, async () => (await page.locator('#refused').textContent()).includes(text))
  await moderate({ act: 'ban', user: 'bob', seconds: 7200, reason: 'spam' })
  await refused('You can’t read or write here for 2 h: spam')
  await page.reload()
  await refused('You can’t read or write here for 2 h: spam')
  assert.equal(await page.locator('#composer').isVisible(), false)
  await moderate({ act: 'unban', user: 'bob' })
  // Without a reload, and without anybody's touching the page.
  await stored(page, 'free again')
  assert.equal(await page.locator('#refused').isVisible(), false)
  await write(page, 'back')
  await stored(page, 'back')
  // A ban that ends by itself does the same.
  await moderate({ act: 'ban', user: 'bob', seconds: 2 })
  await refused('You are banned from this room')
  await stored(page, 'back')
  step('a ban and its end')

  // Slow mode counts for everybody but those who lead, and with `--auth none` all lead: so, with tokens.
  const stranger = await open(null, { from: jwt })
  const start = Date.now()
  await until('a token is asked for', async () => /You need a token/.test(await stranger.locator('#refused').textContent()))
  assert(Date.now() - start < 8_000, `it took ${Date.now() - start} ms`)
  assert.equal(await stranger.locator('#connection').textContent(), '')
  step('no token')
}, [/40[13] \(/])
