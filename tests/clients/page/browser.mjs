// What the scripts of this folder stand on: a real Chromium, the chat page in it as one user or several,
// and whatever the browser complained about. Each script is driven by lines of JSON, like the clients.
//
//   node SCRIPT.mjs BASE_URL
//
// Events: {"event":"step","name":"…"} as it goes, {"event":"alive"} while it waits, what a script says itself,
// and at the end {"event":"passed"} or {"event":"failed","message":"…"}.
import assert from 'node:assert/strict'
import { createInterface } from 'node:readline'
import { launch } from '../chromium.mjs'

/** Longest wait for anything that should happen, in ms. */
const PATIENCE = 90_000

/** How often it's said that a script still waits, in ms: it is the script that knows for how long. */
const ALIVE = 5_000

export const base = process.argv[2]

export const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')
export const step = (name) => print({ event: 'step', name })

const input = createInterface({ input: process.stdin })[Symbol.asyncIterator]()

/** The next line that the test says. */
export async function told() {
  const { value, done } = await input.next()
  if (done) throw new Error('the test has ended')
  return value
}

/**
 * Runs a script: `script(open)`, with `open(user, options)` giving the page as that user, in a context that
 * `prepare` has seen before. The browser may complain of what is `expected`, and of nothing else.
 */
export async function run(script, expected = []) {
  const alive = setInterval(() => print({ event: 'alive' }), ALIVE)
  const browser = await launch({ timeout: PATIENCE })
  const complaints = []
  const open = async (user, { path = '/?room=lobby', from = base, token, prepare, ...options } = {}) => {
    const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options })
    context.setDefaultTimeout(PATIENCE)
    if (token) await context.addCookies([{ name: 'token', value: token, url: base, httpOnly: true, sameSite: 'Lax' }])
    await context.addInitScript((name) => {
      addEventListener('securitypolicyviolation', (event) => {
        console.error(`policy: ${event.violatedDirective} ${event.blockedURI}`)
      })
      if (name) localStorage.setItem('tailcast.name', JSON.stringify(name))
    }, user)
    await prepare?.(context)
    const page = await context.newPage()
    page.on('console', (message) => {
      if (message.type() === 'error') complaints.push(`${message.text()} ${message.location().url}`)
    })
    page.on('pageerror', (error) => complaints.push(`${error.stack}`))
    await page.goto(from + path)
    return page
  }
  try {
    await script(open)
    assert.deepEqual(complaints.filter((text) => !expected.some((pattern) => pattern.test(text))), [])
    print({ event: 'passed' })
  } catch (error) {
    print({ event: 'failed', message: `${error.stack}\n${complaints.join('\n')}` })
    process.exitCode = 1
  } finally {
    await browser.close()
    clearInterval(alive)
    process.stdin.destroy()
  }
}

/** Waits until the page is in its room. */
export const live = (page) => page.locator('#connection[data-state="open"]').waitFor()

/** Writes, and sends with Enter. */
export async function write(page, text) {
  await page.locator('#composer-text').fill(text)
  await page.locator('#composer-text').press('Enter')
}

/** The messages that the page shows. */
export const shown = (page) => page.locator('.message .text').allTextContents()

/** Messages that a page holds at most, and some: all that it has in the document, wherever one reads. */
export const HELD = 360

/** The messages in the document, with their IDs, and whether the first one is the room's first; then scrolls up a little. */
const up = (page) =>
  page.evaluate(() => {
    const nodes = [...document.querySelectorAll('.message[data-id]')]
    const isFirst = document.querySelector('.begin') !== null
    const box = document.getElementById('messages')
    box.scrollTop = Math.max(0, box.scrollTop - 2 * box.clientHeight)
    return { isFirst, now: nodes.map((node) => [node.dataset.id, node.querySelector('.text').textContent]) }
  })

/** All messages, oldest first: scrolls through from where one is to the beginning. */
export async function everything(page) {
  const found = new Map()
  const numbers = (id) => id.split('-').map(Number)
  const order = ([a], [b]) => numbers(a)[0] - numbers(b)[0] || numbers(a)[1] - numbers(b)[1]
  await until('the beginning is reached', async () => {
    const { now, isFirst } = await up(page)
    assert(now.length <= HELD, `${now.length} messages are in the document`)
    assert.deepEqual(now, now.toSorted(order), 'they are in order')
    assert.equal(new Set(now.map(([id]) => id)).size, now.length, 'none is there twice')
    // Each stretch must touch the one before it, or something between them was never shown.
    assert(found.size === 0 || now.some(([id]) => found.has(id)), 'nothing is skipped')
    for (const [id, text] of now) found.set(id, text)
    return isFirst
  })
  return [...found].sort(order).map(([, text]) => text)
}

/** Waits until a message with that text is there, as stored. */
export const stored = (page, text) => page.locator('.message.stored', { hasText: text }).first().waitFor()

/** Waits until a condition holds in the page. */
export async function until(what, holds) {
  const end = Date.now() + PATIENCE
  let last
  while (!(last = await holds())) {
    if (Date.now() > end) throw new Error(`waited in vain until ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  return last
}

/** Publishes over HTTP. */
export async function publish(room, message, user = 'program') {
  const response = await fetch(`${base}/rooms/${room}?user=${user}`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ message }),
  })
  assert.equal(response.status, 201)
  return (await response.json()).id
}

/** All messages of a room, from its stream. */
export async function stream(room, from = base) {
  const response = await fetch(`${from}/rooms/${room}?limit=1000`)
  return (await response.json()).entries.map((entry) => entry.fields.message)
}

/** Text whose contrast with what is behind it is below 4.5. */
export const pale = (page) =>
  page.evaluate(() => {
    const canvas = document.createElement('canvas')
    canvas.width = canvas.height = 1
    const context = canvas.getContext('2d', { willReadFrequently: true })
    const rgba = (color) => {
      context.clearRect(0, 0, 1, 1)
      context.fillStyle = color
      context.fillRect(0, 0, 1, 1)
      return [...context.getImageData(0, 0, 1, 1).data]
    }
    const over = (top, below) => top.slice(0, 3).map((value, at) => (value * top[3] + below[at] * (255 - top[3])) / 255).concat(255)
    const light = (color) => {
      const [r, g, b] = color.map((value) => {
        const part = value / 255
        return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
      })
      return 0.2126 * r + 0.7152 * g + 0.0722 * b
    }
    const behind = (node) => {
      const layers = []
      for (let at = node; at; at = at.parentElement) layers.push(rgba(getComputedStyle(at).backgroundColor))
      return layers.reverse().reduce((below, top) => over(top, below), [255, 255, 255, 255])
    }
    const found = []
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT)
    while (walker.nextNode()) {
      const node = walker.currentNode.parentElement
      if (!walker.currentNode.textContent.trim() || !node.checkVisibility({ visibilityProperty: true, opacityProperty: true })) continue
      if (node.closest('.sr-only, :disabled, noscript')) continue
      const ground = behind(node)
      const color = over(rgba(getComputedStyle(node).color), ground)
      const [a, b] = [light(color), light(ground)]
      const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)
      if (contrast < 4.5) found.push(`${walker.currentNode.textContent.trim().slice(0, 30)} .${node.className}: ${contrast.toFixed(2)}`)
    }
    return found
  })
