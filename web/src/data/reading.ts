import type { Passage } from './passage'
import type { Row } from './sparse'

/** What one query read, with the sums that the page shows. */
export interface Reading extends Row {
  max: number
  mass: number
  /** The weight of the median word of the text: colour begins above it, so that an even read does not paint everything. */
  median: number
}

export function readingOf(row: Row, words: number): Reading {
  let max = 0
  let mass = 0
  for (const v of row.value) {
    max = Math.max(max, Math.abs(v))
    mass += Math.abs(v)
  }
  const hidden = words - row.index.length
  const median = hidden >= words / 2 ? 0 : row.value.map(Math.abs).sort()[Math.floor(words / 2) - hidden]
  return { ...row, max, mass, median }
}

export interface Most {
  word: number
  value: number
}

/** The `count` strongest words, strongest first; of equal ones the earlier. */
export function strongest(row: Row, count: number): Most[] {
  const best: Most[] = []
  for (let n = 0; n < row.index.length; n++) {
    const size = Math.abs(row.value[n])
    if (size === 0 || (best.length === count && size <= Math.abs(best[count - 1].value))) continue
    let at = best.length
    while (at > 0 && Math.abs(best[at - 1].value) < size) at--
    best.splice(at, 0, { word: row.index[n], value: row.value[n] })
    if (best.length > count) best.pop()
  }
  return best
}

/** How much of the listed mass lies in each part that begins at `starts`; heat and cool apart. */
export function massPerPart(row: Row, starts: number[]): { heat: Float64Array; cool: Float64Array } {
  const heat = new Float64Array(starts.length)
  const cool = new Float64Array(starts.length)
  let part = 0
  for (let n = 0; n < row.index.length; n++) {
    while (part + 1 < starts.length && starts[part + 1] <= row.index[n]) part++
    if (row.value[n] > 0) heat[part] += row.value[n]
    else cool[part] -= row.value[n]
  }
  return { heat, cool }
}

export interface Quoted {
  sentence: number
  words: [number, number]
  share: number
}

/** The sentence that holds most of what was read, or null where nothing was. */
export function mostRead(row: Row, passage: Passage): Quoted | null {
  const { heat } = massPerPart(row, passage.sentences)
  let best = 0
  let all = 0
  for (let s = 0; s < heat.length; s++) {
    all += heat[s]
    if (heat[s] > heat[best]) best = s
  }
  return all > 0 ? { sentence: best, words: passage.sentence(best), share: heat[best] / all } : null
}
