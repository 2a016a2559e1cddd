// What happened while the page was away: sockets are told of deletions as they happen, and of none before.
import { compareIds } from './tailcast.js'

/** Entries asked for at a time (a server gives at most 1,000), and how often, for what a page may show. */
const LIMIT = 500
const PAGES = 10

/** Tries, and the pause between them, in ms: a node that has just come back may not answer at once. */
const TRIES = 5
const PAUSE = 2_000

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** The IDs that a room has, from the newest, or from before `before`, back to `oldest`; all after `since` are among them. */
async function idsOf(room, { oldest, before }) {
  const ids = new Set()
  let since = before
  let first = null
  for (let page = 0; page < PAGES; page++) {
    const { entries, next } = await room.history({ before: since, limit: LIMIT })
    for (const { id } of entries) ids.add(id)
    first = entries[0]?.id ?? first
    if (next === null) return { ids, first, since: '0-0' }
    since = next
    if (compareIds(since, oldest) < 0) break
  }
  return { ids, first, since }
}

/** Takes out of a room's timeline what the room no longer has. (Nobody moderates conversations.) */
export async function forgetDeleted(room, timeline) {
  // What comes while it is asked for may not be in the answer.
  const shown = timeline.storedIds
  const stretches = timeline.stretches
  for (let tries = 1; room.state === 'joined' && stretches.length > 0; tries++) {
    try {
      const known = await Promise.all(stretches.map((stretch) => idsOf(room, stretch)))
      return stretches.forEach((stretch, at) => timeline.keepOnly(stretch, shown, known[at]))
    } catch {
      if (tries === TRIES) return
      await sleep(PAUSE)
    }
  }
}
