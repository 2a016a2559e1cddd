// One chart: lines over the last two minutes, drawn as SVG, with what they say in words.
//
// A point under the pointer, or chosen with the arrow keys, is shown in all charts at once: they share
// one moment.
import { NONE } from './format.js'

const SPAN_MS = 120_000
const NS = 'http://www.w3.org/2000/svg'
const PAD = { top: 8, right: 1, bottom: 18, left: 0 }

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  made.append(...children)
  return made
}

function shape(name, attributes, text) {
  const made = document.createElementNS(NS, name)
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value)
  if (text !== undefined) made.textContent = text
  return made
}

/** The least of 1, 2, 4, 6, 8 times a power of ten that is not below: halves of it are round, too. */
export function ceiling(most, least) {
  const wanted = Math.max(most, least)
  const power = 10 ** Math.floor(Math.log10(wanted))
  return [1, 2, 4, 6, 8, 10].map((step) => step * power).find((top) => top >= wanted * 0.999_999)
}

/**
 * A chart of `lines`: {label, kind: first|second|bad, of: sample index → number or null}, with `format` for
 * their numbers; `least` is the smallest top of its scale, so that small numbers don't look like a storm.
 */
export class Chart {
  constructor({ id, title, lines, format, least = 1, area = true }, moment) {
    Object.assign(this, { id, title, lines, format, least, area, moment })
    this.samples = null
    this.when = element('span', { class: 'when' })
    this.legend = element('ul', { class: 'legend' })
    this.values = lines.map((line) => {
      const value = element('b', { id: `${id}-${line.kind}` }, NONE)
      const label = lines.length > 1 || line.label ? `${line.label} ` : ''
      this.legend.append(element('li', { class: line.kind }, label, value))
      return value
    })
    this.svg = shape('svg', { role: 'img', tabindex: 0, 'aria-labelledby': `${id}-title`, 'aria-describedby': `${id}-words` })
    this.words = element('p', { id: `${id}-words`, class: 'unseen' })
    this.root = element('article', { class: 'chart', id }, this.when, element('h3', { id: `${id}-title` }, title), this.legend, this.svg, this.words)
    this.listen()
  }

  listen() {
    const choose = (event) => {
      if (!this.samples?.length) return
      const box = this.svg.getBoundingClientRect()
      const at = this.now - (1 - (event.clientX - box.left) / box.width) * SPAN_MS
      const near = this.samples.at.reduce((best, t, i) => (Math.abs(t - at) < Math.abs(this.samples.at[best] - at) ? i : best), 0)
      this.moment.choose(this.samples.at[near])
    }
    this.svg.addEventListener('pointermove', choose)
    this.svg.addEventListener('pointerdown', choose)
    this.svg.addEventListener('pointerleave', () => this.moment.choose(null))
    this.svg.addEventListener('blur', () => this.moment.choose(null))
    this.svg.addEventListener('keydown', (event) => this.onKey(event))
    new ResizeObserver(() => this.draw()).observe(this.svg)
  }

  onKey(event) {
    if (!this.samples?.length) return
    const { at } = this.samples
    const chosen = at.indexOf(this.moment.at)
    const from = chosen < 0 ? at.length : chosen
    const to = { ArrowLeft: from - 1, ArrowRight: from + 1, Home: 0, End: at.length - 1 }[event.key]
    if (event.key === 'Escape') this.moment.choose(null)
    if (to === undefined) return
    event.preventDefault()
    this.moment.choose(at[Math.min(Math.max(to, 0), at.length - 1)] ?? null)
  }

  /** Takes in samples: `length`, `at` (times) and what the lines read; `now` is the right edge. */
  show(samples, now) {
    Object.assign(this, { samples, now })
    this.numbers = this.lines.map((line) => samples.at.map((_, index) => line.of(samples, index)))
    this.draw()
    this.tell()
  }

  /** The newest number of a line, if it's of the last ten seconds: latencies are there only with traffic. */
  latest(line) {
    const recent = this.numbers[line].slice(-10)
    return recent.findLast((number) => number !== null) ?? null
  }

