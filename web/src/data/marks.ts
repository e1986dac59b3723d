import type { Mark } from '../contract'
import type { Passage } from './passage'

/** Neighbouring words under the same marks. `ends` are those whose range ends here: their label stands behind it. */
export interface Run {
  from: number
  to: number
  marks: number[]
  ends: number[]
}

/** The ranges of a mark that lie in a text of so many words. */
export function rangesOf(mark: Mark, words: number): [number, number][] {
  return mark.words.map(([from, to]): [number, number] => [Math.max(0, from), Math.min(words, to)]).filter(([from, to]) => from < to)
}

/** All marked words as runs, ascending. Marks may overlap: a run knows every mark that holds it. */
export function runsOf(marks: Mark[], words: number): Run[] {
  const cuts = new Map<number, { on: number[]; off: number[] }>()
  const at = (word: number) => cuts.get(word) ?? cuts.set(word, { on: [], off: [] }).get(word)!
  marks.forEach((mark, m) => {
    for (const [from, to] of rangesOf(mark, words)) {
      at(from).on.push(m)
      at(to).off.push(m)
    }
  })
  const runs: Run[] = []
  const held = new Map<number, number>()
  let begun = 0
  for (const word of [...cuts.keys()].sort((a, b) => a - b)) {
    const { on, off } = cuts.get(word)!
    if (held.size > 0) runs.push({ from: begun, to: word, marks: [...held.keys()].sort((a, b) => a - b), ends: [...new Set(off)] })
    for (const m of on) held.set(m, (held.get(m) ?? 0) + 1)
    for (const m of off) held.get(m) === 1 ? held.delete(m) : held.set(m, held.get(m)! - 1)
    begun = word
  }
  return runs
}

/** The marked words as they are written; a long mark is shortened. */
export function quoteOf(mark: Mark, text: Passage, most = 14): string {
  return rangesOf(mark, text.length)
    .map(([from, to]) => text.slice(from, Math.min(to, from + most)) + (to - from > most ? ' …' : ''))
    .join(' / ')
}

/** The names of the marks on a word, for tables and files. */
export function labelsOn(word: number, runs: Run[], marks: Mark[]): string {
  const run = runs.find((r) => r.from <= word && word < r.to)
  return run ? run.marks.map((m) => marks[m].label).join(', ') : ''
}
