// Small maps of all heads, one row per layer, on one canvas. Their numbers are text of the page, in the theme's colour.

const GAP = 2; // pixels between maps
const [SMALLEST, LARGEST] = [14, 56]; // pixels of a map's width
const HIGHEST = 550; // pixels of all maps, unless they get too small: the style sheet's frame then scrolls
const NARROWEST = 240; // pixels of the whole, for the line above
const MARGIN = { top: 18, left: 24 };

function render({ model, el }) {
  el.classList.add("caap-live", "caap-heads");
  const caption = el.appendChild(document.createElement("div"));
  caption.className = "caap-caption";
  const frame = el.appendChild(document.createElement("div"));
  frame.className = "caap-heads-frame";
  const canvas = frame.appendChild(document.createElement("canvas"));
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  const numbers = frame.appendChild(document.createElement("div"));
  numbers.setAttribute("aria-hidden", "true"); // the canvas says them
  const tip = el.appendChild(document.createElement("div"));
  tip.className = "caap-tip";
  tip.setAttribute("role", "status");

  let sheet = null; // all maps edge to edge, one pixel per patch
  let pointed = null; // [layer, head] under the mouse
  let size = [0, 0]; // width and height of a map
  let drawn = 0;

  const read = (...names) => names.map((name) => model.get(name));

  function colour() {
    const [layers, heads, rows, cols, tiles, table] = read("layers", "heads", "rows", "cols", "tiles", "table");
    sheet = null;
    if (!tiles || tiles.byteLength !== layers * heads * rows * cols || table.byteLength !== 768) return;
    sheet = document.createElement("canvas");
    [sheet.width, sheet.height] = [heads * cols, layers * rows];
    const image = new ImageData(sheet.width, sheet.height);
    let from = 0;
    for (let layer = 0; layer < layers; layer++) {
      for (let head = 0; head < heads; head++) {
        for (let row = 0; row < rows; row++) {
          let to = 4 * ((layer * rows + row) * sheet.width + head * cols);
          for (let col = 0; col < cols; col++) {
            const place = 3 * tiles.getUint8(from++);
            for (let channel = 0; channel < 3; channel++) image.data[to++] = table.getUint8(place + channel);
            image.data[to++] = 255;
          }
        }
      }
    }
    sheet.getContext("2d").putImageData(image, 0, 0);
  }

  function lay() {
    const [layers, heads, rows, cols, width] = read("layers", "heads", "rows", "cols", "width");
    const wide = Math.floor((width - MARGIN.left) / heads) - GAP;
    const tall = Math.floor((HIGHEST - MARGIN.top) / layers) - GAP;
    size[0] = Math.max(Math.min(wide, Math.floor((tall * cols) / rows), LARGEST), SMALLEST);
    size[1] = Math.max(Math.round((size[0] * rows) / cols), 4);
    const scale = window.devicePixelRatio || 1;
    const all = [heads * (size[0] + GAP) + GAP, layers * (size[1] + GAP) + GAP];
    [canvas.style.width, canvas.style.height] = all.map((pixels) => `${pixels}px`);
    [canvas.width, canvas.height] = all.map((pixels) => Math.round(pixels * scale));
    el.style.width = `${Math.max(MARGIN.left + all[0], NARROWEST)}px`;
    const added = [];
    const number = (text, left, top) => {
      const node = document.createElement("span");
      node.textContent = text;
      [node.style.left, node.style.top] = [`${left}px`, `${top}px`];
      added.push(node);
    };
    const columns = model.get("columns");
    for (let head = 0; head < heads; head++) number(columns[head] ?? head, MARGIN.left + GAP + (head + 0.5) * (size[0] + GAP), 8);
    const names = model.get("names");
    for (let layer = 0; layer < layers; layer++) number(names[layer] ?? layer, 11, MARGIN.top + GAP + (layer + 0.5) * (size[1] + GAP));
    numbers.replaceChildren(...added);
  }

  const corner = ([layer, head]) => [GAP + head * (size[0] + GAP), GAP + layer * (size[1] + GAP)];

  function outline(context, [left, top], [width, height], colour, thick) {
    context.lineWidth = thick + 2;
    context.strokeStyle = "#ffffff"; // a rim, to be seen on any ground
    context.strokeRect(left, top, width, height);
    context.lineWidth = thick;
    context.strokeStyle = colour;
    context.strokeRect(left, top, width, height);
  }

  function draw() {
    const [layers, heads, rows, cols, chosen, query] = read("layers", "heads", "rows", "cols", "chosen", "query");
    const scale = window.devicePixelRatio || 1;
    const context = canvas.getContext("2d");
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.imageSmoothingEnabled = size[0] * scale < cols; // a patch keeps its own colour where it has a pixel
    const patch = [size[0] / cols, size[1] / rows];
    for (let layer = 0; layer < layers && sheet; layer++) {
      for (let head = 0; head < heads; head++) {
        const [left, top] = corner([layer, head]);
        context.drawImage(sheet, head * cols, layer * rows, cols, rows, left, top, ...size);
        if (query.length) {
          context.lineWidth = 1;
          context.strokeStyle = "#d55e00";
          const [x, y] = [left + query[1] * patch[0], top + query[0] * patch[1]];
          context.strokeRect(x, y, Math.max(patch[0], 3), Math.max(patch[1], 3));
        }
      }
    }
    if (pointed) outline(context, corner(pointed), size, "#000000", 1);
    if (chosen[0] >= 0) outline(context, corner(chosen), size, "#d55e00", 2);
    el.dataset.chosen = chosen.join(" "); // what is on the screen, for tests and measurements
    el.dataset.query = query.join(" ");
    el.dataset.shown = String(sheet ? ++drawn : 0);
  }

  function say() {
    const tips = model.get("tips");
    const text = ([layer, head]) =>
      layer < 0 ? "none" : (tips[layer * model.get("heads") + head] ?? `layer ${layer}, head ${head}`);
    caption.textContent = model.get("caption");
    tip.textContent = text(pointed ?? model.get("chosen"));
    canvas.setAttribute(
      "aria-label",
      `${model.get("label")}. Chosen: ${text(model.get("chosen"))}. Arrow keys choose the layer and the head.`,
    );
  }

  function show() {
    draw();
    say();
  }

  function headAt(event) {
    const area = canvas.getBoundingClientRect();
    const head = Math.floor((event.clientX - area.left - GAP / 2) / (size[0] + GAP));
    const layer = Math.floor((event.clientY - area.top - GAP / 2) / (size[1] + GAP));
    return [
      Math.min(Math.max(layer, 0), model.get("layers") - 1),
      Math.min(Math.max(head, 0), model.get("heads") - 1),
    ];
  }

  function choose(place) {
    model.set("chosen", place);
    model.save_changes();
    const [, top] = corner(place);
    const seen = frame.clientHeight - MARGIN.top;
    if (top < frame.scrollTop) frame.scrollTop = top - GAP;
    else if (top + size[1] > frame.scrollTop + seen) frame.scrollTop = top + size[1] + 2 * GAP - seen;
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button === 0) choose(headAt(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const place = headAt(event);
    if (pointed && place[0] === pointed[0] && place[1] === pointed[1]) return;
    pointed = place;
    show();
  });
  canvas.addEventListener("pointerleave", () => {
    pointed = null;
    show();
  });
  canvas.addEventListener("keydown", (event) => {
    const [layer, head] = model.get("chosen").map((number) => Math.max(number, 0));
    const [lastLayer, lastHead] = [model.get("layers") - 1, model.get("heads") - 1];
    const places = {
      ArrowUp: [Math.max(layer - 1, 0), head],
      ArrowDown: [Math.min(layer + 1, lastLayer), head],
      ArrowLeft: [layer, Math.max(head - 1, 0)],
      ArrowRight: [layer, Math.min(head + 1, lastHead)],
      PageUp: [0, head],
      PageDown: [lastLayer, head],
      Home: [layer, 0],
      End: [layer, lastHead],
    };
    if (!(event.key in places)) return;
    pointed = null;
    choose(places[event.key]);
    event.preventDefault();
    event.stopPropagation(); // else JupyterLab moves between cells
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
        lay();
      }
      fresh = false;
      show();
    });
  }
  const renew = () => later(true);
  const redraw = () => later(false);
  model.on("change:tiles change:table change:layers change:heads change:rows change:cols change:width", renew);
  model.on("change:chosen change:query change:tips change:label change:caption", redraw);
  renew();
  return () => {
    model.off("change:tiles change:table change:layers change:heads change:rows change:cols change:width", renew);
    model.off("change:chosen change:query change:tips change:label change:caption", redraw);
  };
}

export default { render };
