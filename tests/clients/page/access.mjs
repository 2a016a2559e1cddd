// For everybody: names for all that can be used, focus that can be seen and goes round, drawers on a phone,
// headers that keep strangers out.
import assert from 'node:assert/strict'
import { base, live, pale, publish, run, step, stored, until, write } from './browser.mjs'

/** Controls without a name, inputs without a label, and what has a role that makes no sense. */
const nameless = (page) =>
  page.evaluate(() => {
    const isShown = (node) => node.checkVisibility?.({ visibilityProperty: true }) && !node.closest('[inert]')
    const nameOf = (node) => {
      const by = node.getAttribute('aria-labelledby')
      if (by) return document.getElementById(by)?.textContent.trim()
      return node.getAttribute('aria-label') ?? (node.labels?.length ? node.labels[0].textContent.trim() : node.textContent.trim())
    }
    const controls = [...document.querySelectorAll('button, a[href], input, textarea, select, [role], nav, aside, dialog')]
    const bad = controls.filter((node) => isShown(node) && node.role !== 'note' && !nameOf(node) && node.getAttribute('role') !== 'status')
    const ids = [...document.querySelectorAll('[id]')].map((node) => node.id)
    const twice = ids.filter((id, at) => ids.indexOf(id) !== at)
    const dangling = [...document.querySelectorAll('[aria-controls], [for]')].filter(
      (node) => !document.getElementById(node.getAttribute('aria-controls') ?? node.getAttribute('for')),
    )
    return [...bad, ...dangling].map((node) => node.outerHTML.slice(0, 120)).concat(twice)
  })

/** What can be tapped, but is less than 40 px wide or high. Links within a text are as high as it is. */
const small = (page) =>
  page.evaluate(() => {
    const tapped = [...document.querySelectorAll('button, input, select, textarea, a.place, [role="option"]')]
    const isShown = (node) => node.checkVisibility({ visibilityProperty: true }) && !node.closest('[inert]')
    return tapped.filter(isShown).flatMap((node) => {
      // A tap beside the text is one into it.
      const { width, height } = (node.closest('.composer') && node.matches('textarea') ? node.parentElement : node).getBoundingClientRect()
      return width < 39.9 || height < 39.9 ? [`${node.id || node.className}: ${width} x ${height}`] : []
    })
  })

