import { labelsOn, quoteOf } from './data/marks'
import type { Look } from './look.svelte'
import { colour, css, quiet } from './scale'

/** Save the current picture: coloured text as SVG, the map as PNG, the numbers as JSON. Nothing leaves the page. */

function save(blob: Blob, name: string): void {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(blob)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}

export function fileName(title: string, query: number, ending: string): string {
  const plain = title.toLowerCase().normalize('NFKD').replace(/[^\p{L}\p{N}]+/gu, '-').replace(/^-+|-+$/g, '').slice(0, 48) || 'look'
  return `${plain}${query > 0 ? `-word-${query}` : ''}.${ending}`
}

/** What a strict XML reader accepts: the five marks written as entities, control characters left out. */
export function xml(text: string): string {
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/g, '').replace(/[<>&"']/g, (c) => `&#${c.charCodeAt(0)};`)
}

/** The coloured words as an SVG, each where it stands on the page. */
export function textAsSvg(root: HTMLElement, background: string, colours: { line: string; heat: string; cool: string }): string {
  const home = root.getBoundingClientRect()
  const pad = 28
  const out: string[] = []
  for (const bar of root.querySelectorAll<HTMLElement>('.bar')) {
    const at = bar.getBoundingClientRect()
    const share = (name: string) => (parseFloat(bar.style.getPropertyValue(name)) || 0) / 100
    const put = (from: number, to: number, fill: string) => {
      if (to > from) out.push(`<rect x="${num(at.left - home.left + pad)}" y="${num(at.bottom - home.top + pad - to * at.height)}" width="${num(at.width)}" height="${num((to - from) * at.height)}" fill="${fill}"/>`)
    }
    put(share('--c'), 1, colours.line)
    put(0, share('--h'), colours.heat)
    put(share('--h'), share('--c'), colours.cool)
  }
  const look = getComputedStyle(root)
  const size = parseFloat(look.fontSize)
  const words: string[] = []
  for (const word of root.querySelectorAll<HTMLElement>('[data-word]')) {
    const at = word.getClientRects()[0]
    if (!at) continue
    const [x, y] = [at.left - home.left + pad, at.top - home.top + pad]
    const ink = getComputedStyle(word)
    if (word.className) out.push(`<rect x="${num(x)}" y="${num(y)}" width="${num(at.width)}" height="${num(at.height)}" rx="3" fill="${ink.backgroundColor}"/>`)
    words.push(`<text x="${num(x + 2)}" y="${num(y + at.height / 2 + size * 0.34)}"${ink.color === look.color ? '' : ` fill="${ink.color}"`}>${xml(word.textContent ?? '')}</text>`)
  }
  for (const mark of root.querySelectorAll<HTMLElement>('mark')) {
    const { act } = mark.dataset
    const ink = getComputedStyle(mark).textDecorationColor
    for (const at of mark.getClientRects()) {
      const [x, w] = [at.left - home.left + pad, at.width]
      const y = at.top - home.top + pad + at.height * (act === 'mute' ? 0.55 : 1.08)
      const line = (y: number, more: string) => out.push(`<path d="M${num(x)} ${num(y)}h${num(w)}" stroke="${ink}" ${more}/>`)
      line(y, act === 'damp' ? 'stroke-width="2" stroke-dasharray="2 3"' : `stroke-width="${act === 'share' ? 1 : 2}"`)
      if (act === 'share') line(y + 2.5, '')
    }
  }
  for (const tag of root.querySelectorAll<HTMLElement>('.tag')) {
    const at = tag.getBoundingClientRect()
    words.push(`<text x="${num(at.left - home.left + pad)}" y="${num(at.bottom - home.top + pad - 3)}" font-size="11">${xml(tag.textContent ?? '')}</text>`)
  }
  const [w, h] = [home.width + 2 * pad, home.height + 2 * pad]
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${num(w)}" height="${num(h)}" viewBox="0 0 ${num(w)} ${num(h)}"><rect width="100%" height="100%" fill="${background}"/>${out.join('')}<g font-family="${xml(look.fontFamily)}" font-size="${size}" fill="${look.color}">${words.join('')}</g></svg>`
}
const num = (x: number) => String(Math.round(x * 10) / 10)

/** The chosen query with the weight of each listed word, and where it came from. */
export function asJson(look: Look) {
  const { data, text, runs } = look.book
  const { reading } = look
  const marks = data.marks ?? []
  const marked = (word: number) => {
    const mark = labelsOn(word, runs, marks)
    return mark === '' ? {} : { mark }
  }
  return {
    title: data.title, model: data.model, command: data.command, view: look.current.name, ...(look.book.steered && { side: look.side }), query: look.query, reader: look.who, head: look.head,
    floor: look.map?.floor ?? null,
    ...(marks.length > 0 && { marks: marks.map((mark) => ({ ...mark, text: quoteOf(mark, text) })) }),
    ...(data.guard && { guard: data.guard }),
    ...(look.trust && { trust: { score: look.trust.score, low: look.trust.low, high: look.trust.high, verdict: look.trust.verdict ?? null } }),
    words: reading ? Array.from(reading.index, (word, n) => ({ word, text: text.words[word], share: reading.value[n], ...marked(word) })) : [],
  }
}

export function saveText(look: Look, root: HTMLElement): void {
  const of = (n: number) => css(colour(n, look.shade))
  const colours = { line: quiet[look.shade].line, heat: of(28), cool: of(-28) }
  save(new Blob([textAsSvg(root, getComputedStyle(document.body).backgroundColor, colours)], { type: 'image/svg+xml' }), fileName(look.book.data.title, look.query, 'svg'))
}

export function saveMap(look: Look, canvas: HTMLCanvasElement): void {
  const sheet = document.createElement('canvas')
  sheet.width = canvas.width
  sheet.height = canvas.height
  const g = sheet.getContext('2d')!
  g.fillStyle = getComputedStyle(document.body).backgroundColor
  g.fillRect(0, 0, sheet.width, sheet.height)
  g.drawImage(canvas, 0, 0)
  sheet.toBlob((blob) => blob && save(blob, fileName(look.book.data.title, 0, 'map.png')), 'image/png')
}

export function saveNumbers(look: Look): void {
  save(new Blob([`${JSON.stringify(asJson(look), null, 1)}\n`], { type: 'application/json' }), fileName(look.book.data.title, look.query, 'json'))
}
