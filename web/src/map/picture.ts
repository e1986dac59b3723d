import type { Numbers } from '../data/packed'
import type { Sparse } from '../data/sparse'
import { intensity, step, steps, type Curve } from '../scale'
import { aspectOf, type Camera, type Plot } from './camera'

/** The mean weight in a grid of equal bins: what is shown while single cells are too small to see. */
export interface Overview {
  down: number
  across: number
  stored: Numbers
  unit: number
  max: number
}

export interface Look {
  curve: Curve
  ramp: Uint32Array
  /** The weight shown at full heat. */
  max: number
}

/** From a weight to a colour by table: 1,024 entries over 0..max, so that a frame costs one look-up a pixel. */
export class Table {
  private readonly colours = new Uint32Array(1025)
  private readonly levels = new Uint8Array(1025)
  constructor(private readonly look: Look) {
    for (let i = 0; i <= 1024; i++) {
      // Entries are spaced by the square of i, because small weights need the finer steps.
      const n = step(intensity((i / 1024) ** 2 * look.max, look.max, look.curve))
      this.levels[i] = n
      this.colours[i] = look.ramp[steps + n]
    }
  }
  private entry(value: number): number {
    return value >= this.look.max ? 1024 : Math.round(Math.sqrt(Math.max(0, value) / this.look.max) * 1024)
  }
  colour(value: number): number {
    return this.colours[this.entry(value)]
  }
  level(value: number): number {
    return this.levels[this.entry(value)]
  }
}

export function meanOfBins(overview: Overview, row: number, col: number, rows: number, cols: number): number {
  const r = Math.min(overview.down - 1, Math.floor((row * overview.down) / rows))
  const c = Math.min(overview.across - 1, Math.floor((col * overview.across) / cols))
  return overview.stored[r * overview.across + c] * overview.unit
}

/** Fill `pixels` (width x height) with the means of the overview. */
export function drawOverview(pixels: Uint32Array, width: number, height: number, sharp: number, plot: Plot, camera: Camera, overview: Overview, table: Table): void {
  const tall = camera.k * aspectOf(plot) * sharp
  const wide = camera.k * sharp
  const colour = new Uint32Array(overview.stored.length)
  for (let b = 0; b < colour.length; b++) colour[b] = table.colour(overview.stored[b] * overview.unit)
  const bin = new Int32Array(width)
  for (let x = 0; x < width; x++) {
    const col = Math.floor(camera.x + x / wide)
    bin[x] = col < plot.cols ? Math.floor((col * overview.across) / plot.cols) : -1
  }
  for (let y = 0; y < height; y++) {
    const row = Math.floor(camera.y + y / tall)
    if (row >= plot.rows) break
    const line = Math.floor((row * overview.down) / plot.rows) * overview.across
    for (let x = 0; x < width && bin[x] >= 0; x++) pixels[y * width + x] = colour[line + bin[x]]
  }
}

/** Fill `pixels` with the listed cells; where several fall on one pixel the largest is shown. */
export function drawCells(pixels: Uint32Array, width: number, height: number, sharp: number, plot: Plot, camera: Camera, cells: Sparse, table: Table, blank: number): void {
  const wide = camera.k * sharp
  const tall = camera.k * aspectOf(plot) * sharp
  const right = Math.min(width, Math.ceil((plot.cols - camera.x) * wide))
  const bottom = Math.min(height, Math.ceil((plot.rows - camera.y) * tall))
  for (let y = 0; y < bottom; y++) pixels.fill(blank, y * width, y * width + right)
  const seen = new Float32Array(width)
  const first = Math.floor(camera.y)
  const last = Math.min(plot.rows, Math.ceil(camera.y + height / tall))
  const firstCol = Math.max(0, Math.floor(camera.x))
  const lastCol = Math.min(plot.cols, Math.ceil(camera.x + width / wide))
  let lineFrom = -1
  const flush = (from: number, to: number) => {
    const y0 = Math.max(0, from)
    if (y0 >= height || to <= 0) {
      seen.fill(0)
      return
    }
    for (let x = 0; x < right; x++) if (seen[x] > 0) pixels[y0 * width + x] = table.colour(seen[x])
    for (let y = y0 + 1; y < Math.min(height, to); y++) pixels.copyWithin(y * width, y0 * width, y0 * width + right)
    seen.fill(0)
  }
  let lineTo = 0
  for (let row = first; row < last; row++) {
    const from = Math.floor((row - camera.y) * tall)
    const to = Math.max(from + 1, Math.floor((row + 1 - camera.y) * tall))
    if (from !== lineFrom) {
      if (lineFrom >= -tall && row > first) flush(lineFrom, lineTo)
      lineFrom = from
    }
    lineTo = to
    for (let n = cells.find(row, firstCol); n < cells.start[row + 1] && cells.index[n] < lastCol; n++) {
      const value = cells.valueAt(n)
      const x0 = Math.floor((cells.index[n] - camera.x) * wide)
      const x1 = Math.min(right, Math.max(x0 + 1, Math.floor((cells.index[n] + 1 - camera.x) * wide)))
      for (let x = Math.max(0, x0); x < x1; x++) if (value > seen[x]) seen[x] = value
    }
  }
  if (last > first) flush(lineFrom, lineTo)
}
