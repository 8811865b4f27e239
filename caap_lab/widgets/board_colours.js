// From raw scores to pixels. The tables of colours and the ends of the colours are computed in Python and only
// looked up here, so that every look is available immediately.

const CLEAR = 0;

function sameBytes(a, b) {
  return a.length === b.length && a.every((value, place) => value === b[place]);
}

/** Name of a map's table of colours and opacities; for signed maps that fade, the table has no colour for 0. */
function tableName(tile, { colours, fade }) {
  if (!tile.signed) return colours;
  return fade ? `${colours} signed` : `${colours} opaque signed`;
}

/** The scores at the two ends of a map's colours, or null if no score is known. */
function endsOf(tile, tiles, look) {
  const range = look.robust ? "robust" : "full";
  if (!tile[range]) return null;
  if (!look.lock) return tile[range];
  if (tile.locked) return tile.locked[range] ?? tile.locked;
  const alike = tiles.filter((other) => other[range] && other.unit === tile.unit && other.signed === tile.signed);
  return [Math.min(...alike.map((other) => other[range][0])), Math.max(...alike.map((other) => other[range][1]))];
}

/** Index of a score in a table of 256 colours, as in matplotlib; `span` is the range of all colours. */
function placeOf(score, low, span) {
  return Math.min(Math.max(Math.floor(256 * ((score - low) / span)), 0), 255);
}

/** One number per colour of a table, as the four bytes of a pixel. */
function pixelTable(bytes, fade) {
  const table = new Uint8ClampedArray(bytes);
  if (!fade) for (let place = 3; place < table.length; place += 4) table[place] = 255;
  return new Uint32Array(table.buffer);
}

function isShown(score, tile, signs) {
  if (Number.isNaN(score)) return false; // not known yet
  if (!tile.signed || signs === "all") return true;
  return signs === "positive" ? score > tile.middle : score < tile.middle;
}

/** The two neighbours of each of `count` pixels among `cells` centres, and its position between them. */
function between(count, cells) {
  const [before, after, along] = [new Int32Array(count), new Int32Array(count), new Float64Array(count)];
  for (let place = 0; place < count; place += 1) {
    const exact = Math.min(Math.max(((place + 0.5) * cells) / count - 0.5, 0), cells - 1); // pixel centres are aligned
    before[place] = Math.floor(exact);
    after[place] = Math.min(before[place] + 1, cells - 1);
    along[place] = exact - before[place];
  }
  return [before, after, along];
}

/** The scores at another size, as AttributionMap.upsample computes them. */
function interpolated(scores, rows, cols, height, width) {
  const found = new Float64Array(height * width);
  const [above, below, down] = between(height, rows);
  const [left, right, along] = between(width, cols);
  const line = new Float64Array(cols);
  for (let y = 0; y < height; y += 1) {
    const [upper, lower, share] = [above[y] * cols, below[y] * cols, down[y]];
    for (let col = 0; col < cols; col += 1) line[col] = scores[upper + col] * (1 - share) + scores[lower + col] * share;
    for (let x = 0; x < width; x += 1) {
      found[y * width + x] = line[left[x]] * (1 - along[x]) + line[right[x]] * along[x];
    }
  }
  return found;
}

function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.max(width, 1), Math.max(height, 1)];
  return canvas;
}

/** A map as a separate canvas: one pixel per patch, or `height` x `width` interpolated ones. */
function mapCanvas(tile, scores, ends, table, look, height, width) {
  const size = look.smooth ? [height, width] : [tile.rows, tile.cols];
  const values = look.smooth ? interpolated(scores, tile.rows, tile.cols, ...size) : scores;
  const colours = pixelTable(table, look.fade);
  const canvas = newCanvas(size[1], size[0]);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  const [low, span] = [ends[0], ends[1] - ends[0] || 1];
  for (let place = 0; place < pixels.length; place += 1) {
    pixels[place] = isShown(values[place], tile, look.signs) ? colours[placeOf(values[place], low, span)] : CLEAR;
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** One colour per patch, given as red, green, blue and opacity. */
function patchCanvas(tile) {
  const canvas = newCanvas(tile.cols, tile.rows);
  const image = canvas.getContext("2d").createImageData(canvas.width, canvas.height);
  image.data.set(bytesOf(tile.rgba));
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** A photo in grey, so that colours belong to the map over it; the same as `grey` in Python. */
function greyCanvas(photo) {
  const canvas = newCanvas(photo.width, photo.height);
  const context = canvas.getContext("2d");
  context.drawImage(photo, 0, 0);
  const image = context.getImageData(0, 0, canvas.width, canvas.height);
  for (let place = 0; place < image.data.length; place += 4) {
    const [red, green, blue] = image.data.subarray(place, place + 3);
    image.data.fill(Math.round(0.299 * red + 0.587 * green + 0.114 * blue), place, place + 3);
  }
  context.putImageData(image, 0, 0);
  return canvas;
}

/** Photos by name, each decoded once for as long as its bytes stay the same. */
class Photos {
  constructor() {
    this.known = new Map();
  }

  /** Set the photos of a board; returns a promise if any has to be decoded, otherwise nothing. */
  update(views) {
    const before = this.known;
    const after = new Map();
    const waiting = [];
    for (const [name, view] of Object.entries(views)) {
      const bytes = bytesOf(view);
      const old = before.get(name);
      if (old && sameBytes(old.bytes, bytes)) after.set(name, old);
      else waiting.push(this.decoded(bytes).then((photo) => after.set(name, photo)));
    }
    if (waiting.length) return Promise.all(waiting).then(() => after);
    this.known = after;
    return null;
  }

  async decoded(bytes) {
    try {
      const image = await createImageBitmap(new Blob([bytes], { type: "image/png" }));
      return { bytes, image, grey: greyCanvas(image) };
    } catch {
      return { bytes, image: null, grey: null }; // not an image: the tile stays empty
    }
  }

  get(name) {
    return this.known.get(name) ?? { bytes: null, image: null, grey: null };
  }
}
