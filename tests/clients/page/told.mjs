// What the page tells: direct messages in its title and on top of its list, announcements in full, pins by going to
// their message, rooms in the order of their numbers and those that no list has, and binary values by their size. The
// test takes Redis away and brings it back.
//
//   node told.mjs BASE_URL
import assert from 'node:assert/strict'
import { base, live, print, publish, run, shown, step, stored, told, until, write } from './browser.mjs'

const post = async (path, body) => {
  const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(body) }
  const response = await fetch(`${base}${path}`, init)
  assert(response.ok, `${path}: ${response.status} ${await response.clone().text()}`)
  return response.json()
}

await run(async (open) => {
  const ids = []
  for (let number = 0; number < 400; number++) ids.push(await publish('lobby', `m${number}`, 'ann'))
  const page = await open('dora')
  await stored(page, 'm399')

  // A pin far up: to its message, and back.
  await post('/rooms/lobby/moderation?user=mod', { act: 'pin', id: ids[7] })
  await page.locator('.banner.pin button.banner-body').click()
  await until('its message is in sight', () =>
    page.evaluate(() => {
      const box = document.getElementById('messages').getBoundingClientRect()
      const node = document.activeElement
      const at = node.getBoundingClientRect()
      return node.matches('.message') && node.querySelector('.text').textContent === 'm7' && at.top >= box.top && at.bottom <= box.bottom
    }),
  )
  assert((await shown(page)).length <= 300)
  await page.locator('#below').click()
  await until('the newest are there', async () => (await shown(page)).at(-1) === 'm399')
  // A pin whose message was trimmed meanwhile says so.
  print({ event: 'trim' })
  await told()
  await page.reload()
  await stored(page, 'm399')
  await page.locator('.banner.pin button.banner-body').click()
  await until('it says so', async () => /no longer in the room/.test(await page.locator('#toasts').textContent()))
  step('a pin')

  const long = Array.from({ length: 30 }, (_, line) => `line ${line} of what everybody should know`).join('\n')
  await post('/rooms/lobby/moderation?user=mod', { act: 'announce', message: long })
  const text = page.locator('.banner.announcement .banner-text')
  const all = page.getByRole('button', { name: 'Show all' })
  await all.waitFor()
  const height = () => text.evaluate((node) => node.clientHeight)
  const before = await height()
  await all.click()
  assert((await height()) > 3 * before)
  await page.getByRole('button', { name: 'Show less' }).click()
  assert.equal(await height(), before)
  await post('/rooms/lobby/moderation?user=mod', { act: 'announce', message: 'short' })
  await until('it is short', async () => /short/.test(await text.textContent()))
  assert.equal(await all.isVisible(), false)
  step('an announcement')

  for (const node of ['.message .text', '#room-topic', '#composer-text', '.place-name span', '.title-text']) {
    assert.equal(await page.locator(node).first().getAttribute('dir'), 'auto', node)
  }
  await publish('lobby', 'שלום לכולם', 'ann')
  await stored(page, 'שלום לכולם')
  assert.equal(await page.locator('.message .text').last().evaluate((node) => getComputedStyle(node).direction), 'rtl')
  for (const [base64, size] of [['/////w==', '4 bytes'], ['/w==', '1 byte'], ['AAAA/wD/', '6 bytes'], ['AAD/', '3 bytes']]) {
    await post('/rooms/lobby?user=ann', { fields: { message: { base64 } } })
    await stored(page, `(${size} of binary data)`)
  }
  // What takes one long moment per message would make thousands of them a frozen page.
  await publish('lobby', `https://example.com/${'.'.repeat(50_000)}x and ${'.'.repeat(5_000)}`, 'ann')
  await stored(page, 'https://example.com/')
  const took = await page.evaluate(async () => {
    const { linked } = await import('./assets/text.js')
    const start = performance.now()
    linked(`https://example.com/${'.'.repeat(500_000)}x`)
    return performance.now() - start
  })
  assert(took < 2_000, `${took} ms`)
  step('texts')

  // Rooms by their numbers; a room that the list does not have is found by its name.
  for (const name of ['room 100', 'room 2', 'room 1', 'aa', 'bb']) await publish(encodeURIComponent(name), 'hi', 'ann')
  const names = () => page.locator('#rooms .place-name > span').allTextContents()
  await until('they are sorted', async () => (await names()).filter((name) => name.startsWith('room')).join() === 'room 1,room 2,room 100')
  await page.locator('#rooms-more').waitFor()
  assert(!(await names()).includes('m-old'))
  await page.keyboard.press('Control+k')
  await page.keyboard.type('old harbour')
  const option = page.locator('#switcher li', { hasText: 'old harbour' })
  await until('it is no new one', async () => (await option.count()) === 1 && !/new room/.test(await option.textContent()))
  await page.locator('#switcher-text').fill('nowhere yet')
  await page.locator('#switcher li', { hasText: 'nowhere yet' }).getByText('new room').waitFor()
  await page.keyboard.press('Escape')
  step('rooms')

  // To one alone: in the title, and above the rooms, while it's unread.
  const isRaised = () => page.evaluate(() => Boolean(document.querySelector('#direct-section ~ #rooms-section')))
  assert.equal(await isRaised(), false)
  const other = await open('emil', { path: '/?dm=dora' })
  await live(other)
  await write(other, 'psst')
  await stored(other, 'psst')
  await until('the title tells', async () => /^\(1\) /.test(await page.title()))
  assert.equal(await isRaised(), true)
  await page.locator('#direct a', { hasText: 'emil' }).click()
  await stored(page, 'psst')
  await until('it is read', async () => (await page.title()) === 'emil · tailcast')
  assert.equal(await isRaised(), false)
  await page.goto(`${base}/?room=lobby`)
  await live(page)
  step('a direct message')

  print({ event: 'away' })
  await told()
  await page.locator('#connection[data-state="stuck"]').waitFor()
  await until('the page says so', async () => /can’t be stored/.test(await page.locator('#banners').textContent()))
  print({ event: 'back' })
  await told()
  await live(page)
  await until('and no more', async () => !/can’t be stored/.test(await page.locator('#banners').textContent()))
}, [/503 \(Service/, /404 \(Not Found/])
