// The board: tiles in as many columns as fit, one look, one pointer for all. board.py documents its traits.

const GAP = 12; // pixels between tiles
const LOOK = ["opacity", "smooth", "robust", "fade", "colours", "signs", "top", "lock"];
const SHAPES = ["chosen", "box", "painted", "brush", "neighbours"];

class BoardView {
  constructor(model, element) {
    this.model = model;
    this.root = element;
    this.root.classList.add("caap-live", "caap-board");
    this.root.setAttribute("role", "group");
    this.photos = new Photos();
    this.views = new Map();
    this.tiles = [];
    this.pointed = null; // { key, cell, event }: the patch under the mouse or the keyboard
    this.drag = null; // a box or a stroke while the mouse is down
    this.width = 0;
    this.draws = 0;
    this.loads = 0;
    this.tools = buildTools(node("div", "caap-tools", element), model, () => this.tiles.some((tile) => tile.signed));
    this.ruler = node("div", "caap-ruler", element);
    this.tilesElement = node("div", "caap-tiles", element);
    this.tip = node("div", "caap-tip", element);
    this.tip.hidden = true;
    this.said = node("div", "caap-said", element);
    this.said.setAttribute("aria-live", "polite");
    this.grid = { rows: 1, cols: 1 };
    this.listen();
    this.load();
  }

  listen() {
    const { model } = this;
    this.listeners = [
      ["change:photos change:tiles", this.together(() => this.load())],
      [LOOK.map((name) => `change:${name}`).join(" "), this.together(() => this.show())],
      [[...SHAPES, "pinned", "label"].map((name) => `change:${name}`).join(" "), this.together(() => this.redraw())],
      ["change:smallest change:largest", () => this.show()],
      ["change:tools change:modes", () => { this.tools.build(); this.show(); }],
      ["change:mode", () => { this.drag = null; this.tools.update(); this.redraw(); }],
      ["caap:preview", (shown) => this.preview(shown)], // from a head grid next to the board
    ];
    for (const [names, call] of this.listeners) model.on(names, call);
    this.observer = new ResizeObserver(([{ contentRect }]) => {
      if (contentRect.width === this.width && devicePixelRatio === this.ratio) return;
      this.width = contentRect.width;
      this.show();
    });
    this.observer.observe(this.ruler); // it has no height, so drawing does not change its size
    this.root.addEventListener("keydown", (event) => {
      const plain = !(event.ctrlKey || event.metaKey || event.altKey || (event.shiftKey && event.key === "Enter"));
      if (plain) event.stopPropagation(); // JupyterLab would treat letters as commands
    });
  }

  close() {
    this.loads = Infinity;
    this.observer.disconnect();
    for (const [names, call] of this.listeners) this.model.off(names, call);
  }

  /** One call for all changes of one message. */
  together(call) {
    let waits = false;
    return () => {
      if (waits) return;
      waits = true;
      queueMicrotask(() => {
        waits = false;
        if (this.loads !== Infinity) call();
      });
    };
  }

  get(name) {
    return this.model.get(name);
  }

  send(name, value) {
    setTrait(this.model, name, value);
  }

  get look() {
    return Object.fromEntries(LOOK.map((name) => [name, this.get(name)]));
  }

  get brush() {
    return this.get("brush");
  }

  table(name) {
    return bytesOf(this.get("tables")[name]);
  }

  pin(key) {
    const pinned = this.get("pinned");
    this.send("pinned", pinned.includes(key) ? pinned.filter((other) => other !== key) : [...pinned, key]);
  }

  /** What dragging does in a tile: if some tiles are for drawing, the others only choose. */
  mode(tile) {
    return this.tiles.some((other) => other.paint) && !tile.paint ? "choose" : this.get("mode");
  }

  /** Show new tiles; photos that changed are decoded first, and all appear in one frame. */
  async load() {
    const number = ++this.loads;
    const photos = this.photos.update(this.get("photos"));
    if (photos) {
      const known = await photos;
      if (number !== this.loads) return; // newer tiles are being loaded
      this.photos.known = known;
    }
    this.tiles = this.get("tiles");
    const main = this.tiles.find((tile) => tile.paint) ?? this.tiles[0];
    this.grid = main ? { rows: main.rows, cols: main.cols } : { rows: 1, cols: 1 };
    const views = new Map();
    for (const tile of this.tiles) {
      const view = this.views.get(tile.key) ?? this.newView(tile.key);
      views.set(tile.key, view);
      view.update(tile);
    }
    if (this.pointed && !views.has(this.pointed.key)) this.pointed = null;
    const [before, after] = [[...this.views.values()], [...views.values()]];
    if (before.length !== after.length || before.some((view, place) => view !== after[place])) {
      const focused = document.activeElement;
      this.tilesElement.replaceChildren(...after.map((view) => view.element));
      if (this.tilesElement.contains(focused)) focused.focus({ preventScroll: true });
    }
    this.views = views;
    this.show();
  }

  /** Show other scores in a tile for a while, without the kernel; null restores its own. */
  preview(shown) {
    const view = this.views.get((shown ?? this.previewed)?.key);
    this.previewed = shown;
    const tile = view && this.tiles.find((other) => other.key === view.tile.key);
    if (!tile) return;
    const ends = shown && { robust: shown.limits, full: shown.limits, locked: shown.limits };
    view.update(shown ? { ...tile, ...ends, scores: shown.scores, caption: shown.caption, tips: [] } : tile);
    this.show();
  }

