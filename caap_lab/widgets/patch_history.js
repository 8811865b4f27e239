// A table of patches; a click on a row brings its patch back.

const COLUMNS = ["where", "what", "by", "into", "effect"];
const HEADS = ["tokens", "point", "replaced by", "photos", "change"];

function node(kind, text, parent, classes = "") {
  const element = document.createElement(kind);
  element.textContent = text;
  element.className = classes;
  parent.append(element);
  return element;
}

function draw(model, root) {
  const focused = [...root.querySelectorAll("button")].indexOf(document.activeElement);
  const [rows, chosen] = [model.get("rows"), model.get("chosen")];
  root.replaceChildren();
  if (!rows.length) return;
  const table = node("table", "", root);
  const caption = node("caption", "Last patches ", table);
  node("span", `change of ${model.get("effect")}`, caption);
  const head = node("tr", "", table);
  for (const name of HEADS) node("th", name, head).scope = "col";
  for (const [place, row] of rows.entries()) {
    const line = node("tr", "", table, place === chosen ? "caap-chosen" : "");
    for (const name of COLUMNS) {
      const cell = node("td", "", line, name === "effect" ? `number caap-${row.rises ? "rise" : "fall"}` : "");
      if (name !== "where") {
        cell.textContent = row[name];
        continue;
      }
      const button = node("button", row[name], cell);
      button.setAttribute("aria-pressed", String(place === chosen));
      button.setAttribute("aria-label", `Come back to: ${COLUMNS.map((column) => row[column]).join(", ")}`);
    }
    line.addEventListener("click", () => {
      model.set("chosen", place);
      model.save_changes();
    });
  }
  root.querySelectorAll("button")[focused]?.focus({ preventScroll: true });
}

export default {
  render({ model, el }) {
    el.classList.add("caap-live", "caap-history");
    const show = () => draw(model, el);
    el.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab takes keys for commands
    model.on("change:rows change:chosen change:effect", show);
    show();
    return () => model.off("change:rows change:chosen change:effect", show);
  },
};
