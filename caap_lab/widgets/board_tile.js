// One tile: a caption, the canvas with a photo and the map over it, the value at the pointer, and the colour bar.

const DRAWN_FROM = ["kind", "photo", "rows", "cols", "signed", "middle", "unit"];
const PIN = "M6 1h4v1l-1 1v4l3 2v1H8.6v5h-1.2v-5H4v-1l3-2V3L6 2z";

function icon(path, size = 16) {
  const drawn = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  drawn.setAttribute("viewBox", `0 0 ${size} ${size}`);
  drawn.setAttribute("aria-hidden", "true");
  const line = document.createElementNS("http://www.w3.org/2000/svg", "path");
  line.setAttribute("d", path);
  drawn.append(line);
  return drawn;
}

class TileView {
  /** `board` gives `look`, `tiles`, `photos`, `table(tile)`, `shapes(tile)`, and takes `pin(key)`. */
  constructor(board, key) {
    this.board = board;
    this.element = node("div", "caap-tile");
    this.element.dataset.key = key;
    const heading = node("div", "caap-heading", this.element);
    this.caption = node("div", "caap-caption", heading);
    this.pin = node("button", "caap-pin", heading);
    this.pin.append(icon(PIN));
    this.pin.addEventListener("click", () => board.pin(key));
    const picture = node("div", "caap-canvas", this.element);
    this.canvas = node("canvas", "", picture);
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.waiting = node("div", "caap-waiting", picture, "computing");
    this.value = node("div", "caap-value", this.element);
    this.bar = new ColourBar(this.element);
    this.version = 0; // version of the data from which the base is drawn
    this.drawn = "";
  }

  /** Set a tile's content; scores are decoded again only if they changed. */
  update(tile) {
    const old = this.tile;
    this.tile = tile;
    const same = (name) => old && sameBytes(bytesOf(old[name]), bytesOf(tile[name]));
    if (!same("scores") || old.kind !== tile.kind) {
      this.scores = floatsOf(tile.scores);
      this.order = null;
      const known = this.scores.filter((score) => !Number.isNaN(score));
      this.known = [known.reduce((a, b) => Math.min(a, b), Infinity), known.reduce((a, b) => Math.max(a, b), -Infinity)];
      this.version += 1;
    }
    if (!same("rgba") || DRAWN_FROM.some((name) => old[name] !== tile[name])) this.version += 1;
    const { caption, details, pin, kind } = tile;
    this.caption.textContent = caption;
    this.caption.title = [caption, details].filter(Boolean).join("\n");
    this.pin.hidden = !pin;
    this.element.style.gridColumnStart = tile.new_row ? "1" : "";
    this.element.dataset.state = kind === "photo" ? "photo" : tile.full ? "map" : "computing";
    this.waiting.hidden = this.element.dataset.state !== "computing";
  }

  /** The highest patches in order, sorted on first use. */
  get ranks() {
    if (!this.order) {
      this.order = ranked(this.scores);
      this.places = new Map(this.order.map((cell, place) => [cell, place + 1]));
    }
    return this.order;
  }

  /** Draw the photo and the map over it, if they changed; then the outlines. */
  paint(width, ratio) {
    const { tile, board } = this;
    const { look } = board;
    const photo = board.photos.get(tile.photo);
    const share = photo.image ? photo.image.height / photo.image.width : tile.rows / tile.cols;
    const height = Math.round(width * share);
    const ends = endsOf(tile, board.tiles, look);
    const name = tableName(tile, look);
    const { opacity, smooth, fade, signs } = look;
    const wanted = JSON.stringify([this.version, width, height, ratio, ends, name, opacity, smooth, fade, signs]);
    if (wanted !== this.drawn || photo !== this.photo) {
      [this.drawn, this.photo] = [wanted, photo];
      [this.canvas.style.width, this.canvas.style.height] = [`${width}px`, `${height}px`];
      const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
      if (this.canvas.width !== wide || this.canvas.height !== high) {
        [this.canvas.width, this.canvas.height] = [wide, high];
        this.base = newCanvas(wide, high);
      }
      this.paintBase(photo, ends, board.table(name), [height, width]);
      if (tile.kind === "map") this.bar.draw(tile, ends, this.known, board.table(name), look, width);
      this.bar.element.hidden = !ends;
    }
    this.draw();
  }

  paintBase(photo, ends, table, size) {
    const { tile, base, board } = this;
    const context = base.getContext("2d");
    context.clearRect(0, 0, base.width, base.height);
    const ground = tile.kind === "map" ? photo.grey : photo.image;
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    if (ground) context.drawImage(ground, 0, 0, base.width, base.height);
    if (ends) {
      context.globalAlpha = board.look.opacity;
      context.imageSmoothingEnabled = board.look.smooth; // otherwise a patch has one score and so one colour
      context.drawImage(mapCanvas(tile, this.scores, ends, table, board.look, ...size), 0, 0, base.width, base.height);
      context.globalAlpha = 1;
    } else if (bytesOf(tile.rgba).length) {
      context.imageSmoothingEnabled = false;
      context.drawImage(patchCanvas(tile), 0, 0, base.width, base.height);
    }
  }

  /** Copy the picture onto the screen, with the current outlines. */
  draw() {
    const { tile, board, canvas } = this;
    if (!this.base) return;
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.drawImage(this.base, 0, 0);
    const ratio = canvas.width / (parseFloat(canvas.style.width) || 1);
    const shapes = board.shapes(tile);
    if (shapes.painted.size) {
      const { rows, cols } = board.grid;
      const [high, wide] = [canvas.height / rows, canvas.width / cols];
      context.fillStyle = `${board.brush}8c`; // a little more than half opaque
      for (const cell of shapes.painted) {
        context.fillRect((cell % cols) * wide, Math.floor(cell / cols) * high, wide, high);
      }
    }
    if (board.look.top && tile.full) {
      contour(context, new Set(this.ranks.slice(0, board.look.top)), tile, WHITE, 2 * ratio);
    }
    if (shapes.neighbours.size) contour(context, shapes.neighbours, tile, NEIGHBOUR, 2 * ratio);
    if (shapes.box) frame(context, shapes.box, tile, BOX, 2 * ratio);
    if (shapes.pointed) {
      frame(context, [...shapes.pointed, ...shapes.pointed], tile, WHITE, ratio, [4 * ratio, 3 * ratio]);
    }
    if (shapes.chosen) frame(context, [...shapes.chosen, ...shapes.chosen], tile, CHOSEN, 2 * ratio);
    this.say(shapes.pointed ?? shapes.chosen);
  }

  /** Write the value and the rank of a patch, or nothing. */
  say(cell) {
    const place = cell ? cell[0] * this.tile.cols + cell[1] : -1;
    const text = cell ? this.valueText(cell) : "";
    if (this.value.textContent !== text) this.value.textContent = text;
    this.bar.mark(cell && this.tile.kind === "map" ? this.scores[place] : NaN);
  }

  valueText([row, col]) {
    if (this.tile.kind === "photo") return `row ${row}, column ${col}`;
    if (!this.tile.full) return "";
    const place = row * this.tile.cols + col;
    const { ranks, places, scores } = this;
    const text = numberText(scores[place]);
    return places.has(place) ? `${text}, rank ${places.get(place)} of ${ranks.length}` : text;
  }
}
