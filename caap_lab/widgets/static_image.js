// A finished picture, as wide as the space allows; on white, because it is drawn for paper.

function render({ model, el }) {
  el.classList.add("caap-live", "caap-static-image");
  const image = el.appendChild(document.createElement("img"));
  let url = null;

  function draw() {
    const before = url;
    const view = model.get("png");
    image.hidden = view.byteLength === 0;
    image.alt = model.get("label");
    image.style.maxWidth = `min(100%, ${model.get("width")}px)`;
    if (!image.hidden) {
      url = URL.createObjectURL(new Blob([view], { type: "image/png" }));
      image.src = url;
    }
    if (before && before !== url) URL.revokeObjectURL(before);
  }

  model.on("change", draw);
  draw();
  return () => {
    model.off("change", draw);
    if (url) URL.revokeObjectURL(url);
  };
}

export default { render };
