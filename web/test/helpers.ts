import { gzipSync } from 'node:zlib'
import type { Dtype, Packed, PackedSparse } from '../src/contract'

const arrays = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array }

export function pack(dtype: Dtype, shape: number[], numbers: number[], max?: number): Packed {
  const array = arrays[dtype].from(numbers)
  const data = gzipSync(Buffer.from(array.buffer, array.byteOffset, array.byteLength)).toString('base64')
  return max === undefined ? { dtype, shape, data } : { dtype, shape, data, max }
}

/** Dense rows to the sparse form, as Python writes it. */
export function packSparse(rows: number[][], floor: number, signed = false): PackedSparse {
  const start = [0]
  const index: number[] = []
  const value: number[] = []
  for (const row of rows) {
    row.forEach((v, c) => {
      if (Math.abs(v) >= floor) {
        index.push(c)
        value.push(v)
      }
    })
    start.push(index.length)
  }
  const max = Math.max(1e-9, ...value.map(Math.abs))
  const stored = value.map((v) => (signed ? Math.round((v / max) * 32767) + 32768 : Math.round((v / max) * 65535)))
  return {
    rows: rows.length, cols: rows[0].length, floor, signed,
    start: pack('u32', [start.length], start), index: pack('u32', [index.length], index), value: pack('u16', [value.length], stored, max),
  }
}
