import type { Row } from './data/sparse'
import { classOf, stepOfValue, type Curve } from './scale'

const slice = 700

/**
 * Colours words that were rendered once: only those whose step changed are touched, the ones on the screen at once and
 * the others a slice at a time, so that a choice is answered within a frame however long the text is.
 */
export class Painter {
  private readonly shown: Int8Array
  private readonly wanted: Int8Array
  private lit: number[] = []
  private late: number[] = []
  private timer: ReturnType<typeof setTimeout> | undefined
  private best = -1

  /** `near` gives the words [from, to) on or about the screen. */
  constructor(
    private readonly words: HTMLElement[],
    private readonly near: () => [number, number],
  ) {
    this.shown = new Int8Array(words.length)
    this.wanted = new Int8Array(words.length)
  }

  paint(row: Row | null, max: number, curve: Curve, best: number, base = 0): void {
    const { shown, wanted, words } = this
    for (const word of this.lit) wanted[word] = 0
    const touched = this.lit.filter((word) => shown[word] !== 0)
    for (let n = 0; n < (row?.index.length ?? 0); n++) {
      const word = row!.index[n]
      const level = stepOfValue(row!.value[n], max, curve, base)
      if (classOf(level) === '') continue
      wanted[word] = level
      if (shown[word] === 0) touched.push(word)
    }
    this.lit = touched
    const [from, to] = this.near()
    this.late = []
    for (const word of touched) {
      if (word >= from && word < to) this.dress(word)
      else if (wanted[word] !== shown[word]) this.late.push(word)
    }
    if (best !== this.best) {
      words[this.best]?.classList.remove('best')
      words[best]?.classList.add('best')
      this.best = best
    }
    clearTimeout(this.timer)
    if (this.late.length > 0) this.timer = setTimeout(() => this.more(slice), 30)
  }

  /** Colour all that still waits: before the picture is saved or printed. */
  finish(): void {
    clearTimeout(this.timer)
    this.more(Infinity)
  }

  private more(count: number): void {
    for (const word of this.late.splice(0, count)) this.dress(word)
    if (this.late.length > 0) this.timer = setTimeout(() => this.more(slice), 0)
  }

  private dress(word: number): void {
    if (this.shown[word] === this.wanted[word]) return
    this.words[word].className = classOf(this.wanted[word]) + (word === this.best ? ' best' : '')
    this.shown[word] = this.wanted[word]
  }
}