  tell() {
    const words = this.lines.map((line, index) => {
      const known = this.numbers[index].filter((number) => number !== null)
      if (known.length === 0) return `${line.label || this.title}: nothing to show yet.`
      const [least, most] = [Math.min(...known), Math.max(...known)]
      const now = this.format(this.latest(index))
      return `${line.label || this.title}: now ${now}; in the last two minutes from ${this.format(least)} to ${this.format(most)}.`
    })
    this.words.textContent = words.join(' ')
  }

  draw() {
    if (!this.samples) return
    const { width, height } = this.svg.getBoundingClientRect()
    if (width === 0) return
    const [bottom, right] = [height - PAD.bottom, width - PAD.right]
    const top = ceiling(Math.max(...this.numbers.flat(), 0), this.least)
    const x = (at) => right - ((this.now - at) / SPAN_MS) * (right - PAD.left)
    const y = (number) => bottom - (number / top) * (bottom - PAD.top)
    const drawn = []
    for (const part of [0, 0.5, 1]) {
      const level = Math.round(y(top * part)) + 0.5
      drawn.push(shape('line', { class: 'grid', x1: PAD.left, x2: right, y1: level, y2: level }))
      if (part > 0) drawn.push(shape('text', { x: PAD.left, y: level + 12 }, this.format(top * part)))
    }
    drawn.push(shape('text', { x: PAD.left, y: height - 4 }, '2 min ago'))
    drawn.push(shape('text', { x: right, y: height - 4, 'text-anchor': 'end' }, 'now'))
    // The first line matters most: it lies on top.
    const lines = this.lines.map((line, index) => this.line(line, this.numbers[index], x, y, bottom, index === 0))
    drawn.push(...lines.reverse().flat())
    drawn.push(...this.cursor(x, y, bottom))
    this.svg.replaceChildren(...drawn)
  }

  /** A line, in pieces where it's interrupted; a number alone is a point. */
  line({ kind }, numbers, x, y, bottom, isFirst) {
    const pieces = []
    let piece = []
    const { at } = this.samples
    numbers.forEach((number, index) => {
      const isApart = piece.length > 0 && at[index] - piece.at(-1)[2] > 5_000
      if (number === null || isApart) {
        if (piece.length > 0) pieces.push(piece)
        piece = []
      }
      if (number !== null && this.now - at[index] <= SPAN_MS) piece.push([x(at[index]), y(number), at[index]])
    })
    if (piece.length > 0) pieces.push(piece)
    return pieces.flatMap((points) => {
      if (points.length === 1) return [shape('circle', { class: kind, cx: points[0][0], cy: points[0][1], r: 2 })]
      const d = points.map(([px, py], i) => `${i === 0 ? 'M' : 'L'}${px.toFixed(1)} ${py.toFixed(1)}`).join('')
      const made = [shape('path', { class: kind, d })]
      if (this.area && isFirst) {
        made.unshift(shape('path', { class: `area ${kind}`, d: `${d}V${bottom}H${points[0][0].toFixed(1)}Z` }))
      }
      return made
    })
  }

  /** The chosen moment, and the legend's numbers: of that moment, or of now. */
  cursor(x, y, bottom) {
    const chosen = this.moment.at === null ? -1 : this.samples.at.indexOf(this.moment.at)
    this.values.forEach((value, index) => {
      const number = chosen < 0 ? this.latest(index) : this.numbers[index][chosen]
      value.textContent = this.format(number)
    })
    if (chosen < 0) {
      this.when.textContent = ''
      return []
    }
    const at = this.samples.at[chosen]
    this.when.textContent = `${Math.round((this.now - at) / 1_000)} s ago`
    const line = shape('line', { class: 'cursor', x1: x(at), x2: x(at), y1: PAD.top, y2: bottom })
    const points = this.lines.flatMap(({ kind }, index) => {
      const number = this.numbers[index][chosen]
      return number === null ? [] : [shape('circle', { class: kind, cx: x(at), cy: y(number), r: 3.5 })]
    })
    return [line, ...points]
  }
}
