// What a moderator deletes while a page's connection is cut is gone once it is back, even the room's oldest
// message or all of them. A proxy of this script does the cutting.
//
//   node away.mjs BASE_URL
import assert from 'node:assert/strict'
import { connect, createServer } from 'node:net'
import { base, live, publish, run, shown, stored, until } from './browser.mjs'

/** A way to the node that can be cut. */
async function wire() {
  const sockets = new Set()
  let isCut = false
  const server = createServer((near) => {
    if (isCut) return near.destroy()
    const far = connect({ host: '127.0.0.1', port: new URL(base).port })
    for (const [from, to] of [[near, far], [far, near]]) {
      sockets.add(from)
      from.on('error', () => {})
      from.on('close', () => {
        sockets.delete(from)
        to.destroy()
      })
      from.pipe(to)
    }
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut() {
      isCut = true
      for (const socket of sockets) socket.destroy()
    },
    mend() {
      isCut = false
    },
    close() {
      this.cut()
      server.close()
    },
  }
}

async function moderate(room, act) {
  const init = { method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(act) }
  const response = await fetch(`${base}/rooms/${encodeURIComponent(room)}/moderation?user=mod`, init)
  assert.equal(response.status, 200, await response.text())
}

await run(async (open) => {
  const line = await wire()
  /** Does something while the page is away. */
  const away = async (page, act) => {
    line.cut()
    await page.locator('#connection:not([data-state="open"])').waitFor()
    await act()
    line.mend()
    await live(page)
  }
  const ids = {}
  for (const text of ['first', 'second', 'third', 'fourth']) ids[text] = await publish('lobby', text, text === 'fourth' ? 'ben' : 'ann')
  const page = await open('dora', { from: line.url })
  await stored(page, 'fourth')
  const texts = async (...wanted) => until(`there is ${wanted}`, async () => (await shown(page)).join() === wanted.join())
  await away(page, () => moderate('lobby', { act: 'delete', id: ids.second }))
  await texts('first', 'third', 'fourth')
  await away(page, () => moderate('lobby', { act: 'delete', id: ids.first }))
  await texts('third', 'fourth')
  await away(page, async () => {
    await moderate('lobby', { act: 'delete', user: 'ann' })
    await publish('lobby', 'fifth', 'ben')
  })
  await texts('fourth', 'fifth')
  assert.equal(await page.locator('.gap').count(), 0)
  await away(page, () => moderate('lobby', { act: 'delete', user: 'ben' }))
  await texts()
  await until('nothing is left for who listens', async () => (await page.locator('#said').textContent()) === '')
  line.close()
}, [/WebSocket connection to/, /ERR_/])
