// The twin of utils/painter/painting.py: it makes the same label ids of the same events, which
// tests/test_page.py checks.  A map is { ids, width, height }; ids is a Uint8Array, row by row.

const UNDO_STEPS = 100;
const LARGEST_BRUSH = 256; // pixels across

// Calls mark(index) for the pixels under a round brush, some of them more than once; see
// stroke_mask() in painting.py.
function strokePixels(points, size, { width, height }, mark) {
  if (!(size >= 1 && size <= LARGEST_BRUSH)) {
    throw new Error(`The brush has size ${size}: expected 1 to ${LARGEST_BRUSH} pixels.`);
  }
  // No point is further than sqrt(1/2) from a pixel's centre.
  const radius = Math.max(size / 2, 0.7072);
  const reach = radius * radius;
  const pieces = points.length > 1 ? points.slice(1).map((end, i) => [points[i], end]) : [];
  for (const [[x0, y0], [x1, y1]] of pieces.length ? pieces : [[points[0], points[0]]]) {
    const [dx, dy] = [x1 - x0, y1 - y0];
    const length = dx * dx + dy * dy;
    // Only a rectangle around the piece; one pixel more, for what rounding may do.
    const first = Math.max(0, Math.floor(Math.min(x0, x1) - radius) - 1);
    const last = Math.min(width - 1, Math.ceil(Math.max(x0, x1) + radius) + 1);
    const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius) - 1);
    const bottom = Math.min(height - 1, Math.ceil(Math.max(y0, y1) + radius) + 1);
    for (let row = top; row <= bottom; row++) {
      for (let column = first; column <= last; column++) {
        const [x, y] = [column + 0.5 - x0, row + 0.5 - y0];
        // The place on the piece, 0..1, that is nearest to the pixel's centre.
        const along = Math.min(Math.max((x * dx + y * dy) / (length || 1), 0), 1);
        const [beside, below] = [x - along * dx, y - along * dy];
        if (beside * beside + below * below <= reach) mark(row * width + column);
      }
    }
  }
}

// The pixels of the same class that hang together with the one at a point, across their sides.
function fillPixels({ ids, width, height }, [x, y], mark) {
  if (!(x >= 0 && x < width && y >= 0 && y < height)) {
    throw new Error(`The point (${x}, ${y}) is not in the map of ${width}x${height} pixels.`);
  }
  const start = Math.floor(y) * width + Math.floor(x);
  const seen = new Uint8Array(ids.length);
  const waiting = [start];
  seen[start] = 1;
  while (waiting.length) {
    const index = waiting.pop();
    mark(index);
    const column = index % width;
    const beside = [index - width, index + width];
    if (column > 0) beside.push(index - 1);
    if (column < width - 1) beside.push(index + 1);
    for (const other of beside) {
      if (other >= 0 && other < ids.length && !seen[other] && ids[other] === ids[start]) {
        seen[other] = 1;
        waiting.push(other);
      }
    }
  }
}

// A label map that is painted on, and every map that it was before.
export class Painting {
  #earlier = [];

  // start: the map that is there at first, and that "erase" brings back.
  // idOf: the label id of each class that can be painted, by name.
  constructor(start, idOf) {
    this.start = this.map = start;
    this.idOf = idOf;
  }

  // Does what the mouse did: see paint_events() in widgets.py.
  apply(event) {
    if (event.do === "paint" || event.do === "fill") {
      if (!(event.name in this.idOf)) {
        throw new Error(`There is no class "${event.name}": choose one of the painter's.`);
      }
      const id = this.idOf[event.name];
      this.#change(event, () => id);
    } else if (event.do === "erase") this.#change(event, (index) => this.start.ids[index]);
    else if (event.do === "undo") this.#undo();
    else if (event.do === "start over") this.startOver(this.start);
    else throw new Error(`"${event.do}" is nothing that can be done: expected paint or undo, say.`);
  }

  startOver(start) {
    this.#step(start, start);
  }

  #change(event, idAt) {
    const ids = this.map.ids.slice();
    const mark = (index) => (ids[index] = idAt(index));
    if (event.do === "fill") fillPixels(this.map, event.point, mark);
    else strokePixels(event.points, event.size, this.map, mark);
    this.#step({ ...this.map, ids }, this.start, event.continues);
  }

  #undo() {
    if (!this.#earlier.length) throw new Error("There is nothing left to undo.");
    ({ map: this.map, start: this.start } = this.#earlier.pop());
  }

  #step(map, start, continues = false) {
    if (!(continues && this.#earlier.length)) {
      this.#earlier.push({ map: this.map, start: this.start });
      if (this.#earlier.length > UNDO_STEPS) this.#earlier.shift();
    }
    [this.map, this.start] = [map, start];
  }
}

// A map at another size, nearest neighbour: see resize_map() in utils/images.py.
export function resized({ ids, width, height }, [newWidth, newHeight]) {
  // Added up as there, whose rounding decides where a centre lies between two pixels.
  function underCentres(length, newLength) {
    const step = length / newLength;
    let at = step / 2;
    return Array.from({ length: newLength }, (_, i) => Math.floor(i ? (at += step) : at));
  }
  const [columns, rows] = [underCentres(width, newWidth), underCentres(height, newHeight)];
  const result = new Uint8Array(newWidth * newHeight);
  rows.forEach((row, y) =>
    columns.forEach((column, x) => (result[y * newWidth + x] = ids[row * width + column])),
  );
  return { ids: result, width: newWidth, height: newHeight };
}
