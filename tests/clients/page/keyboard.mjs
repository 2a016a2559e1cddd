// The whole way through the page by the keyboard alone: nothing here has a pointer.
import assert from 'node:assert/strict'
import { live, run, shown, step, stored, until } from './browser.mjs'

/** Presses Tab until the focus is on what is meant. */
async function tabTo(page, selector, key = 'Tab') {
  for (let count = 0; count < 80; count++) {
    if (await page.evaluate((selector) => document.activeElement.matches(selector), selector)) return
    await page.keyboard.press(key)
  }
  throw new Error(`no way to ${selector}`)
}

const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.className || document.activeElement.tagName)

/** Types, and sends. */
async function say(page, text) {
  await page.keyboard.type(text)
  await page.keyboard.press('Enter')
}

/** Picks an item of the menu that is open. */
async function pick(page, label) {
  for (let count = 0; count < 20; count++) {
    if ((await page.evaluate(() => document.activeElement.textContent)) === label) return page.keyboard.press('Enter')
    await page.keyboard.press('ArrowDown')
  }
  throw new Error(`no ${label} in the menu`)
}

await run(async (open) => {
  const other = await open('emil')
  const page = await open(null)
  await until('one is at the door', async () => (await focused(page)) === 'door-user')
  await say(page, 'dora')
  await live(page)
  await until('one can write', async () => (await focused(page)) === 'composer-text')
  await say(page, 'hello by hand')
  await stored(other, 'hello by hand')
  step('in by the door')

  // A room that is not there yet, and back by the list.
  await tabTo(page, '#room-new')
  await page.keyboard.press('Enter')
  await until('it is asked', async () => page.evaluate(() => document.activeElement.closest('#ask') !== null))
  await say(page, 'harbour')
  await until('the room is entered', () => page.url().endsWith('?room=harbour'))
  await until('one can write', async () => (await focused(page)) === 'composer-text')
  await say(page, 'ahoy')
  await stored(page, 'ahoy')
  await tabTo(page, '#rooms a[href="?room=lobby"]')
  await page.keyboard.press('Enter')
  await stored(page, 'hello by hand')
  await until('one can write', async () => (await focused(page)) === 'composer-text')
  step('rooms')

  await tabTo(page, '.reaction.heart', 'Shift+Tab')
  await page.keyboard.press('Enter')
  await until('it is counted', async () => (await other.locator('.reaction.heart .count').textContent()) === '1')
  step('a reaction')

  // Up into the messages, and what can be done with one.
  await tabTo(page, '#messages', 'Shift+Tab')
  await page.keyboard.press('ArrowUp')
  await page.keyboard.press('Enter')
  await pick(page, 'Pin')
  await other.locator('.banner.pin', { hasText: 'hello by hand' }).waitFor()
  assert.match(await focused(page), /message/)
  await tabTo(page, '.banner.pin .icon-button', 'Shift+Tab')
  await page.keyboard.press('Enter')
  await other.locator('.banner.pin').waitFor({ state: 'detached' })
  await until('the focus has a place', async () => (await focused(page)) !== 'BODY')
  await tabTo(page, '#messages')
  await page.keyboard.press('ArrowUp')
  await page.keyboard.press('Enter')
  await pick(page, 'Delete')
  await until('it is gone', async () => (await shown(other)).length === 0)
  await until('the focus has a place', async () => (await focused(page)) !== 'BODY')
  step('pinned and deleted')

  await tabTo(page, '#room-menu')
  await page.keyboard.press('Enter')
  await pick(page, 'Topic…')
  await until('it is asked', async () => page.evaluate(() => document.activeElement.closest('#ask') !== null))
  await say(page, 'By hand')
  await until('it is the topic', async () => (await other.locator('#room-topic').textContent()) === 'By hand')
  await until('the focus is back', async () => (await focused(page)) === 'room-menu')
  step('the topic')

  // To a person, and a word to them alone.
  await tabTo(page, '.person:not(:disabled)')
  await page.keyboard.press('Enter')
  await pick(page, 'Write to emil')
  await until('the conversation is open', () => page.url().endsWith('?dm=emil'))
  await until('one can write', async () => (await focused(page)) === 'composer-text')
  await say(page, 'just you')
  await other.locator('#direct .unread').waitFor()
  await page.keyboard.press('Control+k')
  await say(page, 'harbour')
  await stored(page, 'ahoy')
  step('a word to one')

  // The drawers of a narrow window.
  await page.setViewportSize({ width: 390, height: 800 })
  await until('one can write', async () => (await focused(page)) === 'composer-text')
  await tabTo(page, '#rooms-open', 'Shift+Tab')
  await page.keyboard.press('Enter')
  await until('the focus is in it', async () => (await focused(page)) === 'rooms-close')
  await tabTo(page, '#direct a')
  await page.keyboard.press('Enter')
  await stored(page, 'just you')
  await until('the drawer is away', () => page.locator('#rooms-panel').evaluate((panel) => panel.inert))
  await tabTo(page, '#rooms-open')
  await page.keyboard.press('Enter')
  await tabTo(page, '#theme')
  await page.keyboard.press('Enter')
  assert.equal(await page.evaluate(() => document.documentElement.dataset.theme), 'light')
  await page.keyboard.press('Escape')
  await until('the focus is back', async () => (await focused(page)) === 'rooms-open')
})
