/** Where the eye is over a large matrix: the column and row at the top left of the plot, and how wide a column is. */

export interface Plot {
  width: number
  height: number
  rows: number
  cols: number
}

export interface Camera {
  /** Column at the left edge and row at the top edge, fractional. */
  x: number
  y: number
  /** Pixels per column. A row is `aspect` times as tall. */
  k: number
}

export const widest = 56
/** Cells of this many pixels can be told apart and have room for labels. */
export const cellSize = 18

/** Square cells, except where a matrix is so long or so flat that one side would be a thread. */
export function aspectOf({ width, height, rows, cols }: Plot): number {
  const filling = height / rows / (width / cols)
  if (filling > 1.6) return Math.min(2.5, filling)
  return filling < 0.6 ? Math.max(0.4, filling) : 1
}

/** The scale at which the whole matrix is in view. */
export function fitScale(plot: Plot): number {
  return Math.min(plot.width / plot.cols, plot.height / plot.rows / aspectOf(plot), widest)
}

export function clamp(camera: Camera, plot: Plot): Camera {
  const aspect = aspectOf(plot)
  const k = Math.max(fitScale(plot), Math.min(Math.max(widest, fitScale(plot)), camera.k))
  const across = plot.width / k
  const down = plot.height / (k * aspect)
  const within = (at: number, seen: number, all: number) => (seen >= all ? 0 : Math.max(0, Math.min(all - seen, at)))
  return { k, x: within(camera.x, across, plot.cols), y: within(camera.y, down, plot.rows) }
}

export function fit(plot: Plot): Camera {
  return clamp({ x: 0, y: 0, k: 0 }, plot)
}

/** Zoom by a factor around a point of the plot (in pixels). */
export function zoomAt(camera: Camera, plot: Plot, factor: number, px: number, py: number): Camera {
  const aspect = aspectOf(plot)
  const k = Math.max(fitScale(plot), Math.min(Math.max(widest, fitScale(plot)), camera.k * factor))
  return clamp({ k, x: camera.x + px / camera.k - px / k, y: camera.y + py / (camera.k * aspect) - py / (k * aspect) }, plot)
}

export function panBy(camera: Camera, plot: Plot, dx: number, dy: number): Camera {
  return clamp({ k: camera.k, x: camera.x - dx / camera.k, y: camera.y - dy / (camera.k * aspectOf(plot)) }, plot)
}

/** Look at a cell in the middle of the plot, with columns `k` pixels wide. */
export function lookAt(plot: Plot, row: number, col: number, k: number): Camera {
  const held = Math.max(fitScale(plot), Math.min(Math.max(widest, fitScale(plot)), k))
  return clamp({ k: held, x: col + 0.5 - plot.width / held / 2, y: row + 0.5 - plot.height / (held * aspectOf(plot)) / 2 }, plot)
}

/** Move just far enough that a cell is in view. */
export function follow(camera: Camera, plot: Plot, row: number, col: number): Camera {
  const aspect = aspectOf(plot)
  const [across, down] = [plot.width / camera.k, plot.height / (camera.k * aspect)]
  const held = (at: number, seen: number, one: number) => (one < at ? one : one + 1 > at + seen ? one + 1 - seen : at)
  return clamp({ k: camera.k, x: held(camera.x, across, col), y: held(camera.y, down, row) }, plot)
}

/** The cell under a point of the plot, or null outside the matrix. */
export function cellAt(camera: Camera, plot: Plot, px: number, py: number): [number, number] | null {
  const col = Math.floor(camera.x + px / camera.k)
  const row = Math.floor(camera.y + py / (camera.k * aspectOf(plot)))
  return px >= 0 && py >= 0 && row >= 0 && col >= 0 && row < plot.rows && col < plot.cols ? [row, col] : null
}

/** What the address keeps: the cell in the middle and how many columns are seen; null at the overview. */
export function placeOf(camera: Camera, plot: Plot): [number, number, number] | null {
  if (camera.k <= fitScale(plot) * 1.001) return null
  return [camera.y + plot.height / (camera.k * aspectOf(plot)) / 2, camera.x + plot.width / camera.k / 2, plot.width / camera.k]
}

export function fromPlace(place: [number, number, number] | null, plot: Plot): Camera {
  if (place === null || place[2] <= 0) return fit(plot)
  return lookAt(plot, place[0] - 0.5, place[1] - 0.5, plot.width / place[2])
}
