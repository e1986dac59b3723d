import { describe, expect, it } from 'vitest'
import { Atlas } from '../src/data/atlas'
import { stepOf, unpack, zeroOf } from '../src/data/packed'
import { Passage, partOf } from '../src/data/passage'
import { massPerPart, mostRead, readingOf, strongest } from '../src/data/reading'
import { Sparse } from '../src/data/sparse'
import { pack, packSparse } from './helpers'

describe('packed arrays', () => {
  it('come back as they were stored, in every type', async () => {
    expect([...(await unpack(pack('u8', [3], [0, 7, 255])))]).toEqual([0, 7, 255])
    expect([...(await unpack(pack('u16', [2, 1], [1, 65535])))]).toEqual([1, 65535])
    expect([...(await unpack(pack('u32', [1], [4_000_000_000])))]).toEqual([4_000_000_000])
    expect([...(await unpack(pack('f32', [2], [0.5, -2])))]).toEqual([0.5, -2])
    expect((await unpack(pack('u16', [0], []))).length).toBe(0)
  })
  it('refuse a shape that does not fit', async () => {
    await expect(unpack(pack('u16', [3], [1, 2]))).rejects.toThrow('shape 3 holds 4 bytes')
  })
  it('know what one step is worth', () => {
    expect(stepOf(pack('u8', [1], [1], 0.51))).toBeCloseTo(0.002)
    expect(stepOf(pack('u16', [1], [1]))).toBe(1)
    expect(stepOf(pack('u16', [1], [1], 0.32767), true)).toBeCloseTo(0.00001)
    expect(zeroOf(pack('u16', [1], [1], 1), true)).toBe(32768)
  })
})

describe('sparse maps', () => {
  const rows = [
    [0.5, 0, 0.25, 0.0001],
    [0, 0, 0, 0],
    [0, 0.125, 0, 1],
  ]
  it('give exact cells, and null below the floor', async () => {
    const map = await Sparse.unpack(packSparse(rows, 0.001))
    expect(map.at(0, 0)).toBeCloseTo(0.5, 4)
    expect(map.at(2, 3)).toBe(1)
    expect(map.at(0, 3)).toBeNull()
    expect(map.at(1, 1)).toBeNull()
    expect(map.at(7, 0)).toBeNull()
    expect(map.listed).toBe(4)
    expect(map.largest).toBe(1)
  })
  it('give rectangles, cut at the edges', async () => {
    const map = await Sparse.unpack(packSparse(rows, 0.001))
    const tile = map.tile(1, 9, 1, 9)
    expect(tile.length).toBe(2)
    expect(tile[0]).toEqual([0, 0, 0])
    expect(tile[1][0]).toBeCloseTo(0.125, 4)
    expect(tile[1][2]).toBe(1)
  })
  it('keep the sign', async () => {
    const map = await Sparse.unpack(packSparse([[-0.5, 0.25, 0]], 0.001, true))
    expect(map.at(0, 0)).toBeCloseTo(-0.5, 4)
    expect(map.at(0, 1)).toBeCloseTo(0.25, 4)
  })
  it('leave sinks out of the scale', async () => {
    const map = await Sparse.unpack(packSparse([[0.9, 0.1, 0.2], [0.8, 0.3, 0.1]], 0.001))
    expect(map.quantile(1, new Set([0]))).toBeCloseTo(0.3, 3)
  })
  it('refuse parts that do not fit together', async () => {
    await expect(Sparse.unpack({ ...packSparse(rows, 0.001), rows: 5 })).rejects.toThrow('do not fit together')
  })
})

describe('readings', () => {
  const row = { index: Uint32Array.from([0, 2, 3, 5]), value: Float64Array.from([0.1, 0.4, -0.5, 0.1]) }
  const passage = new Passage({ words: ['A', 'b', 'c.', 'D', 'e', 'f.'], glue: [' ', ' ', ' ', ' ', ' ', ''], sentences: [0, 3], paragraphs: [0] })
  it('rank by size, the earlier of equals first', () => {
    expect(strongest(row, 3).map((m) => m.word)).toEqual([3, 2, 0])
    expect(strongest(row, 99).length).toBe(4)
  })
  it('sum per part, heat and cool apart', () => {
    const { heat, cool } = massPerPart(row, [0, 3])
    expect([...heat]).toEqual([0.5, 0.1])
    expect([...cool]).toEqual([0, 0.5])
    expect(readingOf(row, 6).mass).toBeCloseTo(1.1)
    expect(readingOf(row, 6).max).toBe(0.5)
  })
  it('know the middle word, with those that are not listed as 0', () => {
    expect(readingOf(row, 8).median).toBe(0)
    expect(readingOf(row, 6).median).toBe(0.1)
    expect(readingOf(row, 4).median).toBe(0.4)
  })
  it('find the sentence that was read most', () => {
    const quoted = mostRead(row, passage)!
    expect(quoted.words).toEqual([0, 3])
    expect(quoted.share).toBeCloseTo(0.5 / 0.6)
    expect(mostRead({ index: new Uint32Array(), value: new Float64Array() }, passage)).toBeNull()
  })
})

describe('passages', () => {
  it('find the part of a word', () => {
    expect([0, 2, 3, 9].map((w) => partOf([0, 3, 7], w))).toEqual([0, 0, 1, 2])
  })
  it('run words together by their glue', () => {
    const p = new Passage({ words: ['I', 'don', '’t', 'know'], glue: [' ', '', '\n', ''] })
    expect(p.slice(0, 4)).toBe('I don’t know')
    expect(p.sentence(0)).toEqual([0, 4])
  })
  it('keep line feeds of lists and drop those of prose wrapped by hand', () => {
    const list = new Passage({ words: ['- tea', '- iron', 'x'], glue: ['\n', '\n\n', ''], paragraphs: [0, 2] })
    expect(list.shownGlue()).toEqual(['\n', '', ''])
    const long = new Passage({ words: ['a'.repeat(60), 'b'], glue: ['\n', ''] })
    expect(long.shownGlue()).toEqual([' ', ''])
  })
})

describe('the atlas', () => {
  it('gives the peak and the words of one head', async () => {
    const atlas = await Atlas.unpack({
      peak: pack('u8', [1, 1, 2], [255, 51], 0.5),
      index: pack('u16', [1, 1, 2, 2], [4, 1, 65535, 65535]),
      value: pack('u8', [1, 1, 2, 2], [255, 51, 0, 0], 0.5),
    })
    expect(atlas.peak(0, 0, 1)).toBeCloseTo(0.1)
    expect(atlas.top(0)).toBeCloseTo(0.5)
    const row = atlas.row(0, 0, 0)
    expect([...row.index]).toEqual([1, 4])
    expect(row.value[1]).toBeCloseTo(0.5)
    expect(atlas.row(0, 0, 1).index.length).toBe(0)
  })
})
