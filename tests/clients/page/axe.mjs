// What axe-core finds wrong with the pages in their main states: every rule it has, in both themes, on a
// desktop and on a phone. The third argument is the URL of the status page.
//
//   node axe.mjs BASE_URL STATUS_URL
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { base, live, publish, run, step, stored, until, write } from './browser.mjs'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')
const statusUrl = process.argv[3]

/** What is wrong, as lines. Evaluated by the debugger, which the page's policy does not bind. */
async function wrong(page) {
  if (!(await page.evaluate(() => 'axe' in window))) await page.evaluate(`${AXE};0`)
  return page.evaluate(async () => {
    // Without motion colours don't fade, but what pops up is there only after a moment.
    await Promise.allSettled(document.getAnimations().map((animation) => animation.finished))
    const { violations, passes } = await window.axe.run(document, { resultTypes: ['violations'] })
    if (passes.length < 10) return [`only ${passes.length} rules had something to look at`]
    return violations.flatMap(({ id, help, nodes }) => nodes.map((node) => `${id}: ${help}: ${node.html.slice(0, 160)} ${node.any[0]?.message ?? ''}`))
  })
}

/** Looks at a state in both themes. */
async function check(page, state) {
  for (const colorScheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme, reducedMotion: 'reduce' })
    assert.deepEqual(await wrong(page), [], `${state}, ${colorScheme}`)
  }
  step(state)
}

/** A room in which there is something of everything. */
async function fill(page) {
  for (const user of ['ann', 'ben', 'cleo']) {
    await publish('lobby', `hello from ${user}, see https://example.com/`, user)
    await publish('lobby', 'and once more', user)
  }
  for (const act of [
    { act: 'topic', message: 'All about ships' },
    { act: 'pin', message: 'Be kind to each other' },
    { act: 'announce', message: 'We begin at noon' },
    { act: 'slow', seconds: 5 },
  ]) {
    const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(act) }
    const response = await fetch(`${base}/rooms/lobby/moderation?user=mod`, init)
    assert.equal(response.status, 200)
  }
  await publish('harbour', 'ahoy', 'ann')
  await stored(page, 'hello from cleo')
  await page.locator('.banner.pin').waitFor()
  await page.locator('.banner.announcement').waitFor()
}

await run(async (open) => {
  const door = await open(null)
  await door.locator('#door-user').waitFor()
  await check(door, 'the door')
  await door.context().close()

  const page = await open('dora')
  const other = await open('emil')
  await live(page)
  await live(other)
  await check(page, 'an empty room')
  await fill(page)
  await write(page, 'and from me')
  await stored(page, 'and from me')
  await other.locator('.reaction.heart').click()
  await until('it is counted', async () => (await page.locator('.reaction.heart .count').textContent()) === '1')
  await page.locator('#rooms a', { hasText: 'harbour' }).waitFor()
  await check(page, 'a lively room')

  await page.locator('.message', { hasText: 'hello from cleo' }).hover()
  await page.locator('.message', { hasText: 'hello from cleo' }).locator('.more').click()
  await check(page, 'a menu')
  await page.getByRole('menuitem', { name: 'Time out…' }).click()
  await page.locator('#ask').waitFor()
  await check(page, 'a question')
  await page.keyboard.press('Escape')
  await page.keyboard.press('Control+k')
  await page.keyboard.type('a')
  await page.locator('#switcher li').first().waitFor()
  await check(page, 'the switcher')
  await page.keyboard.press('Escape')

  await other.goto(`${base}/?dm=dora`)
  await live(other)
  await write(other, 'between us')
  await stored(other, 'between us')
  await page.locator('#direct .unread').waitFor()
  await check(page, 'something unread')
  await page.locator('#direct a').click()
  await stored(page, 'between us')
  await check(page, 'a conversation')
  await page.goto(`${base}/?room=tailcast:x`)
  await page.locator('#refused').waitFor()
  await check(page, 'no such room')

  await other.goto(`${base}/?room=lobby`)
  await live(other)
  const phone = await open('fay', { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true })
  await live(phone)
  await stored(phone, 'hello from cleo')
  await check(phone, 'on a phone')
  await phone.locator('#rooms-open').tap()
  await phone.locator('.rooms-open').waitFor()
  await check(phone, 'rooms on a phone')
  await phone.locator('#rooms-close').tap()
  await phone.locator('#people-open').tap()
  await phone.locator('.people-open').waitFor()
  await check(phone, 'people on a phone')
  await phone.locator('.person', { hasText: 'emil' }).tap()
  await check(phone, 'a menu on a phone')
  await phone.getByRole('menuitem', { name: 'Mute…' }).tap()
  await phone.locator('#ask').waitFor()
  await check(phone, 'a question on a phone')

  for (const [width, height] of [[1280, 800], [390, 844]]) {
    const status = await open(null, { from: statusUrl, path: '', viewport: { width, height } })
    await status.locator('#health[data-state="ready"]').waitFor()
    await status.locator('#nodes tbody tr').first().waitFor()
    await check(status, `the status page, ${width} wide`)
  }
}, [/400 \(Bad Request\).*tailcast%3A/])
