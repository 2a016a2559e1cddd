// Where one comes in without saying where, and what one is told there: news, and only once.
import assert from 'node:assert/strict'
import { base, live, publish, run, step, stored, until, write } from './browser.mjs'

await run(async (open) => {
  const listed = async (room) => {
    const { rooms } = await (await fetch(`${base}/homepage_json`)).json()
    return rooms.some((one) => one.room === room && one.last)
  }
  await publish('early', 'first', 'ann')
  await publish('late', 'second', 'ann')
  await until('both rooms are listed', async () => (await listed('early')) && (await listed('late')))
  const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }
  const bobby = await open('bobby', { path: '/', ...phone })
  await stored(bobby, 'second')
  assert.match(bobby.url(), /\?room=late$/)
  await bobby.goto(`${base}/?room=early`)
  await stored(bobby, 'first')
  await bobby.goto(`${base}/`)
  await stored(bobby, 'first')
  assert.match(bobby.url(), /\?room=early$/)
  step('the liveliest room, and then the last one')

  // All that is ever said in a toast, over all loads.
  const toasts = []
  await bobby.exposeFunction('onToast', (text) => toasts.push(text))
  await bobby.addInitScript(() => {
    addEventListener('DOMContentLoaded', () => {
      const tell = (changes) => {
        for (const { addedNodes } of changes) for (const node of addedNodes) window.onToast(node.textContent)
      }
      new MutationObserver(tell).observe(document.getElementById('toasts'), { childList: true })
    })
  })
  await bobby.reload()
  await stored(bobby, 'first')
  const hanna = await open('hanna', { path: '/?dm=bobby' })
  await live(hanna)
  const begin = (page) => page.locator('.begin').textContent()
  await until('it begins', async () => /This is the beginning of your conversation with bobby\./.test(await begin(hanna)))
  await write(hanna, 'are you there?')
  await stored(hanna, 'are you there?')
  assert.match(await begin(hanna), /This is the beginning of your conversation with bobby\./)
  await until('bobby is told', () => toasts.length > 0)
  assert.deepEqual(toasts, ['New message from hanna'])

  // Seen or not, it's no news on the next load, while it is still to be read.
  const unread = bobby.locator('#direct .unread')
  await bobby.reload()
  await until('it is counted', async () => /^1/.test(await unread.textContent()))
  await bobby.goto(`${base}/?dm=hanna`)
  await stored(bobby, 'are you there?')
  await write(bobby, 'yes')
  await stored(hanna, 'yes')
  for (const room of ['early', 'late']) {
    await bobby.goto(`${base}/?room=${room}`)
    await stored(bobby, room === 'early' ? 'first' : 'second')
    // The conversation has been replayed once it's in the list.
    await bobby.locator('#direct a', { hasText: 'hanna' }).waitFor({ state: 'attached' })
    assert.equal(await unread.count(), 0)
  }
  await write(hanna, 'good')
  await until('that is news', () => toasts.length > 1)
  assert.deepEqual(toasts, ['New message from hanna', 'New message from hanna'])
  step('told once')
})
