import { describe, expect, it } from 'vitest'
import { fileName, xml } from '../src/export'
import { readPlace, start, writePlace } from '../src/hash'
import { aspectOf, cellAt, fit, fitScale, follow, fromPlace, lookAt, placeOf, zoomAt } from '../src/map/camera'
import { drawCells, drawOverview, Table } from '../src/map/picture'
import { Sparse } from '../src/data/sparse'
import { classOf, colour, contrast, curves, inkOn, intensity, ramp, rules, step, stepOfValue, steps, weightAt } from '../src/scale'
import { announced, cellSentence, percent, plural, quoted, reader } from '../src/sentences'
import { packSparse } from './helpers'

describe('the scale', () => {
  it('runs from nothing to full on every curve, and never turns back', () => {
    for (const curve of curves) {
      expect(intensity(0, 0.2, curve)).toBe(0)
      expect(intensity(0.2, 0.2, curve)).toBe(1)
      expect(intensity(5, 0.2, curve)).toBe(1)
      let before = -1
      for (let v = 0; v <= 0.2; v += 0.001) {
        const now = intensity(v, 0.2, curve)
        expect(now).toBeGreaterThanOrEqual(before)
        before = now
      }
    }
    expect(intensity(0.05, 0.2, 'sqrt')).toBeCloseTo(0.5)
    expect(intensity(0.0002, 0.2, 'log')).toBeCloseTo(0)
    expect(intensity(0, 0, 'sqrt')).toBe(0)
  })
  it('begins above the base, and says which weight has which colour', () => {
    for (const curve of curves) {
      expect(intensity(0.05, 0.2, curve, 0.05)).toBe(0)
      expect(intensity(0.2, 0.2, curve, 0.05)).toBe(1)
      for (const x of [0.25, 0.5, 1]) expect(intensity(weightAt(x, 0.2, curve, 0.05), 0.2, curve, 0.05)).toBeCloseTo(x)
    }
    expect(intensity(0.3, 0.3, 'sqrt', 0.3)).toBe(1)
  })
  it('has ink of at least 4.5 : 1 on every step, both ways, light and dark', () => {
    for (const theme of ['light', 'dark'] as const) {
      for (let n = -steps; n <= steps; n++) {
        const back = colour(n, theme)
        expect(contrast(back, inkOn(back, theme)), `${theme} ${n}`).toBeGreaterThanOrEqual(4.5)
      }
    }
  })
  it('gives classes by sign and leaves the faintest alone', () => {
    expect(classOf(32)).toBe('h32')
    expect(classOf(-9)).toBe('c9')
    expect(classOf(2)).toBe('')
    expect(stepOfValue(-0.2, 0.2, 'linear')).toBe(-32)
    expect(step(0.5)).toBe(16)
    expect(rules()).toContain('.c32{')
  })
})

describe('the sentences', () => {
  it('say shares with the figures that mean something', () => {
    expect([0.31, 0.0831, 0.0042, 0.0004, -0.02].map((x) => percent(x).replace('\u202f', ' '))).toEqual(['31 %', '8.3 %', '0.42 %', '0.04 %', '−2.0 %'])
    expect(percent(0.0831, true).replace('\u202f', ' ')).toBe('8.31 %')
  })
  it('say who read what', () => {
    expect(cellSentence(' Ysolde', 'keeper', 0.0831, 0.0004).replace('\u202f', ' ')).toBe('“Ysolde” read “keeper”: 8.31 %')
    expect(cellSentence('a', '\n', null, 0.0004).replace('\u202f', ' ')).toBe('“a” read “↵”: less than 0.04 %')
    expect(quoted('  ')).toBe('“␣”')
    expect(reader('answer', 0, [])).toBe('the whole answer')
    expect(reader('text', 0, [])).toBe('all words together')
    expect(reader('answer', 2, ['a', 'b'])).toBe('“b”')
    expect(announced('“b”', [{ text: 'keeper', value: 0.5 }], 'layer 1, head 2').replace('\u202f', ' ')).toBe('“b” with layer 1, head 2 alone read most: keeper 50 %.')
    expect(announced('“b”', [], null)).toContain('nothing')
    expect(plural(1, 'token')).toBe('1 token')
    expect(plural(7600, 'token')).toBe('7,600 tokens')
  })
})

describe('the address', () => {
  it('is bare for a fresh page and comes back as it was', () => {
    expect(writePlace(start)).toBe('')
    expect(readPlace('')).toEqual(start)
    const place = { ...start, query: 9, view: 'raw', head: [14, 3] as [number, number], show: 'map' as const, curve: 'log' as const, same: true, theme: 'dark' as const, zoom: [12.5, 8, 40] as [number, number, number] }
    expect(readPlace(`#${writePlace(place)}`)).toEqual(place)
  })
  it('shrugs at nonsense', () => {
    expect(readPlace('#word=-3&head=1&show=moon&scale=x&zoom=a,b,c&theme=%00')).toEqual(start)
  })
})

