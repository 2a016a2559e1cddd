// Faster than the node allows, and in slow mode: what is refused goes by itself when it may, and nothing
// overtakes it; and a time-out that comes on top of it is what is said.
//
//   node rates.mjs BASE_URL HOST_TOKEN MEMBER_TOKEN
import assert from 'node:assert/strict'
import { live, run, shown, step, stored, until, write } from './browser.mjs'

const [hostToken, memberToken] = process.argv.slice(3)

await run(async (open) => {
  const host = await open(null, { token: hostToken })
  await live(host)
  const phone = { viewport: { width: 390, height: 844 }, isMobile: true, hasTouch: true }
  const member = await open(null, { token: memberToken, ...phone })
  await live(member)

  const fast = Array.from({ length: 6 }, (_, number) => `fast ${number}`)
  for (const text of fast) await write(member, text)
  await until('one has to wait', async () => /sent in/.test((await member.locator('.fate').allTextContents()).join()))
  // One is thought better of.
  const text = await member.locator('.message.pending', { hasText: 'sending too fast' }).evaluate((message) => {
    message.querySelector('.fate button').click()
    return message.querySelector('.text').textContent
  })
  await until('all are stored', async () => (await member.locator('.message:not(.stored)').count()) === 0)
  const kept = fast.filter((other) => other !== text)
  await stored(host, kept.at(-1))
  assert.deepEqual(await shown(host), kept)
  assert.deepEqual(await shown(member), kept)
  assert.equal(await member.locator('.fate').count(), 0)
  step('in order, however fast')

  const moderate = async (label, fill) => {
    await host.locator('#room-menu').click()
    await host.locator('.menu').getByRole('menuitem', { name: label, exact: true }).click()
    await fill()
    await host.locator('#ask .primary').click()
  }
  await moderate('Slow mode…', () => host.locator('#ask select').selectOption('60'))
  await member.locator('#slow').waitFor()
  const room = await member.locator('.title-text').evaluate((node) => node.scrollWidth <= node.clientWidth)
  assert(room, 'the name of the room is there to be read')
  await write(member, 'slowly')
  const note = () => member.locator('#composer-note').textContent()
  await until('slow mode is said', async () => /^Slow mode: you can send the next message/.test(await note()))
  await host.locator('.person', { hasText: 'mo' }).first().click()
  await host.locator('.menu').getByRole('menuitem', { name: 'Time out…', exact: true }).click()
  await host.locator('#ask .primary').click()
  await member.locator('.banner.bad').waitFor()
  await until('only the time-out is said', async () => (await note()) === 'You are timed out.')
  assert.equal(await member.locator('#composer-send').getAttribute('aria-label'), 'Send')
  await host.locator('.person', { hasText: 'mo' }).first().click()
  await host.locator('.menu').getByRole('menuitem', { name: 'Lift mute', exact: true }).click()
  await until('and then slow mode again', async () => /^Slow mode/.test(await note()))
  step('a time-out in slow mode')
})
