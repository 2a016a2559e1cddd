// What is new in rooms one has been in, and in conversations, is marked in the list until it is read: over
// reloads, in all tabs, and without a request for any single room. The third argument is a node that has no
// list of all rooms at once, and so no messages to count.
//
//   node unread.mjs BASE_URL BARE_URL
import assert from 'node:assert/strict'
import { base, live, publish, run, step, stored, until, write } from './browser.mjs'

const bare = process.argv[3]

/** The mark of a room or a conversation, without the words for who listens; empty if there is none. */
const mark = async (page, name) => {
  const texts = await page.locator('.place', { hasText: name }).locator('.unread').allTextContents()
  return texts.join().replace(/ (unread|something new)$/, '')
}
const marked = (page, name, text) => until(`${name} is marked ${text || 'no more'}`, async () => (await mark(page, name)) === text)

/** Waits until the list shows what was said there last, by the room's topic, which is set after it. */
async function listed(page, room, topic) {
  const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify({ act: 'topic', message: topic }) }
  assert.equal((await fetch(`${base}/rooms/${room}/moderation?user=mod`, init)).status, 200)
  await page.locator('.place', { hasText: topic }).waitFor({ state: 'attached' })
}

await run(async (open) => {
  await publish('harbour', 'ahoy', 'ann')
  await publish('strange', 'nobody here knows me', 'ann')
  const page = await open('dora', { path: '/?room=harbour' })
  const asked = []
  page.on('request', (request) => asked.push(new URL(request.url()).pathname))
  await stored(page, 'ahoy')
  await page.goto(`${base}/?room=lobby`)
  await live(page)
  assert.equal(await mark(page, 'harbour'), '')
  asked.length = 0

  await publish('harbour', 'land', 'ann')
  await publish('harbour', 'water', 'ben')
  await publish('harbour', 'from my phone', 'dora')
  await publish('strange', 'still', 'ann')
  await marked(page, 'harbour', '2')
  await listed(page, 'strange', 'unheard of')
  assert.equal(await mark(page, 'strange'), '')
  assert.deepEqual(asked.filter((path) => path.startsWith('/rooms/')), [])
  await page.reload()
  await live(page)
  await marked(page, 'harbour', '2')
  step('counted, also after a reload')

  // The list reaches back so far, and says that it doesn't know more.
  for (let count = 0; count < 8; count++) await publish('harbour', `wave ${count}`, 'ann')
  await marked(page, 'harbour', '9+')
  const tab = await page.context().newPage()
  await tab.goto(`${base}/?room=harbour`)
  await stored(tab, 'wave 7')
  await marked(page, 'harbour', '')
  // A line is above the first that was new on coming in, and above nothing that comes now, or next time.
  const below = tab.locator('#list > .news + .message .text')
  await until('the line is there', async () => (await below.allTextContents()).join() === 'land')
  await publish('harbour', 'right now', 'ann')
  await stored(tab, 'right now')
  assert.equal(await below.textContent(), 'land')
  await tab.reload()
  await stored(tab, 'right now')
  assert.equal(await tab.locator('#list > .news').count(), 0)
  await tab.close()
  await marked(page, 'harbour', '')
  step('read in another tab')

  await publish('harbour', 'once more', 'ann')
  await marked(page, 'harbour', '1')
  await page.locator('#rooms a', { hasText: 'harbour' }).click()
  await stored(page, 'once more')
  await marked(page, 'harbour', '')
  await page.locator('#rooms a', { hasText: 'lobby' }).click()
  await live(page)
  await publish('harbour', 'and again', 'ann')
  await marked(page, 'harbour', '1')
  step('read, and new again')

  // An empty room that one has been in, and a conversation.
  await page.goto(`${base}/?room=quiet`)
  await live(page)
  await until('it has been seen', () => page.evaluate(() => localStorage.getItem('tailcast.read-rooms.dora').includes('quiet')))
  await page.goto(`${base}/?room=lobby`)
  await live(page)
  await publish('quiet', 'psst', 'ann')
  await marked(page, 'quiet', '1')
  const other = await open('emil', { path: '/?dm=dora' })
  await live(other)
  for (const text of ['one', 'two']) {
    await write(other, text)
    await stored(other, text)
  }
  await marked(page, 'emil', '2')
  await page.reload()
  await marked(page, 'emil', '2')
  const second = await page.context().newPage()
  await second.goto(`${base}/?dm=emil`)
  await stored(second, 'two')
  await marked(page, 'emil', '')
  await second.close()
  step('conversations')

  // On a phone the list is away: its button says it.
  await page.setViewportSize({ width: 390, height: 844 })
  await until('the button tells', async () => /something new/.test(await page.locator('#rooms-open').getAttribute('aria-label')))
  for (const [room, last] of [['harbour', 'and again'], ['quiet', 'psst']]) {
    await page.goto(`${base}/?room=${room}`)
    await stored(page, last)
  }
  await marked(page, 'harbour', '')
  await until('nothing is new', async () => !/something new/.test(await page.locator('#rooms-open').getAttribute('aria-label')))
  step('on a phone')

  // Where a node tells no messages with the list, it's still known that there is something.
  const plain = await open('gil', { from: bare, path: '/?room=harbour' })
  await stored(plain, 'and again')
  await plain.goto(`${bare}/?room=lobby`)
  await live(plain)
  await publish('harbour', 'how many', 'ann')
  await plain.locator('.place', { hasText: 'harbour' }).locator('.unread.dot').waitFor()
  step('a dot')

  // However many rooms there were, a browser is not filled.
  const many = Object.fromEntries(Array.from({ length: 300 }, (_, number) => [`room ${number}`, `${1000 + number}-0`]))
  await page.evaluate((many) => localStorage.setItem('tailcast.read-rooms.dora', JSON.stringify({ ...many, odd: 7 })), many)
  await page.goto(`${base}/?room=harbour`)
  await stored(page, 'how many')
  const names = () => page.evaluate(() => Object.keys(JSON.parse(localStorage.getItem('tailcast.read-rooms.dora'))))
  await until('the oldest are forgotten', async () => (await names()).length === 200)
  const left = await names()
  assert(left.includes('harbour') && left.includes('room 299') && !left.includes('room 0') && !left.includes('odd'))
}, [/404 \(Not Found\).*homepage_json/])
