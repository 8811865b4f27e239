// Small maps of whole numbers as one picture, edge to edge: each map's colours by its own scale, its row's, or one for all.

// Numbers of one byte, or of two, the lower one first.
function numbersOf(view, twoBytes) {
  const given = bytesOf(view);
  if (!twoBytes) return given;
  return Uint16Array.from({ length: given.length / 2 }, (_, place) => given[2 * place] + 256 * given[2 * place + 1]);
}

// Values at the ends of the colours of a map, and at the ends of its numbers; `last` is the number of the latter.
function mapScales({ layers, heads, lows, highs, ends: upper, scale }) {
  const count = layers * heads;
  const last = highs ? 65535 : 255;
  const from = lows ?? new Float32Array(count);
  const to = highs ?? new Float32Array(count).fill(1); // the range of the table
  const tops = upper ?? to;
  const known = (place) => Number.isFinite(to[place]);
  const over = (places) => {
    const seen = places.filter(known);
    if (!seen.length) return [0, 1];
    return [Math.min(...seen.map((place) => from[place])), Math.max(...seen.map((place) => tops[place]))];
  };
  const all = [...Array(count).keys()];
  const whole = scale === "all heads" ? over(all) : null;
  const ends = all.map((place) => {
    if (whole) return whole;
    if (scale === "each head") return [from[place], tops[place]];
    const first = Math.floor(place / heads) * heads;
    return over(all.slice(first, first + heads));
  });
  const step = (place) => (to[place] - from[place]) / last;
  return { from, step, ends, known };
}

// One pixel per patch; maps that are not known yet stay clear.
function paintSheet({ layers, heads, rows, cols, tiles, colours, scales }) {
  const sheet = document.createElement("canvas");
  [sheet.width, sheet.height] = [heads * cols, layers * rows];
  const image = new ImageData(sheet.width, sheet.height);
  const size = rows * cols;
  for (let place = 0; place < layers * heads; place++) {
    if (!scales.known(place)) continue;
    const [low, high] = scales.ends[place];
    const step = scales.step(place);
    const [start, slope] = high > low ? [scales.from[place] - low, 255 / (high - low)] : [0, 0];
    const corner = Math.floor(place / heads) * rows * sheet.width + (place % heads) * cols;
    for (let patch = 0; patch < size; patch++) {
      const at = Math.round((start + tiles[place * size + patch] * step) * slope);
      const colour = 4 * Math.min(Math.max(at, 0), 255);
      const to = 4 * (corner + Math.floor(patch / cols) * sheet.width + (patch % cols));
      for (let channel = 0; channel < 3; channel++) image.data[to + channel] = colours[colour + channel];
      image.data[to + 3] = 255;
    }
  }
  sheet.getContext("2d").putImageData(image, 0, 0);
  return sheet;
}

// 256 colours of four bytes, of three bytes each or of four.
function fourBytes(table) {
  const given = bytesOf(table);
  const width = given.length / 256;
  const colours = new Uint8Array(1024);
  for (let place = 0; place < 1024; place++) colours[place] = given[Math.floor(place / 4) * width + Math.min(place % 4, 2)];
  return colours;
}

function barGradient(colours) {
  const stops = [];
  for (let place = 0; place < 256; place += 15) stops.push(`rgb(${colours.slice(4 * place, 4 * place + 3).join(",")})`);
  return `linear-gradient(to right, ${stops.join(", ")})`;
}
