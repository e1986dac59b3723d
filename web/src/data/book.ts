import type { PageData } from '../contract'
import { Atlas } from './atlas'
import { runsOf, type Run } from './marks'
import { Passage } from './passage'
import { Side, type SideName } from './side'
import { Sparse } from './sparse'

/** A page opened: the data with its words, and the maps that are unpacked when they are wanted. */
export class Book {
  readonly text: Passage
  readonly sides: Record<SideName, Side>
  /** There is a read without the marks to compare with. */
  readonly steered: boolean
  /** The marked words, in runs that are marked alike. */
  readonly runs: Run[]
  private cellsOnce: Promise<Sparse> | undefined

  constructor(readonly data: PageData) {
    if (data.version !== 1) throw new Error(`this page holds data of version ${data.version}; its viewer reads version 1`)
    if (data.views.length === 0) throw new Error('this page holds no view')
    this.text = new Passage(data.text)
    const { before, moved } = data
    const extra = moved ? [moved] : []
    const after = new Side(data.kind, this.text, data.answer, [...data.views, ...extra])
    this.steered = !!before?.views.length
    this.sides = { after, before: before ? new Side(data.kind, this.text, before.answer, [...before.views, ...extra]) : after }
    this.runs = runsOf(data.marks ?? [], this.text.length)
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
