// Small maps of all heads on one canvas that shows the visible part of its frame. The map pointed at is shown large on
// the board next to it, without asking the kernel. Numbers of rows and columns are text of the page.

const ZOOM = 1.3;
const LEAST = 480; // smallest width in pixels, if there is space

function render({ model, el }) {
  const parts = frameOf(el);
  const { canvas, frame } = parts;
  let layout = null;
  let sheet = null; // all maps edge to edge, one pixel per patch
  let tiles = null; // numbers of all maps
  let scales = null;
  let colours = null;
  let board = null; // the model of the board next to it, once it exists
  let pointed = null; // the slot under the mouse
  let zoom = 1;
  let drawn = 0;
  let preview = false;

  const get = (name) => model.get(name);
  const floats = (name) => (get(name)?.byteLength ? floatsOf(get(name)) : null);
  const place = ([layer, head]) => (layer < 0 ? -1 : layer * get("heads") + head);
  const slotOf = (chosen) => layout.slots.indexOf(place(chosen));
  const placeOf = (slot) => [Math.floor(layout.slots[slot] / get("heads")), layout.slots[slot] % get("heads")];

  function table() {
    const name = board?.get("colours");
    return (name && board.get("tables")[name]) || get("table");
  }

  function colour() {
    const [layers, heads, rows, cols] = ["layers", "heads", "rows", "cols"].map(get);
    const highs = floats("highs");
    tiles = numbersOf(get("tiles"), highs);
    sheet = scales = null;
    colours = fourBytes(table());
    if (tiles.length !== layers * heads * rows * cols || !colours.length) return;
    const ends = board?.get("robust") ? floats("robust_highs") : null;
    const scale = highs ? get("scale") : "each head";
    scales = mapScales({ layers, heads, lows: floats("lows"), highs, ends, scale });
    sheet = paintSheet({ layers, heads, rows, cols, tiles, colours, scales });
  }

  function arrange() {
    const [layers, heads] = [get("layers"), get("heads")];
    const slots = get("order").length ? get("order") : [...Array(layers * heads).keys()];
    const across = get("across") || heads;
    layout = new Layout({ slots, across, split: get("split"), rows: get("rows"), cols: get("cols") });
  }

  function lay() {
    const side = parts.rows.parentNode.offsetWidth;
    el.style.maxWidth = `${Math.max(side + layout.natural(get("height")), LEAST)}px`; // the element next to it gets the rest
    const widest = get("width") || el.clientWidth;
    const width = Math.max(Math.min(widest, el.clientWidth || widest) - side, 60);
    zoom = layout.fit(width, get("height"), zoom);
    const [wide, tall] = layout.extent;
    const whole = zoom === 1;
    [parts.extent.style.width, parts.extent.style.height] = [`${wide}px`, `${tall}px`];
    frame.style.width = `${whole ? wide : width}px`;
    frame.style.height = whole ? `${tall}px` : `${Math.min(tall, get("height"))}px`;
    const few = layout.most > 1.2 && get("zooms");
    parts.zooms.hidden = !few;
    parts.buttons[0].disabled = parts.buttons[1].disabled = whole;
    parts.buttons[2].disabled = zoom >= layout.most - 1e-6;
    parts.named.hidden = !get("highs")?.byteLength || !get("unit");
    const labels = (names, count, edge, size, along, room) => {
      const step = Math.ceil(room / (size + GAP));
      return Array.from({ length: count }, (_, at) => {
        const node = document.createElement("span");
        const text = names[at] ?? at;
        const kept = at % step === 0 || !/^\d*$/.test(text);
        node.textContent = kept ? text : "";
        node.style[along] = `${edge(at) + size / 2}px`;
        return node;
      });
    };
    const columns = labels(get("columns"), layout.across, (at) => layout.left(at), layout.size[0], "left", 18);
    const rows = labels(get("names"), layout.down, (at) => layout.top(at), layout.size[1], "top", 12);
    parts.columns.replaceChildren(...columns);
    parts.rows.replaceChildren(...rows);
  }

  function outline(context, slot, colour, thick) {
    const [left, top] = layout.corner(slot);
    for (const [style, width] of [["#ffffff", thick + 2], [colour, thick]]) { // a rim, visible on any background
      [context.strokeStyle, context.lineWidth] = [style, width];
      context.strokeRect(left, top, ...layout.size);
    }
  }

  function drawSlot(context, slot) {
    const [rows, cols, query] = ["rows", "cols", "query"].map(get);
    const [layer, head] = placeOf(slot);
    const [left, top] = layout.corner(slot);
    const [width, height] = layout.size;
    if (!scales.known(layout.slots[slot])) {
      [context.strokeStyle, context.lineWidth] = ["#8888", 1];
      context.strokeRect(left + 0.5, top + 0.5, width - 1, height - 1);
      return;
    }
    context.drawImage(sheet, head * cols, layer * rows, cols, rows, left, top, width, height);
    if (query.length && !get("unasked").includes(layer)) {
      [context.lineWidth, context.strokeStyle] = [1, "#d55e00"];
      const patch = [width / cols, height / rows];
      const [x, y] = [left + query[1] * patch[0], top + query[0] * patch[1]];
      context.strokeRect(x, y, Math.max(patch[0], 3), Math.max(patch[1], 3));
    }
    const mark = get("marks")[layout.slots[slot]];
    if (mark && width > 30) {
      context.font = "10px sans-serif";
      [context.lineWidth, context.strokeStyle, context.fillStyle] = [3, "#000c", "#ffffff"];
      context.strokeText(mark, left + 3, top + 11);
      context.fillText(mark, left + 3, top + 11);
    }
  }

  function draw() {
    const scale = window.devicePixelRatio || 1;
    const seen = [frame.clientWidth, frame.clientHeight];
    const size = seen.map((pixels) => Math.max(Math.round(pixels * scale), 1));
    if (canvas.width !== size[0] || canvas.height !== size[1]) {
      [canvas.width, canvas.height] = size;
      [canvas.style.width, canvas.style.height] = seen.map((pixels) => `${pixels}px`);
    }
    const context = canvas.getContext("2d");
    const [x, y] = [frame.scrollLeft, frame.scrollTop];
    context.setTransform(scale, 0, 0, scale, -x * scale, -y * scale);
    context.clearRect(x, y, ...seen);
    context.imageSmoothingEnabled = layout.size[0] * scale < get("cols"); // each patch keeps its colour if it has a pixel
    context.imageSmoothingQuality = "high";
    for (let slot = 0; slot < layout.slots.length && sheet; slot++) {
      const [left, top] = layout.corner(slot);
      const inSight = left < x + seen[0] && top < y + seen[1] && left + layout.size[0] > x && top + layout.size[1] > y;
      if (inSight && layout.holds(slot)) drawSlot(context, slot);
    }
    if (pointed !== null) outline(context, pointed, "#000000", 1);
    const chosen = slotOf(get("chosen"));
    if (chosen >= 0) outline(context, chosen, "#d55e00", 2);
    parts.columns.style.transform = `translateX(${-x}px)`;
    parts.rows.style.transform = `translateY(${-y}px)`;
    el.dataset.chosen = get("chosen").join(" "); // what is on the screen, for tests and measurements
    el.dataset.query = get("query").join(" ");
    el.dataset.pointed = pointed === null ? "" : placeOf(pointed).join(" ");
    el.dataset.zoom = zoom.toFixed(2);
    el.dataset.size = layout.size.map((pixels) => pixels.toFixed(1)).join(" ");
    el.dataset.shown = String(sheet ? ++drawn : 0);
  }

  const number = (value) => String(Number(value.toPrecision(3)));

  function say() {
    const text = ([layer, head]) =>
      layer < 0 ? "none" : (get("tips")[place([layer, head])] ?? `layer ${layer}, head ${head}`);
    const chosen = get("chosen");
    const at = pointed === null ? chosen : placeOf(pointed);
    parts.caption.textContent = parts.caption.title = get("caption");
    parts.tip.textContent = text(at);
    canvas.setAttribute(
      "aria-label",
      `${get("label")}. Chosen: ${text(chosen)}. Arrow keys choose the layer and the head; plus and minus zoom.`,
    );
    parts.scale.value = get("scale");
    const known = scales && place(at) >= 0 && scales.known(place(at));
    parts.bar.hidden = !get("unit") || !known;
    if (parts.bar.hidden) return;
    const [low, high] = scales.ends[place(at)];
    parts.low.textContent = number(low);
    parts.high.textContent = `${number(high)} ${get("unit")}`;
    parts.colours.style.background = barGradient(colours);
    parts.bar.setAttribute("aria-label", `Colours from ${number(low)} to ${number(high)} ${get("unit")}`);
  }

  // Show the pointed map on the board instead of the chosen one, from the bytes in the browser.
  function enlarge() {
    const shown = pointed === null ? null : layout.slots[pointed];
    if (!board || (shown === null && !preview)) return;
    preview = shown !== null && scales?.known(shown);
    if (!preview) return board.trigger("caap:preview", null);
    const size = get("rows") * get("cols");
    const [from, step] = [scales.from[shown], scales.step(shown)];
    const scores = Float32Array.from(tiles.subarray(shown * size, (shown + 1) * size), (number) => from + number * step);
    const caption = (get("tips")[shown] ?? "").split(":")[0];
    board.trigger("caap:preview", { key: get("tile"), scores, limits: scales.ends[shown], caption });
  }

  function show() {
    draw();
    say();
  }

  function point(slot) {
    if (slot === pointed) return;
    pointed = slot;
    show();
    enlarge();
  }

  function slotAt(event) {
    const area = canvas.getBoundingClientRect();
    const slot = layout.at(event.clientX - area.left + frame.scrollLeft, event.clientY - area.top + frame.scrollTop);
    return layout.holds(slot) ? slot : null;
  }

  function choose(slot) {
    model.set("chosen", placeOf(slot));
    model.save_changes();
    const [left, top] = layout.corner(slot);
    frame.scrollLeft = Math.max(Math.min(frame.scrollLeft, left - GAP), left + layout.size[0] + GAP - frame.clientWidth);
    frame.scrollTop = Math.max(Math.min(frame.scrollTop, top - GAP), top + layout.size[1] + GAP - frame.clientHeight);
  }

  // Zoom around a fixed point of the frame.
  function zoomTo(wanted, x = frame.clientWidth / 2, y = frame.clientHeight / 2) {
    const before = zoom;
    const [across, down] = [(frame.scrollLeft + x) / layout.extent[0], (frame.scrollTop + y) / layout.extent[1]];
    zoom = wanted;
    lay();
    if (zoom !== before) [frame.scrollLeft, frame.scrollTop] = [across * layout.extent[0] - x, down * layout.extent[1] - y];
    show();
  }

  function onKey(event) {
    const chosen = Math.max(slotOf(get("chosen")), 0);
    const moves = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const ends = { PageUp: [-1, 0], PageDown: [1, 0], Home: [0, -1], End: [0, 1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key in moves) choose(layout.next(chosen, ...moves[event.key]));
    else if (event.key in ends) choose(layout.end(chosen, ...ends[event.key]));
    else if ("+=".includes(event.key)) zoomTo(zoom * ZOOM);
    else if (event.key === "-") zoomTo(zoom / ZOOM);
    else if (event.key === "0") zoomTo(1);
    else return;
    point(null);
    event.preventDefault();
    event.stopPropagation(); // otherwise JupyterLab would move between cells
  }

  canvas.addEventListener("pointerdown", (event) => {
    const slot = slotAt(event);
    if (event.button === 0 && slot !== null) choose(slot);
  });
  canvas.addEventListener("pointermove", (event) => point(slotAt(event)));
  canvas.addEventListener("pointerleave", () => point(null));
  canvas.addEventListener("keydown", onKey);
  frame.addEventListener("scroll", draw);
  frame.addEventListener(
    "wheel",
    (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      const area = frame.getBoundingClientRect();
      zoomTo(zoom * (event.deltaY < 0 ? ZOOM : 1 / ZOOM), event.clientX - area.left, event.clientY - area.top);
    },
    { passive: false },
  );
  parts.buttons[0].addEventListener("click", () => zoomTo(zoom / ZOOM));
  parts.buttons[1].addEventListener("click", () => zoomTo(1));
  parts.buttons[2].addEventListener("click", () => zoomTo(zoom * ZOOM));
  parts.scale.addEventListener("change", () => {
    model.set("scale", parts.scale.value);
    model.save_changes();
  });

  // Several traits change in one message: draw once.
  let waiting = false;
  let fresh = true;
  function later(change) {
    fresh ||= change;
    if (waiting) return;
    waiting = true;
    queueMicrotask(() => {
      waiting = false;
      if (fresh) {
        colour();
        arrange();
        lay();
      }
      fresh = false;
      if (pointed !== null && !layout.holds(pointed)) pointed = null;
      show();
      if (preview) enlarge();
    });
  }
  const renew = () => later(true);
  const redraw = () => later(false);
  const ofMaps = "tiles lows highs robust_highs table scale layers heads rows cols order across split names columns width height unit zooms";
  const ofWords = "chosen query tips label caption marks unasked";
  const changes = (names) => names.split(" ").map((name) => `change:${name}`).join(" ");
  model.on(changes(ofMaps), renew);
  model.on(changes(ofWords), redraw);
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (el.clientWidth !== width && layout) renew();
    width = el.clientWidth;
  });
  resized.observe(el);
  const wanted = get("board");
  let gone = false;
  if (wanted) {
    model.widget_manager?.get_model(wanted.replace("IPY_MODEL_", "")).then((found) => {
      if (gone) return; // this view was removed before the board existed
      board = found;
      board.on("change:colours change:robust", renew);
      renew();
    });
  }
  renew();
  return () => {
    gone = true;
    resized.disconnect();
    model.off(changes(ofMaps), renew);
    model.off(changes(ofWords), redraw);
    board?.off("change:colours change:robust", renew);
  };
}

export default { render };
