// A file, sent in pieces that fit through the notebook's connection.

const PIECE = 1 << 20;

function render({ model, el }) {
  el.classList.add("caap-live", "caap-upload");
  const label = el.appendChild(document.createElement("label"));
  const input = document.createElement("input");
  input.type = "file";
  input.accept = "image/*";
  label.append("Own image: ", input);

  async function send(file) {
    if (!file) return;
    const megabytes = file.size / PIECE;
    if (megabytes > model.get("largest")) {
      const text = `${file.name} has ${megabytes.toFixed(0)} MB; at most ${model.get("largest")} MB can be uploaded here. `
        + "Scale it down, or put it beside the notebook and give its path: the model sees a few hundred pixels a side anyway.";
      model.send({ kind: "problem", text });
      return;
    }
    const pieces = Math.max(1, Math.ceil(megabytes));
    for (let piece = 0; piece < pieces; piece += 1) {
      const part = await file.slice(piece * PIECE, (piece + 1) * PIECE).arrayBuffer();
      model.send({ kind: "piece", name: file.name, piece, pieces }, undefined, [part]);
    }
  }

  input.addEventListener("change", () => {
    send(input.files[0]);
    input.value = ""; // so that the same file can be chosen again
  });
  el.addEventListener("dragover", (event) => {
    event.preventDefault();
    el.classList.add("caap-over");
  });
  el.addEventListener("dragleave", () => el.classList.remove("caap-over"));
  el.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    el.classList.remove("caap-over");
    send(event.dataTransfer.files[0]);
  });
}

export default { render };
