// Where a token says who may do what: a host, a member and a viewer in one room, and a stranger.
//
//   node roles.mjs BASE_URL HOST_TOKEN MEMBER_TOKEN VIEWER_TOKEN
import assert from 'node:assert/strict'
import { live, run, shown, step, stored, until, write } from './browser.mjs'

const [hostToken, memberToken, viewerToken] = process.argv.slice(3)

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

  await member.goto(member.url().replace('lobby', 'elsewhere'))
  await until('it says why not', async () => /may not come in/.test(await member.locator('#refused').textContent()))
  const stranger = await open(null)
  await until('a token is asked for', async () => /token/.test(await stranger.locator('#refused').textContent()))
}, [/401 \(Unauthorized\)/, /403 \(Forbidden\)/])
