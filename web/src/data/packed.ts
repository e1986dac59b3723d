import type { Packed } from '../contract'

export type Numbers = Uint8Array | Uint16Array | Uint32Array | Float32Array

const arrays = { u8: Uint8Array, u16: Uint16Array, u32: Uint32Array, f32: Float32Array }
const bytesEach = { u8: 1, u16: 2, u32: 4, f32: 4 }

function fromBase64(text: string): Uint8Array<ArrayBuffer> {
  const loose = atob(text)
  const bytes = new Uint8Array(loose.length)
  for (let i = 0; i < loose.length; i++) bytes[i] = loose.charCodeAt(i)
  return bytes
}

/** The numbers of a packed array, as stored (an unsigned integer is not yet multiplied by its `max`). */
export async function unpack(packed: Packed): Promise<Numbers> {
  const stream = new Blob([fromBase64(packed.data)]).stream().pipeThrough(new DecompressionStream('gzip'))
  const buffer = await new Response(stream).arrayBuffer()
  const wanted = packed.shape.reduce((a, b) => a * b, 1)
  if (buffer.byteLength !== wanted * bytesEach[packed.dtype]) {
    throw new Error(`a packed array of shape ${packed.shape.join(' x ')} holds ${buffer.byteLength} bytes`)
  }
  return new arrays[packed.dtype](buffer)
}

/** What one stored step is worth: `x * step` is the real number. */
export function stepOf(packed: Packed, signed = false): number {
  if (packed.dtype === 'f32' || packed.max === undefined) return 1
  const top = 2 ** (8 * bytesEach[packed.dtype]) - 1
  return signed ? packed.max / ((top - 1) / 2) : packed.max / top
}

/** Where zero lies among the stored integers. */
export function zeroOf(packed: Packed, signed = false): number {
  return signed && packed.dtype !== 'f32' && packed.max !== undefined ? 2 ** (8 * bytesEach[packed.dtype] - 1) : 0
}
