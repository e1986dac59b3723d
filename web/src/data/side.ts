import type { Kind, PackedView, PackedWords } from '../contract'
import { Passage } from './passage'
import { Sparse } from './sparse'

export type SideName = 'after' | 'before'

/** One side of a look: the answer with its views, as it is or as it was before the marks. */
export class Side {
  readonly answer: Passage | null
  /** Whoever can be chosen as a query: the words of the answer, or of the text itself. */
  readonly askers: Passage
  private readonly maps: (Promise<Sparse> | undefined)[] = []

  constructor(
    kind: Kind,
    text: Passage,
    answer: PackedWords | null,
    readonly views: PackedView[],
  ) {
    this.answer = answer && kind !== 'text' ? new Passage(answer) : null
    this.askers = this.answer ?? text
  }

  get queries(): number {
    return this.askers.length + 1
  }

  map(view: number): Promise<Sparse> {
    return (this.maps[view] ??= Sparse.unpack(this.views[view].map))
  }

  /** The place of a view by its name, the default one where it has none of that name. */
  viewNamed(name: string | null): number {
    return Math.max(0, this.views.findIndex((v) => v.name === name))
  }
}
