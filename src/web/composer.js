// Where one writes: Enter sends, Shift+Enter begins a line; drafts stay with their place.
import { byId, h, icon } from './dom.js'
import { spell } from './text.js'

/** Longest message that a node takes by default (`--max-frame`), with room for what is around it. */
const BYTES_MAX = 60_000

const encoder = new TextEncoder()

export class Composer {
  #text = byId('composer-text')
  #send = byId('composer-send')
  #note = byId('composer-note')
  #drafts = new Map()
  #place = null
  #blocked = null
  #silenced = null
  #isTooLong = false
  #waitUntil = new Map()
  #timer
  #onSend

  /** `onSend(text)` takes what was written. */
  constructor(onSend) {
    this.#onSend = onSend
    this.#send.append(icon('send'))
    byId('composer').addEventListener('submit', (event) => {
      event.preventDefault()
      this.#submit()
    })
    this.#text.addEventListener('keydown', (event) => {
      // While a word is being composed, Enter is part of it.
      if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return
      event.preventDefault()
      this.#submit()
    })
    this.#text.addEventListener('input', () => {
      this.#isTooLong = false
      this.#show()
    })
  }

  /** Writes for another place now. */
  to(place, label) {
    if (this.#place) this.#drafts.set(this.#place, this.#text.value)
    this.#place = place
    this.#text.value = this.#drafts.get(place) ?? ''
    this.#text.placeholder = label
    byId('composer-label').textContent = label
    this.#silenced = null
    this.#isTooLong = false
    this.block(null)
  }

  /** Lets nothing be written, and says why; or again, with null. */
  block(reason) {
    this.#blocked = reason
    this.#show()
  }

  /** Says why what is written is refused, whatever else there is to wait for; or no longer, with null. */
  silence(reason) {
    this.#silenced = reason
    this.#show()
  }

  /** Slow mode: the next message may be sent in so long. */
  wait(ms) {
    this.#waitUntil.set(this.#place, Date.now() + ms)
    this.#show()
  }

  /** Slow mode has changed: nobody waits for longer than this. */
  waitAtMost(ms) {
    const until = this.#waitUntil.get(this.#place) ?? 0
    if (until > Date.now() + ms) this.#waitUntil.set(this.#place, Date.now() + ms)
    this.#show()
  }

  /** Whether it may be sent now. */
  #left() {
    return Math.max(0, Math.ceil(((this.#waitUntil.get(this.#place) ?? 0) - Date.now()) / 1000))
  }

  #submit() {
    const text = this.#text.value.trim()
    if (!text || this.#blocked || this.#left() > 0) return
    if (encoder.encode(text).length > BYTES_MAX) {
      this.#isTooLong = true
      return this.#show()
    }
    this.#text.value = ''
    this.#show()
    this.#onSend(text)
  }

  #show() {
    clearTimeout(this.#timer)
    const left = this.#left()
    this.#text.disabled = this.#blocked !== null
    this.#send.disabled = this.#blocked !== null || left > 0 || this.#text.value.trim() === ''
    const counts = left > 0 && !this.#silenced
    this.#send.replaceChildren(counts ? h('span', { class: 'countdown' }, String(left)) : icon('send'))
    this.#send.setAttribute('aria-label', counts ? `Send, in ${left} s` : 'Send')
    this.#note.classList.toggle('bad', this.#isTooLong)
    this.#note.setAttribute('role', this.#isTooLong ? 'alert' : 'status')
    this.#text.setAttribute('aria-invalid', String(this.#isTooLong))
    const tooLong = this.#isTooLong ? 'This is too long for one message. Send it in parts.' : null
    const note = tooLong ?? this.#blocked ?? this.#silenced ?? (left > 0 ? `Slow mode: you can send the next message in ${spell(left)}.` : '')
    // Each second would be read aloud otherwise.
    if (counts && this.#note.textContent.startsWith('Slow mode')) this.#note.setAttribute('aria-live', 'off')
    else this.#note.removeAttribute('aria-live')
    if (this.#note.textContent !== note) this.#note.textContent = note
    this.#text.style.height = 'auto'
    this.#text.style.height = `${Math.min(this.#text.scrollHeight, 180)}px`
    if (left > 0) this.#timer = setTimeout(() => this.#show(), 250)
  }
}
