import type { Look } from './look.svelte'
import type { SideName } from './data/side'
import type { Sparse } from './data/sparse'

/** What scripts and tests may ask of an open page: `window.recuerdo`, there once all maps are unpacked. */
export function windowOnto(look: Look) {
  /** The whole read where the page has one, otherwise the current view (queries x text words). */
  const exact = (): Sparse | null => (look.book.data.map ? look.cells : look.map)
  return {
    data: look.book.data,
    /** The exact stored weight; null where it is below the floor. */
    cell: (row: number, col: number): number | null => exact()?.at(row, col) ?? null,
    /** A rectangle [row0, row1) x [col0, col1) of exact weights; 0 where below the floor. */
    tile: (row0: number, row1: number, col0: number, col1: number): number[][] => exact()?.tile(row0, row1, col0, col1) ?? [],
    state: () => ({
      ...look.place(),
      query: look.query,
      locked: look.locked !== null,
      view: look.current.name,
      head: look.head,
      theme: look.shade,
      cell: look.cell,
    }),
    select: (query: number): void => look.select(query),
    view: (name: string): boolean => look.chooseNamed(name),
    /** To the read 'after' or 'before' the marks, or to the other one. */
    flip: (side?: SideName): void => look.flip(side),
  }
}
