// Reactions: a room's applause. They are counted, fly up, and are stored nowhere.
import { byId, h, hasIcon, icon } from './dom.js'

const OFFERED = [
  ['heart', 'Heart'],
  ['like', 'Thumb up'],
  ['party', 'Party'],
  ['laugh', 'Laugh'],
  ['wow', 'Wow'],
]

/** At a time, so that a crowd's applause is no burden. */
const FLOATS_MAX = 24

const still = matchMedia('(prefers-reduced-motion: reduce)')

const sign = (reaction) => (hasIcon(reaction) ? icon(reaction) : document.createTextNode(reaction))

export class Reactions {
  #buttons = new Map()
  #onReact

  constructor(onReact) {
    this.#onReact = onReact
  }

  /** Begins with nothing counted. */
  reset(isShown) {
    byId('reactions').hidden = !isShown
    byId('reactions').replaceChildren()
    this.#buttons.clear()
    for (const [reaction, label] of OFFERED) this.#button(reaction, label)
  }

  show({ counts, totals }) {
    for (const [reaction, total] of totals) {
      const { count, button, label } = this.#button(reaction, reaction)
      count.textContent = total > 999 ? `${Math.floor(total / 1000)}k` : String(total)
      button.setAttribute('aria-label', `${label}: ${total}`)
    }
    for (const [reaction, count] of Object.entries(counts)) {
      for (let shown = 0; shown < Math.min(count, 6); shown++) setTimeout(() => this.#fly(reaction), shown * 90)
    }
  }

  #button(reaction, label) {
    const known = this.#buttons.get(reaction)
    if (known) return known
    const count = h('span', { class: 'count' })
    const button = h('button', { type: 'button', class: `reaction ${hasIcon(reaction) ? reaction : ''}`, 'aria-label': label, title: label, onclick: () => this.#onReact(reaction) }, sign(reaction), count)
    byId('reactions').append(button)
    const made = { button, count, label }
    this.#buttons.set(reaction, made)
    return made
  }

  #fly(reaction) {
    const floats = byId('floats')
    if (still.matches || document.hidden || floats.childElementCount >= FLOATS_MAX) return
    const float = h('span', { class: `float ${hasIcon(reaction) ? reaction : ''}` }, sign(reaction))
    float.style.setProperty('--drift', `${Math.round(Math.random() * 60 - 30)}px`)
    float.style.setProperty('--from', `${Math.round(Math.random() * 70)}px`)
    float.addEventListener('animationend', () => float.remove())
    floats.append(float)
  }
}
