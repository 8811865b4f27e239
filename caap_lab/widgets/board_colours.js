// From raw scores to pixels. The tables of colours and the ends of the colours are made in Python; here they are only
// looked up, so that every look is there at once.

const CLEAR = 0;

function bytesOf(view) {
  return view ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array(0);
}

function sameBytes(a, b) {
  return a.length === b.length && a.every((value, place) => value === b[place]);
}

function scoresOf(view) {
  const bytes = bytesOf(view);
  const reader = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.length / 4 }, (_, place) => reader.getFloat32(4 * place, true));
}

/** Name of the table of colours and opacities of a map; where signed maps fade, their colours lack that of 0. */
function tableName(tile, { colours, fade }) {
  if (!tile.signed) return colours;
  return fade ? `${colours} signed` : `${colours} opaque signed`;
}

/** The scores at the two ends of a map's colours, or null where no score is known. */
function endsOf(tile, tiles, look) {
  const range = look.robust ? "robust" : "full";
  if (!tile[range]) return null;
  if (!look.lock) return tile[range];
  if (tile.locked) return tile.locked[range] ?? tile.locked;
  const alike = tiles.filter((other) => other[range] && other.unit === tile.unit && other.signed === tile.signed);
  return [Math.min(...alike.map((other) => other[range][0])), Math.max(...alike.map((other) => other[range][1]))];
}

/** Place of a score in a table of 256 colours, as matplotlib has it. */
function placeOf(score, [low, high]) {
  return Math.min(Math.max(Math.floor((256 * (score - low)) / (high - low || 1)), 0), 255);
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

/** A pixel's two neighbours among `cells` centres and how far it lies between them; pixel centres are aligned. */
function between(place, count, cells) {
  const exact = Math.min(Math.max(((place + 0.5) * cells) / count - 0.5, 0), cells - 1);
  const before = Math.floor(exact);
  return [before, Math.min(before + 1, cells - 1), exact - before];
}

/** The scores at another size, as AttributionMap.upsample computes them. */
function interpolated(scores, rows, cols, height, width) {
  const found = new Float32Array(height * width);
  const across = Array.from({ length: width }, (_, x) => between(x, width, cols));
  for (let y = 0; y < height; y += 1) {
    const [above, below, down] = between(y, height, rows);
    for (let x = 0; x < width; x += 1) {
      const [left, right, along] = across[x];
      const upper = scores[above * cols + left] * (1 - along) + scores[above * cols + right] * along;
      const lower = scores[below * cols + left] * (1 - along) + scores[below * cols + right] * along;
      found[y * width + x] = upper * (1 - down) + lower * down;
    }
  }
  return found;
}

function newCanvas(width, height) {
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [Math.max(width, 1), Math.max(height, 1)];
  return canvas;
}

/** A map as a canvas of its own: one pixel per patch, or `height` x `width` interpolated ones. */
function mapCanvas(tile, scores, ends, table, look, height, width) {
  const size = look.smooth ? [height, width] : [tile.rows, tile.cols];
  const values = look.smooth ? interpolated(scores, tile.rows, tile.cols, ...size) : scores;
  const colours = pixelTable(table, look.fade);
  const canvas = newCanvas(size[1], size[0]);
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  const pixels = new Uint32Array(image.data.buffer);
  for (let place = 0; place < pixels.length; place += 1) {
    pixels[place] = isShown(values[place], tile, look.signs) ? colours[placeOf(values[place], ends)] : CLEAR;
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

/** A photo without its colours, so that colours belong to what is laid over it; `grey` of Python. */
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

  /** Take over the photos of a board; returns a promise where any has to be decoded, else nothing. */
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
