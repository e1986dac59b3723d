/** The shape of the data inside a page, as `docs/page-format.md` tells it. */

export type Dtype = 'u8' | 'u16' | 'u32' | 'f32'

export interface Packed {
  dtype: Dtype
  shape: number[]
  data: string
  max?: number
}

export interface PackedSparse {
  rows: number
  cols: number
  start: Packed
  index: Packed
  value: Packed
  floor: number
  signed?: boolean
}

export interface PackedWords {
  words: string[]
  glue: string[]
  sentences?: number[]
  paragraphs?: number[]
  lang?: string
}

export interface PackedView {
  name: string
  label: string
  note: string
  map: PackedSparse
}

export interface PackedAtlas {
  peak: Packed
  index: Packed
  value: Packed
}

export interface Sink {
  word: string
  token: number
  share: number
  why: string
}

export interface PackedMap {
  rows: string[]
  cols: string[] | null
  overview: Packed
  cells: PackedSparse
  label: string
  causal?: boolean
}

/** A person's mark: `words` are half-open ranges of text words. */
export interface Mark {
  words: [number, number][]
  action: 'boost' | 'damp' | 'share' | 'mute'
  label: string
  scope?: string | null
  author?: string | null
  reason?: string | null
  date?: string | null
}

/** The same look without the marks. */
export interface Before {
  answer: PackedWords | null
  views: PackedView[]
}

/** How far steering went: each pair is before, after. */
export interface Guard {
  kl?: number | null
  plausible?: number | null
  fluency?: [number, number] | null
  mass?: [number, number] | null
  warnings?: string[] | null
}

/** 0 is chance, 100 the oracle; null where it could not be measured. */
export interface Score {
  score: number | null
  low: number | null
  high: number | null
  verdict?: string | null
}

export interface Method extends Score {
  name: string
  label: string
  removal: string
  measure: string
}

export interface Trust extends Score {
  note?: string | null
  methods?: Method[] | null
}

export type Kind = 'answer' | 'text' | 'alignment'

export interface PageData {
  version: number
  kind: Kind
  title: string
  question: string | null
  model: string
  tokens: number
  layers: number
  heads: number
  selection: string
  command: string
  text: PackedWords
  answer: PackedWords | null
  views: PackedView[]
  atlas: PackedAtlas | null
  sinks: Sink[]
  map: PackedMap | null
  trust: Trust | null
  marks?: Mark[] | null
  before?: Before | null
  moved?: PackedView | null
  guard?: Guard | null
}
