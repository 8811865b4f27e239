// Mouse, touch and keyboard on a tile: pointing at patches and choosing them, dragging boxes, painting patches.

const HINTS = {
  choose: "Arrow keys move, Enter chooses the patch, Escape clears the choice.",
  box: "Arrow keys move, Enter sets one corner and then the other, Escape removes the box.",
  paint: "Arrow keys move, Enter paints the patch, or clears it if it is painted.",
  erase: "Arrow keys move, Enter clears the patch.",
};
const STEPS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };

function sameCell(a, b) {
  return Boolean(a && b) && a[0] === b[0] && a[1] === b[1];
}

function spanned(a, b) {
  return [Math.min(a[0], b[0]), Math.min(a[1], b[1]), Math.max(a[0], b[0]), Math.max(a[1], b[1])];
}

/** The patch of another grid at the same place of the photo. */
function moved([row, col], from, to) {
  if (from.rows === to.rows && from.cols === to.cols) return [row, col];
  return [Math.floor(((row + 0.5) / from.rows) * to.rows), Math.floor(((col + 0.5) / from.cols) * to.cols)];
}

/**
 * Answer the pointer and the keys on a tile's canvas.
 *
 * `board` gives `mode(tile)`, `grid` (that of chosen, box and painted), `get(name)`, and takes `send(name, value)`,
 * `point(key, cell, event)` and `redraw()`; its `pointed` and `drag` are set here.
 */
function answerPointer(view, board) {
  const { canvas } = view;
  const mode = () => board.mode(view.tile);
  const onGrid = (cell) => moved(cell, view.tile, board.grid);
  const number = (cell) => cell[0] * board.grid.cols + cell[1];

  function cellAt(event) {
    const { rows, cols } = view.tile;
    const area = canvas.getBoundingClientRect();
    const row = Math.floor(((event.clientY - area.top) / area.height) * rows);
    const col = Math.floor(((event.clientX - area.left) / area.width) * cols);
    return [Math.min(Math.max(row, 0), rows - 1), Math.min(Math.max(col, 0), cols - 1)];
  }

  function brush(drag, cell) {
    if (drag.mode === "paint") drag.painted.add(number(onGrid(cell)));
    else drag.painted.delete(number(onGrid(cell)));
  }

  // A fast mouse reports only some of the patches on its path.
  function stroke(drag, cell) {
    const way = cell.map((to, axis) => to - drag.last[axis]);
    const steps = Math.max(...way.map(Math.abs), 1);
    const after = (step) => drag.last.map((at, axis) => Math.round(at + (way[axis] * step) / steps));
    for (let step = 1; step <= steps; step++) brush(drag, after(step));
    drag.last = cell;
  }

  function begin(cell) {
    const drag = { key: view.tile.key, mode: mode(), from: cell, last: cell, moved: false, box: null, painted: null };
    if (drag.mode === "box") drag.box = spanned(onGrid(cell), onGrid(cell));
    if (drag.mode === "paint" || drag.mode === "erase") {
      drag.painted = new Set(board.get("painted"));
      drag.again = drag.painted.has(number(onGrid(cell)));
      brush(drag, cell);
    }
    board.drag = drag;
  }

  function go(drag, cell) {
    drag.moved ||= !sameCell(drag.from, cell);
    if (drag.box) drag.box = spanned(onGrid(drag.from), onGrid(cell));
    if (drag.painted) stroke(drag, cell);
  }

  function end(cell) {
    const { drag } = board;
    board.drag = null;
    if (!drag) return; // Escape came first
    if (drag.mode === "choose" && !drag.moved) board.send("chosen", onGrid(cell));
    if (drag.box) board.send("box", drag.box);
    if (drag.painted) {
      if (drag.mode === "paint" && drag.again && !drag.moved) drag.painted.delete(number(onGrid(cell)));
      board.send("painted", [...drag.painted].sort((a, b) => a - b));
    }
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    if (mode() !== "choose") canvas.setPointerCapture(event.pointerId);
    const cell = cellAt(event);
    begin(cell);
    board.point(view.tile.key, cell, event);
    board.redraw();
  });
  canvas.addEventListener("pointermove", (event) => {
    const cell = cellAt(event);
    const { pointed, drag } = board;
    if (pointed?.key === view.tile.key && sameCell(pointed.cell, cell)) return;
    if (drag?.key === view.tile.key) go(drag, cell);
    board.point(view.tile.key, cell, event);
  });
  canvas.addEventListener("pointerup", (event) => {
    if (board.drag?.key === view.tile.key) end(cellAt(event));
    else board.drag = null; // pressed in another tile: a drag is not a click
    board.redraw();
  });
  canvas.addEventListener("pointercancel", () => {
    board.drag = null;
    board.redraw();
  });
  canvas.addEventListener("pointerleave", () => {
    if (board.drag && board.drag.mode !== "choose") return;
    board.drag = null;
    board.point(null);
  });
  canvas.addEventListener("blur", () => {
    if (board.pointed?.key !== view.tile.key || canvas.matches(":hover")) return;
    board.drag = null;
    board.point(null);
  });

  canvas.addEventListener("keydown", (event) => {
    const { rows, cols } = view.tile;
    const chosen = board.get("chosen");
    const here = board.pointed?.key === view.tile.key ? board.pointed.cell : null;
    if (event.key in STEPS) {
      const from = here ?? (chosen.length ? moved(chosen, board.grid, view.tile) : null);
      const [down, right] = from ? STEPS[event.key] : [0, 0]; // the first key only shows the position
      const [row, col] = from ?? [0, 0];
      const cell = [Math.min(Math.max(row + down, 0), rows - 1), Math.min(Math.max(col + right, 0), cols - 1)];
      if (board.drag?.box) go(board.drag, cell);
      board.point(view.tile.key, cell);
    } else if (event.key === "Enter" || event.key === " ") {
      if (event.shiftKey || event.ctrlKey || event.metaKey) return; // JupyterLab runs the cell
      const cell = here ?? (chosen.length ? moved(chosen, board.grid, view.tile) : null);
      if (!cell) return;
      if (board.drag) end(cell);
      else {
        begin(cell);
        if (board.drag.mode !== "box") end(cell); // a box needs its other corner
      }
      board.redraw();
    } else if (event.key === "Escape") {
      if (board.drag) board.drag = null;
      else board.send(mode() === "box" ? "box" : "chosen", []);
      board.redraw();
    } else return;
    event.preventDefault();
    event.stopPropagation(); // otherwise JupyterLab would move between cells
  });
}
