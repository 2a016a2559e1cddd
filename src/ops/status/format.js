// Numbers and times as people read them.

const plain = new Intl.NumberFormat('en', { maximumFractionDigits: 0 })
const oneDigit = new Intl.NumberFormat('en', { maximumFractionDigits: 1 })
const short = new Intl.NumberFormat('en', { notation: 'compact', maximumFractionDigits: 1 })

export const NONE = '–'

/** A count in full up to a hundred thousand; beyond that as 1.2M. */
export const count = (n) => (n === null ? NONE : n < 100_000 ? plain.format(n) : short.format(n))

/** A rate per second; slow ones with a digit behind the point. */
export const rate = (n) => (n === null ? NONE : n < 10 ? oneDigit.format(n) : count(n))

/** Microseconds as the unit that suits. */
export function micros(us) {
  if (us === null) return NONE
  if (us < 9_950) return `${oneDigit.format(us / 1_000)} ms`
  if (us < 999_500) return `${plain.format(us / 1_000)} ms`
  return `${oneDigit.format(us / 1_000_000)} s`
}

/** Bytes in powers of 1,024. */
export function bytes(n) {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB']
  let unit = 0
  while (n >= 1_024 && unit < units.length - 1) {
    n /= 1_024
    unit += 1
  }
  return `${unit === 0 ? n : oneDigit.format(n)} ${units[unit]}`
}

/** How long, in its two largest units. */
export function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1_000))
  const parts = [
    [Math.floor(seconds / 86_400), 'd'],
    [Math.floor(seconds / 3_600) % 24, 'h'],
    [Math.floor(seconds / 60) % 60, 'min'],
    [seconds % 60, 's'],
  ]
  const first = parts.findIndex(([n]) => n > 0)
  if (first < 0) return '0\u00a0s'
  const two = parts.slice(first, first + 2).filter(([n]) => n > 0)
  return two.map(([n, unit]) => `${n}\u00a0${unit}`).join(' ')
}

/** "1 room", "2 rooms". */
export const some = (n, one) => `${count(n)} ${one}${n === 1 ? '' : 's'}`
