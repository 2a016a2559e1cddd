// Who one is: asked of the server, or at the door.
import { byId, kept } from './dom.js'
import { say } from './words.js'

/** The folder that the page is in: where the server is. */
export const base = new URL('./', location.href).href

/** A request, with JSON both ways: `{status, json}`. */
export async function ask(method, path, body) {
  const response = await fetch(new URL(path, base), {
    method,
    headers: body === undefined ? {} : { 'Content-Type': 'application/json' },
    body: body === undefined ? undefined : JSON.stringify(body),
  })
  const json = await response.json().catch(() => null)
  return { status: response.status, json }
}

/** What the server says of us; a server without `/me` believes anybody. */
async function me() {
  const { status, json } = await ask('GET', 'me')
  if (status === 401) return { user: null, auth: 'jwt', accounts: json?.accounts ?? false }
  return status === 200 ? { ...json, tells: true } : { user: null, auth: 'none', accounts: false }
}

/** Comes back with who we are, once that is settled: `{user, name, auth, accounts}`; `tells` if `/me` is there. */
export async function enter() {
  const known = await me().catch(() => ({ user: null, auth: 'none', accounts: false }))
  if (known.auth === 'none') {
    const user = kept.read('name') ?? (await askName())
    return { ...known, user }
  }
  if (known.user) return known
  if (known.accounts) {
    const isIn = await askPassword()
    const now = await me()
    // A cookie that no longer counts would keep the socket out.
    if (!isIn) await ask('POST', 'logout')
    return now
  }
  // Perhaps strangers may come in; the socket will say.
  return known
}

/** Forgets who we are, and begins again. */
export async function forget(who) {
  if (who.accounts) await ask('POST', 'logout').catch(() => {})
  kept.write('name', null)
  location.reload()
}

function open(title, hint, go) {
  byId('door').hidden = false
  byId('door-title').textContent = title
  byId('door-hint').textContent = hint
  byId('door-go').textContent = go
  byId('door-user').focus()
}

/** Comes back with true once there is an answer that will do, with false if one would only look. */
function onSubmit(answer) {
  const form = byId('door-form')
  return new Promise((resolve) => {
    byId('door-look').addEventListener('click', () => {
      byId('door').hidden = true
      resolve(false)
    })
    form.addEventListener('submit', async (event) => {
      event.preventDefault()
      byId('door-error').textContent = ''
      byId('door-go').disabled = true
      const error = await answer().catch(() => 'The server can’t be reached. Try again.')
      byId('door-go').disabled = false
      if (error) {
        byId('door-error').textContent = error
        byId('door-user').focus()
        return
      }
      byId('door').hidden = true
      resolve(true)
    })
  })
}

/** Where anybody is believed: a name. */
async function askName() {
  open('Join the chat', 'Pick a name that others will see.', 'Join')
  let name
  await onSubmit(async () => {
    name = byId('door-user').value.trim()
    if (!name) return 'Enter a name.'
    if (/\p{Cc}/u.test(name)) return 'A name can’t have control characters.'
    if (new TextEncoder().encode(name).length > 128) return 'This name is too long.'
    kept.write('name', name)
    return null
  })
  return name
}

/** Where there are accounts: log in, or register, or only look. */
async function askPassword() {
  let isNew = false
  const show = () => {
    open(isNew ? 'Create account' : 'Log in', isNew ? 'Pick a name and a password.' : 'Welcome back.', isNew ? 'Create account' : 'Log in')
    byId('door-login').setAttribute('aria-pressed', String(!isNew))
    byId('door-register').setAttribute('aria-pressed', String(isNew))
    byId('door-shown-field').hidden = !isNew
    byId('door-password').autocomplete = isNew ? 'new-password' : 'current-password'
    byId('door-error').textContent = ''
  }
  byId('door-tabs').hidden = false
  byId('door-password-field').hidden = false
  byId('door-password').required = true
  byId('door-look').hidden = false
  for (const [id, choice] of [['door-login', false], ['door-register', true]]) {
    byId(id).addEventListener('click', () => {
      isNew = choice
      show()
    })
  }
  show()
  return onSubmit(async () => {
    const body = { user: byId('door-user').value.trim(), password: byId('door-password').value }
    const shown = byId('door-shown').value.trim()
    if (isNew && shown) body.name = shown
    const { status, json } = await ask('POST', isNew ? 'register' : 'login', body)
    return status < 300 ? null : (json?.error ? say(json.error) : `The server answered with an error (${status}).`)
  })
}
