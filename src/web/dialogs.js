// Menus and questions: made on the spot, closed with Esc, and the focus goes back where it was.
import { byId, h } from './dom.js'

let openMenu = null

/** Opens a menu at a button. `items` are `{label, run, danger}`, or null for a line between. */
export function menu(anchor, label, items) {
  closeMenu()
  const list = h('div', { class: 'menu', role: 'menu', 'aria-label': label, popover: 'manual' })
  for (const item of items) {
    if (item === null) {
      list.append(h('hr'))
      continue
    }
    const run = () => {
      closeMenu()
      item.run()
    }
    list.append(h('button', { type: 'button', role: 'menuitem', tabIndex: -1, class: item.danger ? 'danger' : '', onclick: run }, item.label))
  }
  // In the landmark that it belongs to, for whoever listens; above all else, for whoever looks.
  const home = anchor.closest('main, aside, nav') ?? document.body
  home.append(list)
  list.showPopover()
  const at = anchor.getBoundingClientRect()
  const { offsetWidth: width, offsetHeight: height } = list
  const top = at.bottom + 4 + height > innerHeight ? Math.max(8, at.top - 4 - height) : at.bottom + 4
  list.style.top = `${top}px`
  list.style.left = `${Math.max(8, Math.min(at.right - width, innerWidth - width - 8))}px`
  anchor.setAttribute('aria-expanded', 'true')
  list.addEventListener('keydown', onMenuKey)
  openMenu = { list, anchor }
  buttons(list)[0]?.focus()
  setTimeout(() => document.addEventListener('pointerdown', onOutside))
}

const buttons = (list) => [...list.querySelectorAll('button')]

function onMenuKey(event) {
  const all = buttons(openMenu.list)
  const at = all.indexOf(document.activeElement)
  const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key]
  if (to !== undefined) {
    event.preventDefault()
    all.at(to % all.length).focus()
  } else if (event.key === 'Escape' || event.key === 'Tab') {
    event.preventDefault()
    event.stopPropagation()
    closeMenu()
  }
}

function onOutside(event) {
  if (!openMenu?.list.contains(event.target)) closeMenu()
}

export function closeMenu() {
  if (!openMenu) return
  const { list, anchor } = openMenu
  openMenu = null
  document.removeEventListener('pointerdown', onOutside)
  list.remove()
  anchor.setAttribute('aria-expanded', 'false')
  const message = anchor.closest('.message')
  ;(message ?? anchor).focus()
}

/**
 * Asks for a few things: `fields` are `{name, label, value, type, options, max, required}`. Calls
 * `run(values)`, which says what went wrong, if anything did; the dialog stays open then.
 */
export function ask({ title, hint, fields = [], go, danger, run }) {
  const dialog = byId('ask')
  const form = byId('ask-form')
  const error = h('p', { class: 'form-error', role: 'alert' })
  const inputs = fields.map((field) => {
    const input = inputOf(field)
    return [field, input, h('label', { class: 'field' }, h('span', {}, field.label), input)]
  })
  const submit = h('button', { class: danger ? 'primary danger' : 'primary' }, go)
  form.replaceChildren(
    h('h2', { id: 'ask-title' }, title),
    ...(hint ? [h('p', { class: 'hint' }, hint)] : []),
    ...inputs.map(([, , label]) => label),
    error,
    h('div', { class: 'actions' }, h('button', { type: 'button', class: 'plain', onclick: () => dialog.close() }, 'Cancel'), submit),
  )
  form.onsubmit = async (event) => {
    event.preventDefault()
    submit.disabled = true
    const wrong = await run(Object.fromEntries(inputs.map(([field, input]) => [field.name, input.value.trim()])))
    submit.disabled = false
    if (wrong) error.textContent = wrong
    else dialog.close()
  }
  dialog.showModal()
  ;(inputs[0]?.[1] ?? submit).focus()
}

function inputOf({ name, value = '', type = 'text', options, max, required = false, placeholder = '' }) {
  if (options) {
    return h('select', { name }, ...options.map(([key, text]) => h('option', { value: key, selected: key === value }, text)))
  }
  if (type === 'long') return h('textarea', { name, value, rows: 3, maxLength: max ?? 2000, required, placeholder })
  return h('input', { name, value, type, maxLength: max ?? 200, required, placeholder, autocomplete: 'off' })
}
