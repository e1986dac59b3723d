import { beforeEach, describe, expect, it, vi } from 'vitest'
import type { Mark, Method, PageData, Trust } from '../src/contract'
import { Book } from '../src/data/book'
import { labelsOn, quoteOf, rangesOf, runsOf } from '../src/data/marks'
import { Passage } from '../src/data/passage'
import { asJson } from '../src/export'
import { readPlace, start, writePlace } from '../src/hash'
import { Look } from '../src/look.svelte'
import { announced, change } from '../src/sentences'
import { axisOf, doubtful, scoreSentence, trustOf } from '../src/trust'
import { packSparse } from './helpers'

const mark = (words: [number, number][], label: string, action: Mark['action'] = 'boost'): Mark => ({ words, label, action })
const plain = (text: string) => text.replaceAll('\u202f', ' ')

describe('marks', () => {
  const text = new Passage({ words: ['one', 'two,', 'three', 'four', 'five'], glue: [' ', ' ', ' ', ' ', ''] })
  it('become runs of words that are marked alike', () => {
    const runs = runsOf([mark([[0, 3]], 'a'), mark([[2, 4]], 'b')], 5)
    expect(runs).toEqual([
      { from: 0, to: 2, marks: [0], ends: [] },
      { from: 2, to: 3, marks: [0, 1], ends: [0] },
      { from: 3, to: 4, marks: [1], ends: [1] },
    ])
  })
  it('may have several ranges, also touching and overlapping ones', () => {
    expect(runsOf([mark([[3, 5], [0, 1]], 'a')], 5).map((r) => [r.from, r.to])).toEqual([[0, 1], [3, 5]])
    expect(runsOf([mark([[0, 3], [1, 4]], 'a')], 5).every((r) => r.marks.length === 1)).toBe(true)
    expect(runsOf([mark([[0, 2]], 'a'), mark([[2, 4]], 'b')], 5).map((r) => r.marks)).toEqual([[0], [1]])
  })
  it('are cut to the text, and nonsense is left out', () => {
    expect(rangesOf(mark([[-4, 2], [3, 99], [4, 4], [3, 1], [NaN, 2]], 'a'), 5)).toEqual([[0, 2], [3, 5]])
    expect(runsOf([mark([[7, 9]], 'a')], 5)).toEqual([])
    expect(runsOf([], 5)).toEqual([])
  })
  it('are quoted, the long ones shortened, and named on each word', () => {
    const two = mark([[0, 2], [3, 5]], 'share 30 %', 'share')
    expect(quoteOf(two, text)).toBe('one two, / four five')
    expect(quoteOf(mark([[0, 5]], 'x'), text, 2)).toBe('one two, …')
    const marks = [two, mark([[3, 4]], 'mute', 'mute')]
    expect([0, 2, 3, 4].map((w) => labelsOn(w, runsOf(marks, 5), marks))).toEqual(['share 30 %', '', 'share 30 %, mute', 'share 30 %'])
  })
})

const score = (n: number | null, half = 10, verdict: string | null = null) => ({ score: n, low: n === null ? null : n - half, high: n === null ? null : n + half, verdict })
const method = (name: string, n: number, removal = 'keys', measure = 'comprehensiveness'): Method => ({ name, label: name, removal, measure, ...score(n) })

describe('the trust score', () => {
  const trust: Trust = { ...score(71), note: '', methods: [method('raw', 12, 'input'), method('raw', 9, 'keys', 'sufficiency'), method('raw', 3), method('lift', 70)] }
  it('is that of the view: keys removed, comprehensiveness', () => {
    expect(trustOf(trust, 'lift', true)!.score).toBe(71)
    expect(trustOf(trust, 'raw', false)!.score).toBe(3)
    expect(trustOf(trust, 'aside', false)).toBeNull()
    expect(trustOf({ ...trust, methods: null }, 'raw', false)).toBeNull()
    expect(trustOf(null, 'lift', true)).toBeNull()
  })
  it('warns where the verdict or the interval says so', () => {
    expect(doubtful(score(3, 10, 'this map is decoration'))).toBe(true)
    expect(doubtful(score(-30, 5, 'misleading'))).toBe(true)
    expect(doubtful(score(3, 10))).toBe(true)
    expect(doubtful(score(40, 10))).toBe(false)
    expect(doubtful(score(40, 10, 'better than chance'))).toBe(false)
    expect(doubtful(score(null))).toBe(false)
    expect(doubtful({ score: 0, low: null, high: null })).toBe(true)
  })
  it('is drawn from 0 to 100, and farther where an interval goes farther', () => {
    expect([0, 71, 100].map(axisOf([score(71)]))).toEqual([0, 71, 100])
    const wide = axisOf([score(-10, 15)])
    expect(wide(-25)).toBe(0)
    expect(wide(0)).toBe(20)
    expect(wide(100)).toBe(100)
    expect(axisOf([score(-900)])(-900)).toBe(0)
    expect(axisOf([score(71), score(-10, 15)])(0)).toBe(20)
    expect(axisOf([score(null)])(50)).toBe(50)
  })
  it('is said in words', () => {
    expect(scoreSentence(score(71))).toBe('71 of 100, between 61 and 81')
    expect(scoreSentence(score(-3.4, 5))).toBe('−3 of 100, between −8 and 2')
    expect(scoreSentence({ score: 5, low: null, high: null })).toBe('5 of 100')
    expect(scoreSentence(score(null))).toBe('not measured')
  })
})