  newView(key) {
    const view = new TileView(this, key);
    answerPointer(view, this);
    return view;
  }

  /** Lay out and draw all tiles; unchanged ones are not drawn again. */
  show() {
    this.tools.update();
    if (!this.width) return; // not on the page yet
    this.ratio = devicePixelRatio;
    const [smallest, largest] = [this.get("smallest"), this.get("largest")];
    const fit = Math.max(Math.floor((this.width + GAP) / (smallest + GAP)), 1);
    const ends = [...this.tiles.keys(), this.tiles.length].filter((place) => this.tiles[place]?.new_row !== false);
    const longest = Math.max(...ends.map((end, row) => end - (ends[row - 1] ?? 0)));
    const lines = Math.ceil(longest / fit) || 1;
    const columns = Math.ceil(longest / lines) || 1; // 5 + 4 rather than 6 + 3
    const width = Math.floor(Math.min((this.width - GAP * (columns - 1)) / columns, largest));
    this.tilesElement.style.gridTemplateColumns = `repeat(${columns}, ${width}px)`;
    for (const view of this.views.values()) view.paint(width, this.ratio);
    this.label();
    this.draws += 1;
    this.root.dataset.shown = String(this.draws); // what is on the screen, for tests and measurements
  }

  /** Redraw the outlines over unchanged pictures. */
  redraw() {
    this.label();
    for (const view of this.views.values()) view.draw();
    this.sayPointed();
  }

  label() {
    const pinned = this.get("pinned");
    this.root.setAttribute("aria-label", this.get("label"));
    for (const { element, pin, canvas, tile } of this.views.values()) {
      const mode = this.mode(tile);
      const isPinned = pinned.includes(tile.key);
      canvas.setAttribute("aria-label", `${tile.caption}. ${HINTS[mode]}`);
      element.dataset.mode = mode;
      element.classList.toggle("caap-pinned", isPinned);
      pin.setAttribute("aria-pressed", String(isPinned));
      pin.title = isPinned ? "Unpin this map" : "Pin this map: it stays while class, photo or settings change";
      pin.setAttribute("aria-label", `${isPinned ? "Unpin" : "Pin"}: ${tile.caption}`);
    }
  }

  /** Outlines on a tile, in its own grid. */
  shapes(tile) {
    const { drag, grid, pointed } = this;
    const drawnIn = tile.paint || !this.tiles.some((other) => other.paint);
    const here = (cell) => moved(cell, grid, tile);
    const from = pointed && this.views.get(pointed.key)?.tile;
    const cell = from ? moved(pointed.cell, from, tile) : null;
    const chosen = this.get("chosen").length ? here(this.get("chosen")) : null;
    const box = drag?.box ?? this.get("box");
    const centre = cell ?? chosen;
    const around = centre && this.mode(tile) === "choose" && tile.rows === grid.rows && tile.cols === grid.cols;
    const offsets = around && this.get("neighbours").length ? [...this.get("neighbours"), [0, 0]] : [];
    const beside = offsets.map(([down, right]) => [centre[0] + down, centre[1] + right]);
    const inside = beside.filter(([row, col]) => row >= 0 && col >= 0 && row < tile.rows && col < tile.cols);
    const painted = drawnIn ? (drag?.painted ?? this.get("painted")) : [];
    return {
      pointed: cell,
      chosen,
      box: box.length ? [...here(box.slice(0, 2)), ...here(box.slice(2))] : null,
      painted: new Set(painted),
      neighbours: new Set(inside.map(([row, col]) => row * tile.cols + col)),
    };
  }

  /** Point at a patch in all tiles; a null key points at nothing, a missing event means the keyboard. */
  point(key, cell, event) {
    this.pointed = key === null ? null : { key, cell, event };
    for (const view of this.views.values()) view.draw();
    this.sayPointed();
  }

  /** Show the tooltip at the pointer: the place, the value, and the tile's text about this patch. */
  sayPointed() {
    const view = this.pointed && this.views.get(this.pointed.key);
    this.tip.hidden = !view;
    if (!view) return;
    const { cell, event } = this.pointed;
    const { tile } = view;
    const words = tile.tips[cell[0] * tile.cols + cell[1]] ?? "";
    const place = `row ${cell[0]}, column ${cell[1]}`;
    const value = tile.full ? view.valueText(cell) : "";
    this.tip.replaceChildren();
    node("div", "caap-tip-place", this.tip, [place, value].filter(Boolean).join(": "));
    if (words) node("div", "", this.tip, words);
    const text = [place, value, words].filter(Boolean).join(", ");
    if (!event && this.said.textContent !== text) this.said.textContent = text;
    const [root, picture] = [this.root.getBoundingClientRect(), view.canvas.getBoundingClientRect()];
    const patch = [picture.width / tile.cols, picture.height / tile.rows];
    const x = (event?.clientX ?? picture.left + (cell[1] + 1) * patch[0]) - root.left;
    const y = (event?.clientY ?? picture.top + (cell[0] + 1) * patch[1]) - root.top;
    const [wide, high] = [this.tip.offsetWidth, this.tip.offsetHeight];
    const left = x + 14 + wide <= root.width ? x + 14 : x - 14 - wide;
    const top = y + 14 + high <= root.height ? y + 14 : y - 14 - high;
    this.tip.style.transform = `translate(${Math.max(Math.round(left), 0)}px, ${Math.max(Math.round(top), 0)}px)`;
  }
}

function render({ model, el }) {
  const view = new BoardView(model, el);
  return () => view.close();
}

export default { render };
