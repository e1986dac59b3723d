import type { PackedAtlas } from '../contract'
import { stepOf, unpack, type Numbers } from './packed'
import type { Row } from './sparse'

const none = 65535

/** Which heads point: per query and head its peak, and the few words it reads most. */
export class Atlas {
  readonly queries: number
  readonly layers: number
  readonly heads: number
  private readonly kept: number

  constructor(
    shape: number[],
    private readonly peaks: Numbers,
    private readonly peakStep: number,
    private readonly index: Numbers,
    private readonly value: Numbers,
    private readonly valueStep: number,
  ) {
    ;[this.queries, this.layers, this.heads, this.kept] = shape
  }

  static async unpack(packed: PackedAtlas): Promise<Atlas> {
    const [peak, index, value] = await Promise.all([unpack(packed.peak), unpack(packed.index), unpack(packed.value)])
    return new Atlas(packed.index.shape, peak, stepOf(packed.peak), index, value, stepOf(packed.value))
  }

  peak(query: number, layer: number, head: number): number {
    return this.peaks[(query * this.layers + layer) * this.heads + head] * this.peakStep
  }

  /** The largest peak of one query: what the atlas is drawn against. */
  top(query: number): number {
    const from = query * this.layers * this.heads
    let far = 0
    for (let n = from; n < from + this.layers * this.heads; n++) far = Math.max(far, this.peaks[n])
    return far * this.peakStep
  }

  /** The words that one head reads most, ascending by word. */
  row(query: number, layer: number, head: number): Row {
    const from = ((query * this.layers + layer) * this.heads + head) * this.kept
    const pairs: [number, number][] = []
    for (let n = from; n < from + this.kept; n++) {
      if (this.index[n] !== none && this.value[n] > 0) pairs.push([this.index[n], this.value[n] * this.valueStep])
    }
    pairs.sort((a, b) => a[0] - b[0])
    return { index: Uint32Array.from(pairs, (x) => x[0]), value: Float64Array.from(pairs, (x) => x[1]) }
  }
}
