import type { Kind } from './contract'
import type { Atlas } from './data/atlas'
import type { Book } from './data/book'
import { mostRead, readingOf, strongest, type Most, type Quoted, type Reading } from './data/reading'
import type { Sparse } from './data/sparse'
import { readPlace, writePlace, type Place } from './hash'
import type { Curve, Theme } from './scale'
import { reader } from './sentences'

export type Show = Place['show']
export type Head = [number, number]

/** Everything a person can choose on the page, and what follows from it. */
export class Look {
  readonly book: Book
  readonly kind: Kind
  private readonly words: number
  view = $state(0)
  locked = $state<number | null>(null)
  hovered = $state<number | null>(null)
  lockedHead = $state.raw<Head | null>(null)
  hoveredHead = $state.raw<Head | null>(null)
  /** A word of the text that is pointed at from elsewhere (the list, the matrix). */
  marked = $state<number | null>(null)
  show = $state<Show>('text')
  curve = $state<Curve>('sqrt')
  same = $state(false)
  theme = $state<Theme | null>(null)
  systemDark = $state(false)
  zoom = $state.raw<Place['zoom']>(null)
  /** The cell of the whole read under the map's cursor. */
  cell = $state.raw<[number, number] | null>(null)

  maps = $state.raw<(Sparse | null)[]>([])
  atlas = $state.raw<Atlas | null>(null)
  cells = $state.raw<Sparse | null>(null)
  /** The answer has left the screen and lives in the bar. */
  away = $state(false)
  /** What the map is drawn against just now. */
  mapScale = $state.raw<{ max: number; says: string } | null>(null)

  query = $derived(this.locked ?? this.hovered ?? 0)
  head = $derived<Head | null>(this.atlas ? (this.hoveredHead ?? this.lockedHead) : null)
  map = $derived<Sparse | null>(this.maps[this.view] ?? null)
  dark = $derived(this.theme === null ? this.systemDark : this.theme === 'dark')
  shade = $derived<Theme>(this.dark ? 'dark' : 'light')
  signed = $derived(this.head === null && (this.map?.signed ?? false))

  reading = $derived.by<Reading | null>(() => {
    if (this.head && this.atlas) return readingOf(this.atlas.row(this.query, ...this.head), this.words)
    return this.map && this.query < this.map.rows ? readingOf(this.map.row(this.query), this.words) : null
  })
  /** The weight that is shown at full heat. */
  max = $derived.by(() => ((this.same || this.kind === 'alignment') && this.head === null && this.map ? this.map.largest : (this.reading?.max ?? 0)))
  /** The weight at which colour begins. */
  base = $derived.by(() => (this.same || this.kind === 'alignment' || this.signed ? 0 : (this.reading?.median ?? 0)))
  most = $derived<Most[]>(this.reading ? strongest(this.reading, 8) : [])
  quoted = $derived.by<Quoted | null>(() => (this.reading ? mostRead(this.reading, this.book.text) : null))
  /** Who read the marked word: the other way through the map, strongest first. */
  readers = $derived.by<Most[]>(() => {
    if (this.marked === null || !this.map) return []
    const column = { index: Uint32Array.from({ length: this.map.rows - 1 }, (_, q) => q), value: new Float64Array(this.map.rows - 1) }
    for (let q = 1; q < this.map.rows; q++) column.value[q - 1] = this.map.at(q, this.marked) ?? 0
    return strongest(column, 5)
  })
  who = $derived.by(() => reader(this.book.data.kind, this.query, this.book.askers.words))

  constructor(book: Book) {
    this.book = book
    this.kind = book.data.kind
    this.words = book.text.length
    this.maps = book.data.views.map(() => null)
    this.goTo(readPlace(location.hash))
  }

  /** Unpack what the first picture needs, then the rest. */
  async open(): Promise<void> {
    await this.load(this.view)
    this.atlas = await this.book.atlas()
  }

  async openRest(): Promise<void> {
    for (let v = 0; v < this.maps.length; v++) await this.load(v)
    this.cells = await this.book.cells()
  }

  private async load(view: number): Promise<void> {
    if (this.maps[view]) return
    const map = await this.book.map(view)
    this.maps = this.maps.with(view, map)
  }

  select(query: number | null): void {
    const last = this.book.queries - 1
    this.locked = query === null || query <= 0 ? null : Math.min(query, last)
    this.hovered = null
  }

  /** Click: lock this query; click it again: let go. */
  toggle(query: number): void {
    if (this.locked === query) {
      this.locked = null
      this.hovered = null
    } else this.select(query)
  }

  step(by: number): void {
    this.select(Math.max(0, Math.min(this.book.queries - 1, this.query + by)))
  }

  hover(query: number | null): void {
    if (this.locked === null) this.hovered = query
  }

  choose(view: number): void {
    if (view < 0 || view >= this.maps.length) return
    this.view = view
    void this.load(view)
  }

  chooseNamed(name: string): boolean {
    const view = this.book.data.views.findIndex((v) => v.name === name)
    this.choose(view)
    return view >= 0
  }

  toggleHead(head: Head): void {
    const same = this.lockedHead?.[0] === head[0] && this.lockedHead[1] === head[1]
    this.lockedHead = same ? null : head
    if (same) this.hoveredHead = null
  }

  flipTheme(): void {
    const next: Theme = this.dark ? 'light' : 'dark'
    this.theme = (next === 'dark') === this.systemDark ? null : next
  }

  /** Esc: first the head, then the word. */
  letGo(): void {
    if (this.lockedHead || this.hoveredHead) {
      this.lockedHead = null
      this.hoveredHead = null
    } else this.select(null)
    this.marked = null
  }

  place(): Place {
    return {
      query: this.locked ?? 0,
      view: this.view === 0 ? null : this.book.data.views[this.view].name,
      head: this.lockedHead,
      show: this.show,
      curve: this.curve,
      same: this.same,
      theme: this.theme,
      zoom: this.zoom,
    }
  }

  address(): string {
    return writePlace(this.place())
  }

  goTo(place: Place): void {
    const { data } = this.book
    this.select(place.query)
    this.choose(Math.max(0, data.views.findIndex((v) => v.name === place.view)))
    this.lockedHead = data.atlas && place.head && place.head[0] < data.layers && place.head[1] < data.heads ? place.head : null
    this.show = place.show === 'map' && !data.map ? 'text' : place.show
    this.curve = place.curve
    this.same = place.same
    this.theme = place.theme
    this.zoom = place.zoom
  }
}
