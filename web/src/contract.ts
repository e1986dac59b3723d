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

export interface Trust {
  score: number
  low: number
  high: number
  note: string
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
}
