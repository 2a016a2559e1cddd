// The theme: as the system has it, or as the switch says. Not a module: it runs before anything is drawn,
// so that nothing flashes.
;(() => {
  const KEY = 'tailcast.theme'
  const NEXT = { auto: 'light', light: 'dark', dark: 'auto' }
  const LABEL = { auto: 'system', light: 'light', dark: 'dark' }

  const read = () => {
    try {
      return localStorage.getItem(KEY) ?? 'auto'
    } catch {
      return 'auto'
    }
  }

  const show = (theme) => {
    if (theme === 'auto') delete document.documentElement.dataset.theme
    else document.documentElement.dataset.theme = theme
    const button = document.getElementById('theme')
    if (!button) return
    button.setAttribute('aria-label', `Theme: ${LABEL[theme]}`)
    button.title = `Theme: ${LABEL[theme]}`
    button.dataset.theme = theme
  }

  let theme = NEXT[read()] ? read() : 'auto'
  show(theme)
  document.addEventListener('DOMContentLoaded', () => {
    show(theme)
    document.getElementById('theme').addEventListener('click', () => {
      theme = NEXT[theme]
      try {
        localStorage.setItem(KEY, theme)
      } catch {
        // Then it holds until the page is left.
      }
      show(theme)
    })
  })
})()
