import type { SideName } from './data/side'
import type { Curve, Theme } from './scale'

/** What the address of the page remembers. Defaults are left out, so a fresh page has a bare address. */
export interface Place {
  query: number
  side: SideName
  view: string | null
  head: [number, number] | null
  show: 'text' | 'map' | 'table'
  curve: Curve
  same: boolean
  theme: Theme | null
  zoom: [number, number, number] | null
}

export const start: Place = { query: 0, side: 'after', view: null, head: null, show: 'text', curve: 'sqrt', same: false, theme: null, zoom: null }

const whole = (text: string | null): number | null => (text !== null && /^\d{1,7}$/.test(text) ? Number(text) : null)

function numbers(text: string | null, count: number): number[] | null {
  const list = (text ?? '').split(',').map(Number)
  return text !== null && list.length === count && list.every((x) => Number.isFinite(x) && x >= 0) ? list : null
}

export function readPlace(hash: string): Place {
  const given = new URLSearchParams(hash.replace(/^#/, ''))
  const pick = <T extends string>(name: string, allowed: readonly T[]): T | null => allowed.find((x) => x === given.get(name)) ?? null
  return {
    query: whole(given.get('word')) ?? 0,
    side: pick('side', ['after', 'before'] as const) ?? 'after',
    view: given.get('view'),
    head: numbers(given.get('head'), 2) as [number, number] | null,
    show: pick('show', ['text', 'map', 'table'] as const) ?? 'text',
    curve: pick('scale', ['sqrt', 'linear', 'log'] as const) ?? 'sqrt',
    same: given.get('same') === '1',
    theme: pick('theme', ['light', 'dark'] as const),
    zoom: numbers(given.get('zoom'), 3) as [number, number, number] | null,
  }
}

export function writePlace(place: Place): string {
  const parts: string[] = []
  const put = (name: string, value: string) => parts.push(`${name}=${encodeURIComponent(value).replaceAll('%2C', ',')}`)
  if (place.query > 0) put('word', String(place.query))
  if (place.side !== 'after') put('side', place.side)
  if (place.view !== null) put('view', place.view)
  if (place.head !== null) put('head', place.head.join(','))
  if (place.show !== 'text') put('show', place.show)
  if (place.curve !== 'sqrt') put('scale', place.curve)
  if (place.same) put('same', '1')
  if (place.theme !== null) put('theme', place.theme)
  if (place.zoom !== null) put('zoom', place.zoom.map((x) => String(Math.round(x * 100) / 100)).join(','))
  return parts.join('&')
}
