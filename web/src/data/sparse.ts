import type { PackedSparse } from '../contract'
import { stepOf, unpack, zeroOf, type Numbers } from './packed'

/** The cells of one row that can be seen, ascending by column. */
export interface Row {
  index: Uint32Array
  value: Float64Array
}

/** Rows of a matrix of which only the cells that can be seen are kept. */
export class Sparse {
  readonly rows: number
  readonly cols: number
  readonly floor: number
  readonly signed: boolean
  readonly start: Uint32Array
  readonly index: Uint32Array
  private readonly stored: Numbers
  private readonly step: number
  private readonly zero: number
  private largestSeen: number | null = null

  constructor(shape: { rows: number; cols: number; floor: number; signed?: boolean }, start: Numbers, index: Numbers, stored: Numbers, step: number, zero: number) {
    this.rows = shape.rows
    this.cols = shape.cols
    this.floor = shape.floor
    this.signed = shape.signed ?? false
    this.start = start instanceof Uint32Array ? start : Uint32Array.from(start)
    this.index = index instanceof Uint32Array ? index : Uint32Array.from(index)
    this.stored = stored
    this.step = step
    this.zero = zero
    if (this.start.length !== this.rows + 1 || this.start[this.rows] !== this.index.length || this.index.length !== stored.length) {
      throw new Error('a sparse map whose start, index and value do not fit together')
    }
  }

  static async unpack(packed: PackedSparse): Promise<Sparse> {
    const [start, index, value] = await Promise.all([unpack(packed.start), unpack(packed.index), unpack(packed.value)])
    return new Sparse(packed, start, index, value, stepOf(packed.value, packed.signed), zeroOf(packed.value, packed.signed))
  }

  get listed(): number {
    return this.index.length
  }

  /** The value of the n-th listed cell. */
  valueAt(n: number): number {
    return (this.stored[n] - this.zero) * this.step
  }

  row(row: number): Row {
    const from = this.start[row]
    const to = this.start[row + 1]
    const value = new Float64Array(to - from)
    for (let n = from; n < to; n++) value[n - from] = this.valueAt(n)
    return { index: this.index.subarray(from, to), value }
  }

  /** The first listed position of `row` whose column is at least `col`. */
  find(row: number, col: number): number {
    let low = this.start[row]
    let high = this.start[row + 1]
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.index[middle] < col) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The exact stored weight, or null where the cell is smaller than the floor. */
  at(row: number, col: number): number | null {
    if (row < 0 || col < 0 || row >= this.rows || col >= this.cols) return null
    const n = this.find(row, col)
    return n < this.start[row + 1] && this.index[n] === col ? this.valueAt(n) : null
  }

  /** A rectangle of exact weights; a cell below the floor is 0. */
  tile(row0: number, row1: number, col0: number, col1: number): number[][] {
    const out: number[][] = []
    for (let row = Math.max(0, row0); row < Math.min(this.rows, row1); row++) {
      const line = new Array<number>(Math.max(0, Math.min(this.cols, col1) - Math.max(0, col0))).fill(0)
      for (let n = this.find(row, Math.max(0, col0)); n < this.start[row + 1] && this.index[n] < col1; n++) {
        line[this.index[n] - Math.max(0, col0)] = this.valueAt(n)
      }
      out.push(line)
    }
    return out
  }

  /** The largest absolute value of all cells. */
  get largest(): number {
    if (this.largestSeen === null) {
      let far = 0
      for (let n = 0; n < this.stored.length; n++) {
        const away = Math.abs(this.stored[n] - this.zero)
        if (away > far) far = away
      }
      this.largestSeen = far * this.step
    }
    return this.largestSeen
  }

  /** The value that a share `p` of the cells outside `columns` stays under: a scale that a few giants do not spoil. */
  quantile(p: number, without: ReadonlySet<number>): number {
    const seen: number[] = []
    const stride = Math.max(1, Math.floor(this.index.length / 60000))
    for (let n = 0; n < this.index.length; n += stride) {
      if (!without.has(this.index[n])) seen.push(Math.abs(this.valueAt(n)))
    }
    if (seen.length === 0) return this.largest
    const sorted = Float64Array.from(seen).sort()
    return sorted[Math.min(sorted.length - 1, Math.floor(p * sorted.length))]
  }
}
