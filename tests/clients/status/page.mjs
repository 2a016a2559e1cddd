// The status page in a real Chromium, driven by lines: what it shows is a line of JSON on stdout whenever
// that has changed, each command one on stdin. It ends when stdin does.
//
//   node status/page.mjs URL
//
// Events: {"event":"shown", "state":"ready", "text":"Ready", "notice":"", "tiles":{id:text},
//          "charts":{id:{"values":[text],"words":"…"}}, "nodes":[text]}
//         {"event":"trouble","message":"…"}        the page logged an error, or broke its policy
//         {"event":"size","overflow":false}         the answer to a size
//         {"event":"polls","count":3}               requests for numbers since the last answer
//         {"event":"moment","when":["12 s ago"]}    the answer to a key
// Commands: {"size":[390,844],"scheme":"dark"}  {"shot":"file.png"}  {"hidden":true}  {"polls":true}
//           {"key":"ArrowLeft","on":"chart-entries"}
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { launch } from '../chromium.mjs'

const [url] = process.argv.slice(2)
const print = (event) => process.stdout.write(JSON.stringify(event) + '\n')

const browser = await launch()
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } })
let polls = 0
page.on('pageerror', (error) => print({ event: 'trouble', message: error.message }))
page.on('console', (message) => {
  // A node that does not answer is said by the page itself.
  const isNetwork = message.text().includes('net::ERR') || message.text().startsWith('Failed to load resource')
  if (message.type() === 'error' && !isNetwork) print({ event: 'trouble', message: message.text() })
})
page.on('request', (request) => {
  polls += request.url().endsWith('/status.json')
})
await page.goto(url)

function read() {
  const texts = (selector) => [...document.querySelectorAll(selector)].map((found) => found.innerText)
  const charts = [...document.querySelectorAll('.chart')].map((chart) => {
    const svg = chart.querySelector('svg')
    const words = document.getElementById(svg.getAttribute('aria-describedby')).textContent
    const values = [...chart.querySelectorAll('.legend b')].map((value) => value.textContent)
    return [chart.id, { values, words, lines: svg.querySelectorAll('path').length }]
  })
  const notice = document.getElementById('notice')
  return {
    state: document.getElementById('health').dataset.state,
    text: document.getElementById('health-text').textContent,
    notice: notice.hidden ? '' : notice.textContent,
    tiles: Object.fromEntries([...document.querySelectorAll('#tiles dd')].map((tile) => [tile.id, tile.innerText])),
    charts: Object.fromEntries(charts),
    nodes: texts('#nodes tbody tr'),
  }
}

const commands = {
  async size({ size: [width, height], scheme }) {
    await page.setViewportSize({ width, height })
    await page.emulateMedia({ colorScheme: scheme })
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth)
    print({ event: 'size', overflow })
  },
  async shot({ shot }) {
    await page.screenshot({ path: shot, fullPage: true })
  },
  async hidden({ hidden }) {
    // Headless pages are always seen, so that has to be pretended.
    await page.evaluate((hidden) => {
      Object.defineProperty(document, 'hidden', { value: hidden, configurable: true })
      document.dispatchEvent(new Event('visibilitychange'))
    }, hidden)
    print({ event: 'hidden' })
  },
  async polls() {
    print({ event: 'polls', count: polls })
    polls = 0
  },
  async key({ key, on }) {
    await page.locator(`#${on} svg`).focus()
    await page.keyboard.press(key)
    const when = await page.locator('.chart .when').allInnerTexts()
    print({ event: 'moment', when })
  },
}

const input = createInterface({ input: process.stdin })
let last = ''
let ended = false
input.on('close', () => {
  ended = true
})
const waiting = []
input.on('line', (line) => waiting.push(JSON.parse(line)))
while (!ended) {
  for (const command of waiting.splice(0)) {
    const [name] = Object.keys(command)
    await commands[name](command)
  }
  const shown = JSON.stringify({ event: 'shown', ...(await page.evaluate(read)) })
  if (shown !== last) print(JSON.parse(shown))
  last = shown
  await sleep(50)
}
await browser.close()
