/** The words of the page: numbers and findings as a person would say them. */

const thin = '\u202f'

/** A share as a percentage with two figures that mean something: 31 %, 8.3 %, 0.42 %, 0.04 %. */
export function percent(share: number, exact = false): string {
  const p = Math.abs(share) * 100
  const sign = share < 0 ? '\u2212' : ''
  const digits = exact ? 2 : p >= 9.95 ? 0 : p >= 0.995 ? 1 : 2
  return `${sign}${p.toFixed(digits)}${thin}%`
}

export const grouped = (n: number): string => String(n).replace(/\B(?=(\d{3})+$)/g, ',')

/** A token or word between quotation marks, with white space that can be seen. */
export function quoted(word: string): string {
  const seen = word.replace(/\n/g, '↵').replace(/\t/g, '⇥').replace(/^ +| +$/g, '')
  return `“${seen === '' ? '␣' : seen}”`
}

/** Who read: “Ysolde”, the whole answer, all words together. */
export function reader(kind: 'answer' | 'text' | 'alignment', query: number, words: string[]): string {
  if (query > 0) return quoted(words[query - 1] ?? '')
  if (kind === 'text') return 'all words together'
  return kind === 'alignment' ? 'the whole target' : 'the whole answer'
}

/** A change of a share, with its sign: +3.1 %. */
export const change = (share: number): string => (share > 0 ? '+' : '') + percent(share)

/** What the live region says after a selection. */
export function announced(who: string, most: { text: string; value: number }[], head: string | null, moved = false): string {
  const by = head === null ? '' : ` with ${head} alone`
  if (moved) return most.length === 0 ? 'Nothing moved that can be seen here.' : `What moved most: ${most.map((m) => `${m.text} ${change(m.value)}`).join(', ')}.`
  if (most.length === 0) return `${who}${by} read nothing that can be seen here.`
  return `${who}${by} read most: ${most.map((m) => `${m.text} ${percent(m.value)}`).join(', ')}.`
}

export const headName = (layer: number, head: number): string => `layer ${layer}, head ${head}`

/** One cell of the whole read. */
export function cellSentence(row: string, col: string, value: number | null, floor: number): string {
  const much = value === null ? `less than ${percent(floor)}` : percent(value, true)
  return `${quoted(row)} read ${quoted(col)}: ${much}`
}

export function plural(n: number, one: string, many = `${one}s`): string {
  return `${grouped(n)} ${n === 1 ? one : many}`
}
