// Where there are accounts: register, log out, log in, and only look; what is wrong is said.
import assert from 'node:assert/strict'
import { live, run, shown, step, stored, until, write } from './browser.mjs'

await run(async (open) => {
  const fill = async (page, user, password) => {
    await page.locator('#door-user').fill(user)
    await page.locator('#door-password').fill(password)
    await page.locator('#door-go').click()
  }
  const said = (page) => page.locator('#door-error').textContent()

  const alice = await open(null)
  await alice.locator('#door-register').click()
  await fill(alice, 'alice', 'short')
  await until('the password is refused', async () => /8/.test(await said(alice)))
  await alice.locator('#door-shown').fill('Alice Liddell')
  await fill(alice, 'alice', 'correct horse battery')
  await live(alice)
  assert.equal(await alice.locator('#me-name').textContent(), 'Alice Liddell')
  await until('she is host', async () => (await alice.locator('#role').textContent()) === 'host')
  step('registered')

  const bob = await open(null)
  await bob.locator('#door-register').click()
  await fill(bob, 'alice', 'another password')
  await until('the name is taken', async () => (await said(bob)) !== '')
  await fill(bob, 'bob', 'another password')
  await live(bob)
  await until('he is a member', async () => (await bob.locator('#role').textContent()) === 'member')
  await write(bob, 'hello alice')
  await stored(alice, 'hello alice')
  await until('her name is shown', async () => /Alice Liddell/.test(await bob.locator('#people').textContent()))
  // One name for one person, with the one they log in with.
  await write(alice, 'hello bob')
  await stored(bob, 'hello bob')
  const author = (page) => page.locator('.message', { hasText: 'hello bob' }).locator('.name, .handle').allTextContents()
  for (const page of [alice, bob]) await until('she is named', async () => (await author(page)).join() === 'Alice Liddell,alice')
  step('two of them')

  // To one alone, by accounts, and there after logging in again.
  await bob.goto(bob.url().replace(/\?.*/, '?dm=alice'))
  await live(bob)
  await write(bob, 'a secret')
  await stored(bob, 'a secret')
  await alice.locator('#direct .unread').waitFor()
  await bob.locator('#logout').click()
  await bob.locator('#door-user').waitFor()
  await fill(bob, 'bob', 'not his password')
  await until('it is wrong', async () => (await said(bob)) !== '')
  await fill(bob, 'bob', 'another password')
  await live(bob)
  await stored(bob, 'a secret')
  step('logged out and in')

  const carol = await open(null)
  await carol.locator('#door-look').click()
  await live(carol)
  await stored(carol, 'hello alice')
  assert.equal(await carol.locator('#composer-text').isDisabled(), true)
  assert.match(await carol.locator('#composer-note').textContent(), /You can read here/)
  assert.equal(await carol.locator('#composer-login').textContent(), 'Log in to write')
  await write(alice, 'news for all')
  await stored(carol, 'news for all')
  assert.deepEqual(await shown(carol), ['hello alice', 'hello bob', 'news for all'])
  await carol.locator('#composer-login').click()
  await carol.locator('#door-user').waitFor()
}, [/status of 40[019]/])