await run(async (open) => {
  const head = await fetch(`${base}/`, { headers: { Accept: 'text/html' } })
  const policy = head.headers.get('content-security-policy')
  for (const part of ["default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'"]) {
    assert(policy.includes(part), policy)
  }
  assert(!policy.includes('unsafe'))
  assert.equal(head.headers.get('x-content-type-options'), 'nosniff')
  const again = await fetch(`${base}/`, { headers: { Accept: 'text/html', 'If-None-Match': head.headers.get('etag') } })
  assert.equal(again.status, 304)
  const plain = await fetch(`${base}/`)
  assert.match(plain.headers.get('content-type'), /text\/plain/)
  assert.match(await plain.text(), /wscat/)
  step('headers')

  for (const user of ['ann', 'ben', 'cleo']) await publish('lobby', `hello from ${user}`, user)
  const page = await open('dora')
  await live(page)
  await write(page, 'and from me')
  await stored(page, 'and from me')
  await until('all have come', async () => (await page.locator('.person').count()) === 1)
  for (const scheme of ['light', 'dark']) {
    await page.emulateMedia({ colorScheme: scheme })
    assert.deepEqual(await nameless(page), [], scheme)
    // Colours fade into each other for a moment.
    await until(`text stands out in ${scheme}: ${await pale(page)}`, async () => (await pale(page)).length === 0)
  }
  step('names and contrast')

  // Once round with the Tab key: everything is reached, seen, and nothing holds the focus.
  await page.locator('.skip').first().focus()
  const seen = []
  for (let count = 0; count < 60; count++) {
    await page.keyboard.press('Tab')
    const stop = await page.evaluate(() => {
      const node = document.activeElement
      if (node === document.body || node === document.querySelector('.skip')) return null
      const style = getComputedStyle(node)
      const around = getComputedStyle(node.closest('form') ?? node)
      return {
        what: node.id || node.className || node.tagName,
        isMarked: (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2) || around.boxShadow !== 'none',
      }
    })
    if (stop === null) break
    seen.push(stop)
  }
  assert(seen.length < 50, 'the focus comes round')
  const names = seen.map(({ what }) => what)
  for (const id of ['jump', 'messages', 'composer-text', 'theme', 'people-open', 'room-menu']) assert(names.includes(id), `${id} in ${names}`)
  assert(names.indexOf('messages') < names.indexOf('composer-text'))
  assert.deepEqual(seen.filter(({ isMarked }) => !isMarked), [])
  step('the way of the focus')

  // By keys alone: to a message, its menu, away with Esc, and back to writing.
  await page.locator('#messages').focus()
  await page.keyboard.press('ArrowUp')
  await page.keyboard.press('ArrowUp')
  assert.match(await page.evaluate(() => document.activeElement.textContent), /hello from cleo/)
  await page.keyboard.press('Enter')
  await page.locator('.menu').waitFor()
  assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Copy text')
  await page.keyboard.press('ArrowDown')
  await page.keyboard.press('Escape')
  await page.locator('.menu').waitFor({ state: 'detached' })
  assert.match(await page.evaluate(() => document.activeElement.className), /message/)
  await page.keyboard.press('Escape')
  assert.equal(await page.evaluate(() => document.activeElement.id), 'composer-text')
  await page.keyboard.press('Control+k')
  await page.keyboard.press('Escape')
  assert.equal(await page.evaluate(() => document.getElementById('switcher').open), false)
  step('keys')

  const phone = await open('eve', { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true })
  await live(phone)
  await stored(phone, 'and from me')
  assert(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nothing is wider than the phone')
  const isIn = (id) => phone.locator(id).evaluate((node) => {
    const box = node.getBoundingClientRect()
    return getComputedStyle(node).visibility === 'visible' && box.left >= 0 && box.right <= innerWidth && !node.inert
  })
  assert.equal(await isIn('#rooms-panel'), false)
  assert.deepEqual(await small(phone), [])
  await phone.locator('#rooms-open').tap()
  await until('the rooms are there', () => isIn('#rooms-panel'))
  assert.deepEqual(await nameless(phone), [])
  assert.deepEqual(await small(phone), [])
  await phone.keyboard.press('Escape')
  await until('they are away', async () => !(await isIn('#rooms-panel')))
  assert.equal(await phone.evaluate(() => document.activeElement.id), 'rooms-open')
  await phone.locator('#people-open').tap()
  await until('the people are there', () => isIn('#people-panel'))
  assert.deepEqual(await small(phone), [])
  await phone.locator('.person', { hasText: 'dora' }).tap()
  assert.deepEqual(await small(phone), [])
  await phone.getByRole('menuitem', { name: 'Ban…' }).tap()
  await phone.locator('#ask').waitFor()
  assert.deepEqual(await small(phone), [])
  await phone.getByRole('button', { name: 'Cancel' }).tap()
  await phone.locator('#scrim').tap({ position: { x: 10, y: 400 } })
  await until('they are away', async () => !(await isIn('#people-panel')))
  await phone.locator('#rooms-open').tap()
  await phone.locator('#rooms a').first().tap()
  await until('choosing a room shuts the drawer', async () => !(await isIn('#rooms-panel')))
  await write(phone, 'from a phone')
  await stored(page, 'from a phone')
  step('on a phone')

  // Where nobody can be there is nothing to do.
  await phone.goto(`${base}/?room=tailcast:x`)
  await phone.locator('#refused').waitFor()
  for (const id of ['room-menu', 'composer', 'reactions']) assert.equal(await phone.locator(`#${id}`).isVisible(), false, id)
  assert.deepEqual(await small(phone), [])
  await phone.goto(`${base}/?room=lobby`)
  await stored(phone, 'from a phone')
  assert.equal(await phone.locator('#composer').isVisible(), true)
}, [/400 \(Bad Request\).*tailcast%3A/])
