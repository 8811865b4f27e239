// Sending a file to the kernel, one piece after the other, in pieces that fit through the notebook's connection.

const PIECE = 1 << 20;
const PATIENCE = 2000; // milliseconds without an answer before a piece is sent again, at least

function pieceCount(file) {
  return Math.max(1, Math.ceil(file.size / PIECE));
}

function newId() {
  return `${Date.now()} ${Math.random()}`; // crypto.randomUUID is missing on pages without https
}

function answerWithin(milliseconds, hear) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    hear(() => {
      clearTimeout(timer);
      resolve();
    });
  });
}

// `onPiece` is told how many pieces the kernel holds. Each pause is twice the one before, and an answer that took long
// makes them longer: a busy kernel must not find a pile of copies, nor a slow connection carry each piece twice.
// `drop` is the same for all files that are dropped together; `signal` ends all when the widget is not shown any more.
async function upload(model, file, drop, signal, onPiece) {
  const id = newId();
  const pieces = pieceCount(file);
  let held = 0;
  let answered = () => {};
  function listen() {
    const [of, count] = model.get("received");
    if (of !== id) return; // from another view
    held = count;
    onPiece(held);
    answered();
  }
  model.on("change:received", listen);
  signal.addEventListener("abort", () => answered());
  onPiece(held);
  try {
    let patience = PATIENCE;
    let since = performance.now();
    while (held < pieces && !signal.aborted) {
      const piece = held;
      const part = await file.slice(piece * PIECE, (piece + 1) * PIECE).arrayBuffer();
      if (held === piece) { // unless a late answer has arrived
        model.send({ kind: "piece", upload: id, name: file.name, drop, piece, pieces }, undefined, [part]);
        await answerWithin(patience, (call) => { answered = call; });
      }
      if (held === piece) patience *= 2;
      else {
        patience = Math.max(PATIENCE, 2 * (performance.now() - since));
        since = performance.now();
      }
    }
  } finally {
    model.off("change:received", listen);
  }
}
