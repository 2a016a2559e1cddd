// What is written without a connection is kept over a reload, the page asks before it's closed with some of it,
// and once there is a connection all of it is stored once, in order.
//
//   node outbox.mjs BASE_URL
import assert from 'node:assert/strict'
import { base, live, run, shown, step, stored, stream, until, write } from './browser.mjs'
import { wire } from './wire.mjs'

await run(async (open) => {
  const line = await wire()
  const page = await open('dora', { from: line.url })
  const asked = []
  page.on('dialog', (dialog) => {
    asked.push(dialog.type())
    return dialog.accept()
  })
  await live(page)
  await write(page, 'before')
  await stored(page, 'before')
  await until('nothing is under way', async () => (await page.evaluate(() => sessionStorage.length)) === 0)
  await page.reload()
  await live(page)
  assert.deepEqual(asked, [], 'a page with nothing unsent asks nothing')

  line.cutSockets()
  await page.locator('#connection:not([data-state="open"])').waitFor()
  const words = ['one', 'two', 'two', 'before']
  for (const text of words) await write(page, text)
  // One of them in a room that is not open when the page comes back, and one to a user.
  await page.evaluate(() => history.pushState(null, '', '?room=attic') ?? dispatchEvent(new PopStateEvent('popstate')))
  await until('it is in the attic', async () => (await page.locator('#room-title').textContent()).includes('attic'))
  await write(page, 'in the attic')
  await page.evaluate(() => history.pushState(null, '', '?dm=erin') ?? dispatchEvent(new PopStateEvent('popstate')))
  await until('it is at erin', async () => (await page.locator('#room-title').textContent()).includes('erin'))
  await write(page, 'to erin')
  await page.evaluate(() => history.pushState(null, '', '?room=lobby') ?? dispatchEvent(new PopStateEvent('popstate')))
  const waiting = () => page.locator('.message.pending .text').allTextContents()
  await until('they are shown where they were written', async () => (await waiting()).join() === words.join())
  await page.reload()
  assert.deepEqual(asked, ['beforeunload'])
  await until('they are shown after a reload', async () => (await waiting()).join() === words.join())
  step('kept over a reload')

  line.mend()
  await live(page)
  await until('nothing waits', async () => (await page.locator('.message.pending, .message.failed').count()) === 0)
  const all = ['before', ...words]
  await until('all are shown', async () => (await shown(page)).join() === all.join())
  assert.deepEqual(await stream('lobby'), all)
  await until('the attic has its own', async () => (await stream('attic')).join() === 'in the attic')
  const ofErin = async () => (await (await fetch(`${base}/rooms/%40erin?user=erin`)).json()).entries.map(({ fields }) => fields.message)
  await until('erin has hers', async () => (await ofErin()).join() === 'to erin')
  await until('nothing is kept', async () => (await page.evaluate(() => sessionStorage.length)) === 0)
  step('sent once, in order')

  // What was sent, and whose answer never came, is sent again under its key.
  line.deafen()
  await write(page, 'unheard')
  await until('it is stored', async () => (await stream('lobby')).includes('unheard'))
  await page.reload()
  line.mend()
  await page.reload()
  await live(page)
  await stored(page, 'unheard')
  await until('nothing waits', async () => (await page.locator('.message.pending, .message.failed').count()) === 0)
  assert.equal((await shown(page)).filter((text) => text === 'unheard').length, 1)
  assert.equal((await stream('lobby')).filter((text) => text === 'unheard').length, 1)
  step('sent again under its key')

  // So long ago that a node may have forgotten the key: the page says so, and leaves it to the user.
  const late = { kind: 'room', name: 'lobby', text: 'long ago', key: 'k1', time: Date.now() - 250_000, sentAt: Date.now() - 250_000, error: null }
  await page.evaluate((item) => sessionStorage.setItem('tailcast.outbox.dora', JSON.stringify([item])), late)
  await page.reload()
  await live(page)
  const failed = page.locator('.message.failed', { hasText: 'long ago' })
  assert.match(await failed.locator('.fate').textContent(), /^Couldn’t confirm that this was sent/)
  assert.equal((await stream('lobby')).includes('long ago'), false)
  await failed.getByRole('button', { name: 'Send again' }).click()
  await stored(page, 'long ago')
  assert.equal((await stream('lobby')).filter((text) => text === 'long ago').length, 1)
  // Another user of this tab has nothing to do with it.
  await page.evaluate((item) => sessionStorage.setItem('tailcast.outbox.zoe', JSON.stringify([item])), { ...late, sentAt: null, text: 'of zoe' })
  await page.reload()
  await live(page)
  await write(page, 'the end')
  await stored(page, 'the end')
  assert.equal((await stream('lobby')).includes('of zoe'), false)
  line.close()
  // Chromium does not ask before a page is left that nobody has touched since it was loaded, and complains.
}, [/WebSocket connection to/, /ERR_/, /beforeunload/])
