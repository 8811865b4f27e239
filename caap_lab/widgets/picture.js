// A photo with an overlay and a grid of patches, on a canvas. Everything is drawn here from the model's traits.

const HINTS = {
  choose: "Arrow keys move, Enter chooses the patch.",
  box: "Arrow keys move, Enter sets one corner and then the other, Escape takes the box away.",
  paint: "Arrow keys move, Enter paints the patch.",
  erase: "Arrow keys move, Enter erases the patch.",
};

function loadImage(view) {
  if (!view || view.byteLength === 0) return Promise.resolve(null);
  return createImageBitmap(new Blob([view], { type: "image/png" }));
}

function render({ model, el }) {
  el.classList.add("caap-live", "caap-picture");
  const caption = el.appendChild(document.createElement("div"));
  caption.className = "caap-caption";
  const canvas = el.appendChild(document.createElement("canvas"));
  canvas.tabIndex = 0;
  canvas.setAttribute("role", "application");
  const tip = el.appendChild(document.createElement("div"));
  tip.className = "caap-tip";
  tip.setAttribute("role", "status");

  let photo = null;
  let overlay = null;
  let pointed = null; // [row, col] under the mouse or the keyboard
  let corner = null; // first corner of a box being drawn
  let dragged = null; // box or mask while the mouse is down

  const rows = () => model.get("rows");
  const cols = () => model.get("cols");

  function outline(context, [top, left, bottom, right], colour, width, dash = []) {
    const [h, w] = [canvas.height / rows(), canvas.width / cols()];
    const rectangle = [left * w, top * h, (right - left + 1) * w, (bottom - top + 1) * h];
    context.setLineDash([]);
    context.strokeStyle = colour === "#ffffff" ? "#000000" : "#ffffff"; // a rim, to be seen on any ground
    context.lineWidth = width + 2;
    context.strokeRect(...rectangle);
    context.setLineDash(dash);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(...rectangle);
    context.setLineDash([]);
  }

  function draw() {
    const scale = window.devicePixelRatio || 1;
    const width = model.get("width");
    const height = photo ? Math.round((width * photo.height) / photo.width) : width;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.width = Math.round(width * scale);
    canvas.height = Math.round(height * scale);
    el.style.width = `${width}px`;
    const context = canvas.getContext("2d");
    context.imageSmoothingEnabled = false; // a patch has one score and so one colour
    if (photo) context.drawImage(photo, 0, 0, canvas.width, canvas.height);
    if (overlay) {
      context.globalAlpha = model.get("opacity");
      context.drawImage(overlay, 0, 0, canvas.width, canvas.height);
      context.globalAlpha = 1;
    }
    const [h, w] = [canvas.height / rows(), canvas.width / cols()];
    const painted = dragged instanceof Set ? dragged : new Set(model.get("painted"));
    context.fillStyle = `${model.get("brush")}8c`; // a little more than half opaque
    for (const cell of painted) {
      context.fillRect((cell % cols()) * w, Math.floor(cell / cols()) * h, w, h);
    }
    const chosen = model.get("chosen");
    const centre = pointed ?? (chosen.length ? chosen : null);
    if (centre && model.get("mode") === "choose") {
      for (const [down, right] of model.get("neighbours")) {
        const [row, col] = [centre[0] + down, centre[1] + right];
        if (row >= 0 && col >= 0 && row < rows() && col < cols()) {
          outline(context, [row, col, row, col], "#56b4e9", scale);
        }
      }
    }
    const box = Array.isArray(dragged) ? dragged : model.get("box");
    if (box.length) outline(context, box, "#e69f00", 2 * scale);
    if (chosen.length) outline(context, [...chosen, ...chosen], "#d55e00", 2 * scale);
    if (pointed) outline(context, [...pointed, ...pointed], "#ffffff", scale, [4 * scale, 3 * scale]);
  }

  function say() {
    caption.textContent = model.get("caption");
    const tips = model.get("tips");
    const chosen = model.get("chosen");
    const cell = pointed ?? (chosen.length ? chosen : null);
    tip.textContent = cell ? (tips[cell[0] * cols() + cell[1]] ?? `row ${cell[0]}, column ${cell[1]}`) : "";
    canvas.setAttribute("aria-label", `${model.get("label")}. ${HINTS[model.get("mode")]}`);
  }

  function show() {
    say();
    draw();
  }

  function cellAt(event) {
    const area = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - area.top) / area.height) * rows());
    const col = Math.floor(((event.clientX - area.left) / area.width) * cols());
    return [Math.min(Math.max(row, 0), rows() - 1), Math.min(Math.max(col, 0), cols() - 1)];
  }

  function between(a, b) {
    return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
  }

  function send(name, value) {
    model.set(name, value);
    model.save_changes();
  }

  function brush(cell) {
    const number = cell[0] * cols() + cell[1];
    if (model.get("mode") === "paint") dragged.add(number);
    else dragged.delete(number);
  }

  function sendMask() {
    send("painted", [...dragged].sort((a, b) => a - b));
    dragged = null;
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    pointed = cellAt(event);
    const mode = model.get("mode");
    if (mode === "choose") send("chosen", pointed);
    else if (mode === "box") {
      corner = pointed;
      dragged = between(corner, corner);
    } else {
      dragged = new Set(model.get("painted"));
      brush(pointed);
    }
    show();
  });
  canvas.addEventListener("pointermove", (event) => {
    const cell = cellAt(event);
    if (pointed && cell[0] === pointed[0] && cell[1] === pointed[1]) return;
    pointed = cell;
    if (Array.isArray(dragged)) dragged = between(corner, cell);
    else if (dragged) brush(cell);
    show();
  });
  canvas.addEventListener("pointerup", () => {
    if (Array.isArray(dragged)) {
      send("box", dragged);
      dragged = corner = null;
    } else if (dragged) sendMask();
    show();
  });
  canvas.addEventListener("pointercancel", () => {
    dragged = corner = null;
    show();
  });
  canvas.addEventListener("pointerleave", () => {
    if (dragged) return;
    pointed = null;
    show();
  });
  canvas.addEventListener("blur", () => {
    pointed = null;
    show();
  });

  const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  canvas.addEventListener("keydown", (event) => {
    const mode = model.get("mode");
    if (event.key in STEPS) {
      const from = pointed ?? (model.get("chosen").length ? model.get("chosen") : [0, 0]);
      const [down, right] = pointed || model.get("chosen").length ? STEPS[event.key] : [0, 0];
      pointed = [
        Math.min(Math.max(from[0] + down, 0), rows() - 1),
        Math.min(Math.max(from[1] + right, 0), cols() - 1),
      ];
      if (mode === "box" && corner) dragged = between(corner, pointed);
    } else if (event.key === "Enter" || event.key === " ") {
      if (!pointed) return;
      if (mode === "choose") send("chosen", pointed);
      else if (mode === "box" && !corner) {
        corner = pointed;
        dragged = between(corner, corner);
      } else if (mode === "box") {
        send("box", between(corner, pointed));
        dragged = corner = null;
      } else {
        dragged = new Set(model.get("painted"));
        brush(pointed);
        sendMask();
      }
    } else if (event.key === "Escape") {
      dragged = corner = null;
      send(mode === "box" ? "box" : "chosen", []);
    } else return;
    event.preventDefault();
    event.stopPropagation(); // else JupyterLab moves between cells
    show();
  });

  let loads = 0;
  async function load() {
    const number = ++loads;
    const [newPhoto, newOverlay] = await Promise.all([
      loadImage(model.get("photo")),
      loadImage(model.get("overlay")),
    ]);
    if (number !== loads) return; // a newer picture is on its way
    [photo, overlay] = [newPhoto, newOverlay];
    show();
    el.dataset.shown = String(number); // what is on the screen, for tests and measurements
    el.dataset.overlay = String(overlay !== null);
  }

  model.on("change:photo change:overlay", load);
  model.on("change:opacity change:rows change:cols change:mode change:chosen change:box change:painted change:brush", show);
  model.on("change:neighbours change:tips change:label change:caption change:width", show);
  model.on("change:mode", () => {
    dragged = corner = null;
  });
  load();
  return () => {
    loads = Infinity;
    model.off("change:photo change:overlay", load);
  };
}

export default { render };