describe('the map camera', () => {
  const plot = { width: 700, height: 700, rows: 7600, cols: 7600 }
  it('begins with all in view and never leaves the matrix', () => {
    const far = fit(plot)
    expect(far.k).toBeCloseTo(700 / 7600)
    expect(zoomAt(far, plot, 0.1, 0, 0)).toEqual(far)
    const near = zoomAt(far, plot, 1e9, 700, 700)
    expect(near.x + plot.width / near.k).toBeCloseTo(7600)
  })
  it('keeps the point under the pointer when zooming', () => {
    const far = fit(plot)
    expect(cellAt(zoomAt(far, plot, 30, 350, 200), plot, 350, 200)).toEqual(cellAt(far, plot, 350, 200))
    expect(cellAt(far, plot, -1, 5)).toBeNull()
  })
  it('is written in the address and found again at another size', () => {
    const eye = lookAt(plot, 4000, 1000, 20)
    const place = placeOf(eye, plot)!
    const again = fromPlace(place, plot)
    expect(again.x).toBeCloseTo(eye.x)
    expect(again.k).toBeCloseTo(eye.k)
    const small = { ...plot, width: 320, height: 400 }
    expect(placeOf(fromPlace(place, small), small)![2]).toBeCloseTo(place[2])
    expect(placeOf(fit(plot), plot)).toBeNull()
  })
  it('follows a cell just far enough', () => {
    const eye = lookAt(plot, 100, 100, 20)
    expect(follow(eye, plot, 100, 100)).toEqual(eye)
    const moved = follow(eye, plot, 100, 130)
    expect(moved.x + plot.width / moved.k).toBeCloseTo(131)
  })
  it('stretches only what would be a thread', () => {
    expect(aspectOf(plot)).toBe(1)
    expect(aspectOf({ ...plot, rows: 24 })).toBe(2.5)
    expect(fitScale({ width: 700, height: 700, rows: 3, cols: 3 })).toBe(56)
  })
})

describe('the map picture', () => {
  const table = new Table({ curve: 'linear', ramp: ramp('light'), max: 1 })
  const plot = { width: 4, height: 4, rows: 4, cols: 4 }
  it('draws each listed cell on its own pixel', async () => {
    const rows = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0.5], [0, 0, 0, 1]]
    const cells = await Sparse.unpack(packSparse(rows, 0.001))
    const pixels = new Uint32Array(16)
    drawCells(pixels, 4, 4, 1, plot, { x: 0, y: 0, k: 1 }, cells, table, 7)
    rows.flat().forEach((v, i) => expect(pixels[i], `pixel ${i}`).toBe(v === 0 ? 7 : table.colour(cells.at(i >> 2, i & 3)!)))
  })
  it('shows the largest where several cells share a pixel, and blocks where one covers many', async () => {
    const rows = [[1, 0, 0, 0], [0, 0.5, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0.25]]
    const cells = await Sparse.unpack(packSparse(rows, 0.001))
    const small = new Uint32Array(4)
    drawCells(small, 2, 2, 1, { ...plot, width: 2, height: 2 }, { x: 0, y: 0, k: 0.5 }, cells, table, 7)
    expect([...small]).toEqual([table.colour(1), 7, 7, table.colour(cells.at(3, 3)!)])
    const large = new Uint32Array(64)
    drawCells(large, 8, 8, 1, { ...plot, width: 8, height: 8 }, { x: 0, y: 0, k: 2 }, cells, table, 7)
    expect(large[9]).toBe(table.colour(1))
    expect(large[8 * 2 + 2]).toBe(table.colour(cells.at(1, 1)!))
    expect(large[8 * 4 + 4]).toBe(7)
    const shifted = new Uint32Array(4)
    drawCells(shifted, 2, 2, 1, { ...plot, width: 2, height: 2 }, { x: 0.5, y: 0.5, k: 1 }, cells, table, 7)
    expect(shifted[0]).toBe(table.colour(cells.at(1, 1)!))
  })
  it('draws the overview by bins', () => {
    const overview = { down: 2, across: 2, stored: Uint8Array.from([255, 0, 0, 51]), unit: 1 / 255, max: 1 }
    const pixels = new Uint32Array(16)
    drawOverview(pixels, 4, 4, 1, plot, { x: 0, y: 0, k: 1 }, overview, table)
    expect(pixels[5]).toBe(table.colour(1))
    expect(pixels[15]).toBe(table.colour(0.2))
    expect(pixels[2]).toBe(table.colour(0))
  })
})

describe('saving', () => {
  it('names files after the question', () => {
    expect(fileName('Who was the keeper?', 9, 'svg')).toBe('who-was-the-keeper-word-9.svg')
    expect(fileName('</script>', 0, 'json')).toBe('script.json')
    expect(fileName('…', 0, 'json')).toBe('look.json')
  })
  it('writes words as inert XML', () => {
    expect(xml('<img src=x onerror="a">&\u0000')).toBe('&#60;img src=x onerror=&#34;a&#34;&#62;&#38;')
  })
})
