// How far things were read: an entry's ID by name, kept in this browser for all of its tabs.
import { compareIds } from './tailcast.js'
import { kept } from './dom.js'

/** Names that are remembered, so that this never fills a browser; those read longest ago are forgotten first. */
const NAMES_MAX = 200

const later = (a, b) => (compareIds(a, b) > 0 ? a : b)

/** What was kept, by whatever version of this page or whoever meddled with it. */
function read(key) {
  const found = kept.read(key)
  const isId = ([, id]) => typeof id === 'string' && /^\d+-\d+$/.test(id)
  return new Map(Object.entries(found && typeof found === 'object' ? found : {}).filter(isId))
}

export class Seen {
  #key
  #ids

  /** `onChange()` is called when another tab has read something. */
  constructor(key, onChange = () => {}) {
    this.#key = key
    this.#ids = read(key)
    addEventListener('storage', (event) => {
      if (event.key !== null && event.key !== `tailcast.${key}`) return
      this.#ids = read(key)
      onChange()
    })
  }

  /** Whether anything of it was ever seen. */
  has(name) {
    return this.#ids.has(name)
  }

  /** The last ID of it that was seen; null if there is none. */
  last(name) {
    return this.#ids.get(name) ?? null
  }

  /** Whether an entry is newer than all that was seen of it. */
  isNew(name, id) {
    const last = this.#ids.get(name)
    return !last || compareIds(id, last) > 0
  }

  /** It was seen up to this ID. */
  to(name, id) {
    if (!this.isNew(name, id)) return false
    this.#ids.set(name, id)
    this.#write()
    return true
  }

  /** Its IDs begin anew from this one. */
  restart(name, id) {
    this.#ids.set(name, id)
    this.#write(name)
  }

  /** With what other tabs have written meanwhile. */
  #write(anew = null) {
    for (const [name, id] of read(this.#key)) {
      const mine = this.#ids.get(name)
      if (name !== anew) this.#ids.set(name, mine ? later(mine, id) : id)
    }
    const newest = [...this.#ids].sort(([, a], [, b]) => compareIds(b, a)).slice(0, NAMES_MAX)
    this.#ids = new Map(newest)
    kept.write(this.#key, Object.fromEntries(newest))
  }
}