const words = (...list: string[]) => ({ words: list, glue: list.map(() => ' ') })
const view = (name: string, rows: number[][], signed = false) => ({ name, label: name, note: '', map: packSparse(rows, 0.001, signed) })
const after = [[0.1, 0.6, 0, 0.2], [0.2, 0.6, 0, 0], [0, 0.6, 0, 0.4]]
const before = [[0.3, 0.1, 0.1, 0], [0.3, 0, 0, 0], [0.3, 0.1, 0.1, 0], [0.2, 0, 0, 0]]
const page: PageData = {
  version: 1, kind: 'answer', title: 't', question: 'q', model: 'm', tokens: 9, layers: 2, heads: 2, selection: '', command: '', atlas: null, sinks: [], map: null,
  text: words('a', 'b', 'c', 'd'), answer: words('It', 'is'), views: [view('lift', after), view('raw', after)],
  trust: { ...score(71), methods: [method('raw', 3)] }, marks: [mark([[1, 2]], 'boost ×4')], guard: { kl: 0.4 },
  before: { answer: words('It', 'was', 'so'), views: [view('raw', before), view('lift', before)] },
  moved: view('moved', [[-0.2, 0.5, -0.1, 0.2]], true),
}

describe('a steered page', () => {
  beforeEach(() => void vi.stubGlobal('location', { hash: '' }))
  async function opened(data = page, hash = '') {
    location.hash = hash
    const look = new Look(new Book(data))
    await look.open()
    await look.openRest()
    return look
  }

  it('goes to the other side and back, with the same view by its name', async () => {
    const look = await opened()
    expect([look.side, look.current.name, look.reading!.max]).toEqual(['after', 'lift', expect.closeTo(0.6)])
    look.flip()
    expect([look.side, look.current.name, look.reading!.max]).toEqual(['before', 'lift', expect.closeTo(0.3)])
    expect(look.here.answer!.words).toEqual(['It', 'was', 'so'])
    expect(look.when).toBe(' before the marks')
    look.flip()
    expect([look.side, look.current.name]).toEqual(['after', 'lift'])
  })
  it('draws the whole answers against one scale, single words against their own', async () => {
    const look = await opened()
    const [max, base] = [look.max, look.base]
    expect(look.compared).toBe(true)
    look.flip()
    expect([look.max, look.base]).toEqual([max, base])
    look.select(3)
    expect(look.max).toBeCloseTo(0.2)
    expect(look.compared).toBe(false)
    look.same = true
    expect([look.max, look.compared]).toEqual([expect.closeTo(0.6), true])
  })
  it('keeps a word that both answers have at this place, and finds the others again', async () => {
    const look = await opened()
    look.select(1)
    look.flip()
    expect(look.locked).toBe(1)
    look.flip()
    look.select(2)
    look.flip()
    expect(look.locked).toBe(1)
    look.select(3)
    look.flip()
    expect(look.locked).toBe(2)
    look.flip()
    expect(look.locked).toBe(3)
  })
  it('shows what moved for the whole answer; choosing a word goes back', async () => {
    const look = await opened()
    look.choose(1)
    look.select(2)
    look.choose(2)
    expect([look.moved, look.query, look.signed, look.trust]).toEqual([true, 0, true, null])
    expect(look.most[0]).toEqual({ word: 1, value: expect.closeTo(0.5) })
    look.step(1)
    expect([look.moved, look.current.name, look.query]).toEqual([false, 'raw', 1])
    look.chooseNamed('moved')
    look.flip()
    expect([look.side, look.current.name]).toEqual(['before', 'raw'])
    look.chooseNamed('moved')
    look.flip('before')
    expect([look.side, look.current.name]).toEqual(['before', 'raw'])
  })
  it('knows how far to trust the view that is shown', async () => {
    const look = await opened()
    expect(look.trust!.score).toBe(71)
    look.chooseNamed('raw')
    expect(look.trust!.score).toBe(3)
    look.flip()
    expect(look.trust).toBeNull()
  })
  it('is found again from its address', async () => {
    const look = await opened(page, '#word=3&side=before&view=lift')
    expect([look.side, look.query, look.current.name]).toEqual(['before', 3, 'lift'])
    expect(look.address()).toBe('word=3&side=before&view=lift')
    expect((await opened(page, '#view=moved&word=2')).address()).toBe('view=moved')
    expect(readPlace('#side=left')).toEqual(start)
    expect(writePlace({ ...start, side: 'before' })).toBe('side=before')
  })
  it('has one side where there is nothing to compare with', async () => {
    for (const none of [null, undefined, { answer: words('It', 'was'), views: [] }]) {
      const look = await opened({ ...page, before: none, moved: null }, '#side=before')
      look.flip()
      expect([look.side, look.book.steered, look.compared]).toEqual(['after', false, false])
    }
  })
  it('writes marks, guard rails and score into the file of numbers', async () => {
    const look = await opened()
    const file = asJson(look)
    expect(file).toMatchObject({ side: 'after', view: 'lift', guard: { kl: 0.4 }, trust: { score: 71, low: 61, high: 81 }, marks: [{ label: 'boost ×4', text: 'b' }] })
    expect(file.words.map((w) => ('mark' in w ? w.mark : ''))).toEqual(['', 'boost ×4', ''])
    const bare = asJson(await opened({ ...page, marks: null, guard: null, before: null, moved: null, trust: null }))
    expect(Object.keys(bare)).toEqual(['title', 'model', 'command', 'view', 'query', 'reader', 'head', 'floor', 'words'])
  })
  it('says what moved with its sign', () => {
    expect(plain(announced('', [{ text: 'widow', value: 0.031 }, { text: 'storm', value: -0.02 }], null, true))).toBe('What moved most: widow +3.1 %, storm −2.0 %.')
    expect(announced('', [], null, true)).toContain('Nothing moved')
    expect(plain(change(0))).toBe('0.00 %')
  })
})
