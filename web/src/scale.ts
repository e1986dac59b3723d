/** From a weight to a colour: three intensity curves, one heat ramp, one cool ramp, ink that can be read on each step. */

export type Curve = 'sqrt' | 'linear' | 'log'
export type Theme = 'light' | 'dark'
export type Rgb = readonly [number, number, number]

export const curves: Curve[] = ['sqrt', 'linear', 'log']
export const steps = 32
const decades = 3

/** Where the log curve begins. */
const logFrom = (max: number, base: number): number => Math.max(base, max / 10 ** decades)

/**
 * How strongly a weight is shown, 0 to 1: `max` at 1, `base` and all below it at 0. The sign is left to the ramp.
 */
export function intensity(value: number, max: number, curve: Curve, base = 0): number {
  const size = Math.abs(value)
  if (!(max > base) || size <= base) return size > 0 && size >= max ? 1 : 0
  if (curve === 'log') {
    const from = logFrom(max, base)
    return size <= from ? 0 : Math.min(1, Math.log(size / from) / Math.log(max / from))
  }
  const x = Math.min(1, (size - base) / (max - base))
  return curve === 'linear' ? x : Math.sqrt(x)
}

/** The weight that a curve shows at intensity `x`. */
export function weightAt(x: number, max: number, curve: Curve, base = 0): number {
  if (curve === 'log') return logFrom(max, base) * (max / logFrom(max, base)) ** x
  return base + (max - base) * (curve === 'sqrt' ? x * x : x)
}

/** The step of the ramp for an intensity: 0 (not coloured) to `steps`. */
export function step(x: number): number {
  return Math.round(x * steps)
}

/** The signed step of a value: positive steps are heat, negative ones cool. */
export function stepOfValue(value: number, max: number, curve: Curve, base = 0): number {
  const n = step(intensity(value, max, curve, base))
  return value < 0 ? -n : n
}

const paper: Record<Theme, Rgb> = { light: [252, 251, 248], dark: [22, 21, 16] }
const ink: Record<Theme, Rgb> = { light: [29, 27, 22], dark: [236, 231, 218] }
const heat: Record<Theme, Rgb[]> = {
  light: [paper.light, [245, 214, 184], [229, 150, 88], [176, 68, 8]],
  dark: [paper.dark, [84, 50, 24], [170, 92, 34], [255, 158, 70]],
}
const cool: Record<Theme, Rgb[]> = {
  light: [paper.light, [196, 219, 236], [110, 163, 204], [25, 92, 145]],
  dark: [paper.dark, [28, 54, 78], [48, 105, 152], [122, 184, 238]],
}

/** The quiet colours of the page, for canvases (`app.css` holds the same). */
export const quiet: Record<Theme, { ink: string; soft: string; line: string; wash: string }> = {
  light: { ink: '#1d1b16', soft: '#6a6457', line: '#d9d3c4', wash: '#f3f0e8' },
  dark: { ink: '#ece7da', soft: '#a29b87', line: '#3b382c', wash: '#1d1b14' },
}

function mix(stops: Rgb[], x: number): Rgb {
  const at = Math.min(0.999999, Math.max(0, x)) * (stops.length - 1)
  const i = Math.floor(at)
  const part = at - i
  const [a, b] = [stops[i], stops[i + 1]]
  return [0, 1, 2].map((c) => Math.round(a[c] + (b[c] - a[c]) * part)) as unknown as Rgb
}

/** The colour of a signed step. */
export function colour(n: number, theme: Theme): Rgb {
  return mix((n < 0 ? cool : heat)[theme], Math.abs(n) / steps)
}

export function luminance([r, g, b]: Rgb): number {
  const line = (c: number) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4)
  return 0.2126 * line(r) + 0.7152 * line(g) + 0.0722 * line(b)
}

export function contrast(a: Rgb, b: Rgb): number {
  const [high, low] = [luminance(a), luminance(b)].sort((x, y) => y - x)
  return (high + 0.05) / (low + 0.05)
}

/** Ink for a background: the page's own where it can be read (4.5 : 1), otherwise white or black, whichever is clearer. */
export function inkOn(background: Rgb, theme: Theme): Rgb {
  if (contrast(ink[theme], background) >= 4.5) return ink[theme]
  const [white, black]: Rgb[] = [[255, 255, 255], [0, 0, 0]]
  return contrast(white, background) >= contrast(black, background) ? white : black
}

export const css = ([r, g, b]: Rgb): string => `rgb(${r} ${g} ${b})`

/** The style rules of all steps, for both themes: `.h1` to `.h32` heat, `.c1` to `.c32` cool. */
export function rules(): string {
  const out: string[] = []
  const both = (pick: (t: Theme) => Rgb) => `light-dark(${css(pick('light'))},${css(pick('dark'))})`
  for (let n = 1; n <= steps; n++) {
    for (const sign of [1, -1]) {
      const back = (t: Theme) => colour(sign * n, t)
      out.push(`.${sign > 0 ? 'h' : 'c'}${n}{background-color:${both(back)};color:${both((t) => inkOn(back(t), t))}}`)
    }
  }
  return out.join('\n')
}

/** The class of a signed step; a step under 3 is left as plain paper so that the page stays calm. */
export function classOf(n: number): string {
  return Math.abs(n) < 3 ? '' : n > 0 ? `h${n}` : `c${-n}`
}

/** The ramp as packed little-endian RGBA for canvases: index `steps + n` for the signed step n. */
export function ramp(theme: Theme): Uint32Array {
  const out = new Uint32Array(2 * steps + 1)
  for (let n = -steps; n <= steps; n++) {
    const [r, g, b] = colour(n, theme)
    out[steps + n] = (255 << 24) | (b << 16) | (g << 8) | r
  }
  return out
}
