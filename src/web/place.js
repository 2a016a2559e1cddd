// Where the page is: in a room or in a conversation, as its URL says.

let current = null
const listeners = new Set()

/** The place of a URL's query. */
function read(search) {
  const query = new URLSearchParams(search)
  if (query.get('dm')) return { kind: 'dm', name: query.get('dm') }
  if (query.get('room')) return { kind: 'room', name: query.get('room') }
  return null
}

export const here = () => current

export const isHere = (place) => current?.kind === place.kind && current?.name === place.name

/** The URL of a place. */
export function linkTo({ kind, name }) {
  return `?${new URLSearchParams({ [kind]: name })}`
}

/** Calls `listener` with every place the page comes to. */
export function onPlace(listener) {
  listeners.add(listener)
}

/** Goes to a place. */
export function go(place, { replace = false } = {}) {
  if (isHere(place)) return
  history[replace ? 'replaceState' : 'pushState'](null, '', linkTo(place))
  arrive(place)
}

function arrive(place) {
  current = place
  for (const listener of listeners) listener(place)
}

/** Begins where the URL says, or else where `otherwise()` does. */
export async function start(otherwise) {
  addEventListener('popstate', async () => arrive(read(location.search) ?? (await otherwise())))
  const asked = read(location.search)
  if (asked) return arrive(asked)
  const place = await otherwise()
  // One may have gone somewhere meanwhile.
  if (!current) go(place, { replace: true })
}
