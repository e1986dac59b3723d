import type { PackedWords } from '../contract'

/** The last position in an ascending list whose entry is at most `word`. */
export function partOf(starts: number[], word: number): number {
  let low = 0
  let high = starts.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (starts[middle] <= word) low = middle + 1
    else high = middle
  }
  return Math.max(0, low - 1)
}

/** Words with what stands between them, and where sentences and paragraphs begin. */
export class Passage {
  readonly words: string[]
  readonly glue: string[]
  readonly sentences: number[]
  readonly paragraphs: number[]
  readonly lang: string | undefined

  constructor(packed: PackedWords) {
    this.words = packed.words
    this.glue = packed.words.map((_, i) => packed.glue?.[i] ?? ' ')
    this.sentences = packed.sentences?.length ? packed.sentences : [0]
    this.paragraphs = packed.paragraphs?.length ? packed.paragraphs : [0]
    this.lang = packed.lang
  }

  get length(): number {
    return this.words.length
  }

  sentenceOf(word: number): number {
    return partOf(this.sentences, word)
  }

  paragraphOf(word: number): number {
    return partOf(this.paragraphs, word)
  }

  /** The words [from, to) of a sentence. */
  sentence(s: number): [number, number] {
    return [this.sentences[s], this.sentences[s + 1] ?? this.length]
  }

  paragraph(p: number): [number, number] {
    return [this.paragraphs[p], this.paragraphs[p + 1] ?? this.length]
  }

  /** Words [from, to) as running text on one line. */
  slice(from: number, to: number): string {
    let out = ''
    for (let i = from; i < to; i++) out += this.words[i] + (i + 1 < to ? this.glue[i] : '')
    return out.replace(/\s+/g, ' ').trim()
  }

  /**
   * What to show after a word. A lone line feed inside a paragraph is kept after a short line (a list, a poem) and
   * becomes a space after a long one (prose that was wrapped by hand).
   */
  shownGlue(): string[] {
    const shown = this.glue.slice()
    for (let p = 0; p < this.paragraphs.length; p++) {
      const [from, to] = this.paragraph(p)
      let line = 0
      for (let i = from; i < to; i++) {
        line += this.words[i].length
        if (i + 1 === to) shown[i] = ''
        else if (this.glue[i].includes('\n')) {
          if (line >= 45 && !/\n\s*\n/.test(this.glue[i])) shown[i] = ' '
          line = 0
        } else line += this.glue[i].length
      }
    }
    return shown
  }
}
