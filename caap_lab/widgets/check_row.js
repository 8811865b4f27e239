// Small check boxes side by side.

function build(model, root) {
  const title = document.createElement("div");
  title.className = "caap-checks-title";
  const boxes = document.createElement("div");
  boxes.className = "caap-checks-boxes";
  boxes.setAttribute("role", "group");
  root.replaceChildren(title, boxes);
  let labels = [];

  function show() {
    const chosen = model.get("chosen");
    if (labels.join("\n") !== model.get("labels").join("\n")) {
      labels = [...model.get("labels")];
      boxes.replaceChildren(...labels.map(box));
    }
    boxes.setAttribute("aria-label", model.get("title"));
    title.textContent = model.get("title");
    const none = document.createElement("span");
    none.textContent = chosen.length ? "" : model.get("none");
    title.append(none);
    for (const [place, input] of [...boxes.querySelectorAll("input")].entries()) input.checked = chosen.includes(place);
  }

  function box(label, place) {
    const element = document.createElement("label");
    const input = document.createElement("input");
    input.type = "checkbox";
    input.addEventListener("change", () => {
      const others = model.get("chosen").filter((other) => other !== place);
      model.set("chosen", (input.checked ? [...others, place] : others).sort((a, b) => a - b));
      model.save_changes();
      show();
    });
    element.append(input, label);
    return element;
  }

  root.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab would treat keys as commands
  show();
  return show;
}

export default {
  render({ model, el }) {
    el.classList.add("caap-live", "caap-checks");
    const show = build(model, el);
    const names = "change:labels change:chosen change:title change:none";
    model.on(names, show);
    return () => model.off(names, show);
  },
};
