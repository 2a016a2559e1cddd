// Where a token says who may do what: a host, a member and a viewer in one room, and a stranger.
//
//   node roles.mjs BASE_URL HOST_TOKEN MEMBER_TOKEN VIEWER_TOKEN COHOST_TOKEN MODERATOR_TOKEN
//
// The cohost's token is of the same user as the member's; the moderator has a long name.
import assert from 'node:assert/strict'
import { live, pale, run, shown, step, stored, until, write } from './browser.mjs'

const [hostToken, memberToken, viewerToken, cohostToken, moderatorToken] = process.argv.slice(3)

await run(async (open) => {
  const host = await open(null, { token: hostToken })
  const member = await open(null, { token: memberToken })
  const viewer = await open(null, { token: viewerToken })
  for (const page of [host, member, viewer]) await live(page)
  for (const [page, role] of [[host, 'host'], [member, 'member'], [viewer, 'viewer']]) {
    await until(`${role} is shown`, async () => (await page.locator('#role').textContent()) === role)
  }
  assert.equal(await host.locator('#me-name').textContent(), 'Hanna')
  assert.equal(await host.locator('#room-menu').isVisible(), true)
  assert.equal(await member.locator('#room-menu').isVisible(), false)
  assert.equal(await viewer.locator('#composer-text').isDisabled(), true)
  assert.match(await viewer.locator('#composer-note').textContent(), /not write/)
  step('roles')

  await write(member, 'may I?')
  await stored(host, 'may I?')
  await member.locator('.message').hover()
  await member.locator('.message .more').click()
  assert.deepEqual(await member.locator('.menu button').allTextContents(), ['Copy text'])
  await member.keyboard.press('Escape')
  step('a member moderates nobody')

  // What others are is shown beside their names, in the list, and where they said something.
  const people = (page) => page.locator('.person').evaluateAll((all) => all.map((person) => person.innerText.trim().split(/\s*\n\s*/).slice(1).join(' ')))
  const author = (page, text) => page.locator('.message', { hasText: text }).last().locator('.head .badge')
  await write(host, 'you may')
  for (const page of [host, member, viewer]) {
    await until('the host is marked', async () => (await author(page, 'you may').allTextContents()).join() === 'host')
    assert.equal(await author(page, 'may I?').count(), 0)
  }
  await until('the host comes first', async () => /^Hanna hanna host,vi you,mo$/.test((await people(viewer)).join()))
  const phone = await open(null, { token: moderatorToken, viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true })
  await live(phone)
  await write(phone, 'from a phone')
  await until('the moderator is marked', async () => (await author(viewer, 'from a phone').allTextContents()).join() === 'moderator')
  await until('and comes second', async () => /^Hanna hanna host,m{40} moderator,vi you,mo$/.test((await people(viewer)).join()))
  // Another device of the member's, with a higher role, and away again.
  const device = await open(null, { token: cohostToken })
  await live(device)
  await until('the member is a cohost', async () => (await author(host, 'may I?').allTextContents()).join() === 'cohost')
  await until('and comes second', async () => /^Hanna hanna host you,mo cohost,m{40} moderator,vi$/.test((await people(host)).join()))
  for (const [page, width] of [[host, 1280], [phone, 390]]) {
    for (const colorScheme of ['light', 'dark']) {
      await page.emulateMedia({ colorScheme })
      await until(`badges stand out in ${colorScheme}`, async () => (await pale(page)).length === 0)
    }
    const edge = await page.evaluate(() => Math.max(document.documentElement.scrollWidth, ...[...document.querySelectorAll('.head > *')].map((node) => node.getBoundingClientRect().right)))
    assert(edge <= width, `nothing is wider than ${width}: ${edge}`)
  }
  await device.context().close()
  await until('the member is one again', async () => (await author(host, 'may I?').count()) === 0)
  await phone.context().close()
  step('what others are')

  await host.locator('#room-menu').click()
  await host.locator('.menu').getByRole('menuitem', { name: 'Slow mode…' }).click()
  await host.locator('#ask select').selectOption('5')
  await host.locator('#ask .primary').click()
  await member.locator('#slow').waitFor()
  await write(member, 'slowly')
  await stored(host, 'slowly')
  // The button counts down, and then it may be sent again.
  await until('it counts', async () => /Send, in [1-5] s/.test(await member.locator('#composer-send').getAttribute('aria-label')))
  await write(member, 'too soon')
  assert.equal(await member.locator('#composer-text').inputValue(), 'too soon')
  await until('it may go', async () => (await member.locator('#composer-send').isEnabled()))
  await member.locator('#composer-send').click()
  await stored(host, 'too soon')
  // Hosts are exempt.
  await write(host, 'one')
  await write(host, 'two')
  await stored(viewer, 'two')
  assert.deepEqual((await shown(viewer)).slice(-2), ['one', 'two'])
  step('slow mode')

  await host.locator('#room-menu').click()
  await host.locator('.menu').getByRole('menuitem', { name: 'Close the room' }).click()
  await until('the member may not write', () => member.locator('#composer-text').isDisabled())
  assert.equal(await host.locator('#composer-text').isDisabled(), false)
  step('closed')

  // However small the screen is, the room has its name, and nothing lies over anything else.
  await host.locator('#room-menu').click()
  await host.locator('.menu').getByRole('menuitem', { name: 'Topic…' }).click()
  await host.locator('#ask input').fill('Everything about ships, sails, and what comes after them')
  await host.locator('#ask .primary').click()
  await until('it is the topic', async () => /ships/.test(await host.locator('#room-topic').textContent()))
  for (const width of [1280, 390, 320]) {
    await host.setViewportSize({ width, height: 640 })
    const { wide, title, over } = await host.evaluate(() => {
      const parts = [...document.querySelectorAll('.room-head > :not(.room-name), .room-line > *, .title-text')].filter((node) => node.checkVisibility())
      const boxes = parts.map((node) => ({ what: node.id || node.className, box: node.getBoundingClientRect() }))
      const meet = (a, b) => a.left < b.right - 1 && b.left < a.right - 1 && a.top < b.bottom - 1 && b.top < a.bottom - 1
      const over = boxes.flatMap((a, at) => boxes.slice(at + 1).filter((b) => meet(a.box, b.box)).map((b) => `${a.what} and ${b.what}`))
      const title = document.querySelector('.title-text')
      return { wide: document.documentElement.scrollWidth, title: title.clientWidth >= title.scrollWidth, over }
    })
    assert.deepEqual([wide, title, over], [width, true, []], `at ${width}`)
  }
  step('on a small screen')

  await member.goto(member.url().replace('lobby', 'elsewhere'))
  await until('it says why not', async () => /don’t have access/.test(await member.locator('#refused').textContent()))
  const stranger = await open(null)
  await until('a token is asked for', async () => /token/.test(await stranger.locator('#refused').textContent()))
}, [/401 \(Unauthorized\)/, /403 \(Forbidden\)/])
