import type { Kind } from './contract'
import type { Atlas } from './data/atlas'
import type { Book } from './data/book'
import { mostRead, readingOf, strongest, type Most, type Quoted, type Reading } from './data/reading'
import type { Side, SideName } from './data/side'
import type { Sparse } from './data/sparse'
import { readPlace, writePlace, type Place } from './hash'
import type { Curve, Theme } from './scale'
import { reader } from './sentences'
import { trustOf } from './trust'

export type Show = Place['show']
export type Head = [number, number]

/** Everything a person can choose on the page, and what follows from it. */
export class Look {
  readonly book: Book
  readonly kind: Kind
  private readonly words: number
  side = $state<SideName>('after')
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

  private maps = $state.raw<Record<SideName, (Sparse | null)[]>>({ after: [], before: [] })
  private heads = $state.raw<Atlas | null>(null)
  cells = $state.raw<Sparse | null>(null)
  /** The answer has left the screen and lives in the bar. */
  away = $state(false)
  /** What the map is drawn against just now. */
  mapScale = $state.raw<{ max: number; says: string } | null>(null)

  here = $derived.by<Side>(() => this.book.sides[this.side])
  current = $derived(this.here.views[this.view])
  /** The difference between after and before is shown: one row for the whole answer. */
  moved = $derived.by(() => this.book.data.moved === this.current)
  /** The heads of the steered read. */
  atlas = $derived(this.moved || this.side === 'before' ? null : this.heads)
  query = $derived(this.moved ? 0 : (this.locked ?? this.hovered ?? 0))
  head = $derived<Head | null>(this.atlas ? (this.hoveredHead ?? this.lockedHead) : null)
  map = $derived<Sparse | null>(this.maps[this.side][this.view] ?? null)
  /** The same view on the other side: both are drawn against one scale. */
  private twin = $derived.by<Sparse | null>(() => {
    if (!this.book.steered || this.moved) return null
    const other: SideName = this.side === 'after' ? 'before' : 'after'
    const view = this.book.sides[other].viewNamed(this.current.name)
    return this.book.sides[other].views[view].name === this.current.name ? (this.maps[other][view] ?? null) : null
  })
  dark = $derived(this.theme === null ? this.systemDark : this.theme === 'dark')
  shade = $derived<Theme>(this.dark ? 'dark' : 'light')
  signed = $derived(this.head === null && (this.map?.signed ?? false))

  reading = $derived.by<Reading | null>(() => {
    if (this.head && this.atlas) return readingOf(this.atlas.row(this.query, ...this.head), this.words)
    return this.map && this.query < this.map.rows ? readingOf(this.map.row(this.query), this.words) : null
  })
  /** The whole answers can be compared word for word; their single words cannot. */
  private twinReading = $derived.by<Reading | null>(() => (this.twin && this.head === null && this.query === 0 ? readingOf(this.twin.row(0), this.words) : null))
  private level = $derived.by(() => (this.same || this.kind === 'alignment') && !this.moved)
  /** The weight that is shown at full heat. */
  max = $derived.by(() => {
    if (this.level && this.head === null && this.map) return Math.max(this.map.largest, this.twin?.largest ?? 0)
    return Math.max(this.reading?.max ?? 0, this.twinReading?.max ?? 0)
  })
  /** The weight at which colour begins. */
  base = $derived.by(() => {
    if (this.level || (this.signed && !this.moved)) return 0
    const median = this.reading?.median ?? 0
    return this.twinReading ? Math.min(median, this.twinReading.median) : median
  })
  /** Before and after are drawn against the same scale just now. */
  compared = $derived(this.twin !== null && (this.level || this.twinReading !== null))
  most = $derived<Most[]>(this.reading ? strongest(this.reading, 8) : [])
  quoted = $derived.by<Quoted | null>(() => (this.reading ? mostRead(this.reading, this.book.text) : null))
  /** Who read the marked word: the other way through the map, strongest first. */
  readers = $derived.by<Most[]>(() => {
    if (this.marked === null || !this.map || this.moved) return []
    const column = { index: Uint32Array.from({ length: this.map.rows - 1 }, (_, q) => q), value: new Float64Array(this.map.rows - 1) }
    for (let q = 1; q < this.map.rows; q++) column.value[q - 1] = this.map.at(q, this.marked) ?? 0
    return strongest(column, 5)
  })
  who = $derived.by(() => reader(this.book.data.kind, this.query, this.here.askers.words))
  /** On pages with two sides: which one a sentence is about. */
  when = $derived(this.side === 'before' ? ' before the marks' : '')
  /** How far to trust the view that is shown; null where it was not measured. */
  trust = $derived.by(() => (this.show === 'map' || this.moved || this.side === 'before' ? null : trustOf(this.book.data.trust, this.current.name, this.view === 0)))

