// Small pictures as buttons.

function render({ model, el }) {
  el.classList.add("caap-live", "caap-gallery");
  el.setAttribute("role", "radiogroup");
  el.setAttribute("aria-label", "Images");
  let addresses = [];

  function choose(place) {
    model.set("chosen", place);
    model.save_changes();
  }

  function mark() {
    [...el.children].forEach((button, place) => {
      const chosen = place === model.get("chosen");
      button.setAttribute("aria-checked", String(chosen));
      button.tabIndex = chosen ? 0 : -1;
    });
  }

  function draw() {
    addresses.forEach((address) => URL.revokeObjectURL(address));
    addresses = model.get("pictures").map((view) => URL.createObjectURL(new Blob([view], { type: "image/png" })));
    const names = model.get("names");
    el.replaceChildren(
      ...addresses.map((address, place) => {
        const button = document.createElement("button");
        button.setAttribute("role", "radio");
        button.title = names[place];
        const image = button.appendChild(document.createElement("img"));
        image.src = address;
        image.alt = names[place];
        button.addEventListener("click", () => choose(place));
        return button;
      }),
    );
    mark();
  }

  el.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const count = el.children.length;
    const place = (model.get("chosen") + step + count) % count;
    choose(place);
    el.children[place].focus();
    event.preventDefault();
    event.stopPropagation();
  });

  model.on("change:pictures", draw);
  model.on("change:chosen", mark);
  draw();
  return () => addresses.forEach((address) => URL.revokeObjectURL(address));
}

export default { render };
