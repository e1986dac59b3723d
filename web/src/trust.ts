import type { Method, Score, Trust } from './contract'

/** The measurement that stands for a view: its words are taken out of the reads, and the answer should suffer. */
export const standsFor = (m: Method, view: string): boolean => m.name === view && m.removal === 'keys' && m.measure === 'comprehensiveness'

/** What is known about one view: its own method's score; the page's score is that of the first view. */
export function trustOf(trust: Trust | null | undefined, view: string, first: boolean): Score | null {
  if (!trust || first) return trust ?? null
  return trust.methods?.find((m) => standsFor(m, view)) ?? null
}

/** The map must not be taken for evidence: its verdict says so, or chance lies within (or above) its interval. */
export function doubtful({ score, low, verdict }: Score): boolean {
  if (/decoration|misleading/i.test(verdict ?? '')) return true
  return !/^better/i.test(verdict ?? '') && score !== null && (low ?? score) <= 0
}

/** Where numbers stand on the drawn line, in percent of its width: 0 to 100, longer where an interval leaves it. */
export function axisOf(scores: Score[]) {
  const known = scores.flatMap(({ score, low, high }) => [score, low, high]).filter((x) => x !== null)
  const from = Math.max(-50, Math.min(0, ...known))
  const to = Math.min(150, Math.max(100, ...known))
  return (x: number) => (100 * (Math.min(to, Math.max(from, x)) - from)) / (to - from)
}

export const rounded = (x: number) => String(Math.round(x)).replace('-', '\u2212')

/** 71 of 100, between 60 and 80 */
export function scoreSentence({ score, low, high }: Score): string {
  if (score === null) return 'not measured'
  return `${rounded(score)} of 100${low === null || high === null ? '' : `, between ${rounded(low)} and ${rounded(high)}`}`
}
