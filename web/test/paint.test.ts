import { describe, expect, it, vi } from 'vitest'
import { Painter } from '../src/paint'

/** As much of an element as the painter touches. */
function word() {
  const element = {
    className: '',
    classList: {
      add: (name: string) => (element.className = `${element.className} ${name}`),
      remove: (name: string) => (element.className = element.className.replace(new RegExp(` ?\\b${name}\\b`), '')),
    },
  }
  return element as unknown as HTMLElement
}
const row = (cells: Record<number, number>) => ({ index: Uint32Array.from(Object.keys(cells).map(Number)), value: Float64Array.from(Object.values(cells)) })
const worn = (words: HTMLElement[]) => words.map((w) => w.className.trim())

describe('the painter', () => {
  it('colours, recolours and clears', () => {
    const words = [word(), word(), word(), word()]
    const painter = new Painter(words, () => [0, 4])
    painter.paint(row({ 0: 1, 2: 0.5 }), 1, 'linear', 0)
    expect(worn(words)).toEqual(['h32 best', '', 'h16', ''])
    painter.paint(row({ 2: 1, 3: -0.5 }), 1, 'linear', 2)
    expect(worn(words)).toEqual(['', '', 'h32 best', 'c16'])
    painter.paint(null, 0, 'linear', -1)
    expect(worn(words)).toEqual(['', '', '', ''])
  })
  it('colours what is on the screen at once and the rest soon, however often the choice changes', () => {
    vi.useFakeTimers()
    const words = [word(), word(), word(), word()]
    const painter = new Painter(words, () => [0, 2])
    painter.paint(row({ 0: 1, 3: 1 }), 1, 'linear', -1)
    expect(worn(words)).toEqual(['h32', '', '', ''])
    painter.paint(row({ 1: 1, 2: 0.5 }), 1, 'linear', -1)
    expect(worn(words)).toEqual(['', 'h32', '', ''])
    vi.runAllTimers()
    expect(worn(words)).toEqual(['', 'h32', 'h16', ''])
    painter.paint(row({ 3: 1 }), 1, 'linear', 3)
    painter.finish()
    expect(worn(words)).toEqual(['', '', '', 'h32 best'])
    vi.useRealTimers()
  })
})