  constructor(book: Book) {
    this.book = book
    this.kind = book.data.kind
    this.words = book.text.length
    this.goTo(readPlace(location.hash))
  }

  /** Unpack what the first picture needs, then the rest. */
  async open(): Promise<void> {
    await this.load(this.side, this.view)
    this.heads = await this.book.atlas()
  }

  async openRest(): Promise<void> {
    for (const side of this.book.steered ? (['after', 'before'] as const) : (['after'] as const)) {
      for (let v = 0; v < this.book.sides[side].views.length; v++) await this.load(side, v)
    }
    this.cells = await this.book.cells()
  }

  private async load(side: SideName, view: number): Promise<void> {
    if (this.maps[side][view]) return
    const map = await this.book.sides[side].map(view)
    const next = this.maps[side].slice()
    next[view] = map
    this.maps = { ...this.maps, [side]: next }
  }

  select(query: number | null): void {
    const last = this.here.queries - 1
    if (this.moved && query !== null && query > 0) this.choose(this.lastView)
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
    this.select(Math.max(0, Math.min(this.here.queries - 1, this.query + by)))
  }

  hover(query: number | null): void {
    if (this.locked === null) this.hovered = query
  }

  /** The view to go back to from what moved. */
  private lastView = 0

  choose(view: number): void {
    if (view < 0 || view >= this.here.views.length) return
    if (!this.moved) this.lastView = this.view
    this.view = view
    if (this.moved) this.locked = this.hovered = null
    void this.load(this.side, view)
  }

  /** The words that were kept on the other side, and come back with it. */
  private kept: number | null = null

  /** To the other side, or the named one. The same word at the same place stays chosen; what moved is seen from neither. */
  flip(side: SideName = this.side === 'after' ? 'before' : 'after'): void {
    if (!this.book.steered) return
    if (side === this.side) {
      if (this.moved) this.choose(this.lastView)
      return
    }
    const { name } = this.current
    const [leaving, locked] = [this.here, this.locked]
    const view = this.moved ? leaving.views[this.lastView].name : name
    this.side = side
    this.view = this.lastView = this.here.viewNamed(view)
    const word = (at: Side) => (locked === null ? null : at.askers.words[locked - 1])
    this.select(locked !== null && word(leaving) !== word(this.here) ? this.kept : locked)
    this.kept = locked
    this.choose(this.view)
  }

  chooseNamed(name: string): boolean {
    const view = this.here.views.findIndex((v) => v.name === name)
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
      side: this.side,
      view: this.view === 0 ? null : this.current.name,
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
    if (this.book.steered && this.side !== place.side) {
      this.side = place.side
      this.view = this.lastView = 0
    }
    this.choose(this.here.viewNamed(place.view))
    this.select(this.moved ? null : place.query)
    this.lockedHead = data.atlas && place.head && place.head[0] < data.layers && place.head[1] < data.heads ? place.head : null
    this.show = place.show === 'map' && !data.map ? 'text' : place.show
    this.curve = place.curve
    this.same = place.same
    this.theme = place.theme
    this.zoom = place.zoom
  }
}
