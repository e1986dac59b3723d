import type { PageData } from '../contract'
import { Atlas } from './atlas'
import { Passage } from './passage'
import { Sparse } from './sparse'

/** A page opened: the data with its words, and the maps that are unpacked when they are wanted. */
export class Book {
  readonly text: Passage
  readonly answer: Passage | null
  /** Whoever can be chosen as a query: the words of the answer, or of the text itself. */
  readonly askers: Passage
  private readonly maps: (Promise<Sparse> | undefined)[] = []
  private cellsOnce: Promise<Sparse> | undefined

  constructor(readonly data: PageData) {
    if (data.version !== 1) throw new Error(`this page holds data of version ${data.version}; its viewer reads version 1`)
    if (data.views.length === 0) throw new Error('this page holds no view')
    this.text = new Passage(data.text)
    this.answer = data.answer && data.kind !== 'text' ? new Passage(data.answer) : null
    this.askers = this.answer ?? this.text
  }

  get queries(): number {
    return this.askers.length + 1
  }

  map(view: number): Promise<Sparse> {
    return (this.maps[view] ??= Sparse.unpack(this.data.views[view].map))
  }

  cells(): Promise<Sparse> | null {
    return this.data.map ? (this.cellsOnce ??= Sparse.unpack(this.data.map.cells)) : null
  }

  async atlas(): Promise<Atlas | null> {
    return this.data.atlas ? Atlas.unpack(this.data.atlas) : null
  }
}

/** The data that Python put into the page, or null where nothing was put. */
export function dataInside(page: Document): PageData | null {
  return JSON.parse(page.getElementById('recuerdo-data')?.textContent || 'null') as PageData | null
}
