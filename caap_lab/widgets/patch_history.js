// A table of patches; a click on a row restores its patch.

const COLUMNS = ["where", "what", "by", "into"];
const HEADS = ["tokens", "point", "replaced by", "photos", "change"];

function node(kind, text, parent, classes = "") {
  const element = document.createElement(kind);
  element.textContent = text;
  element.className = classes;
  parent.append(element);
  return element;
}

class History {
  constructor(model, root) {
    [this.model, this.lines] = [model, new Map()];
    this.table = node("table", "", root);
    const caption = node("caption", "Last patches ", this.table);
    this.unit = node("span", "", caption);
    this.head = node("tr", "", this.table);
    for (const name of HEADS) node("th", name, this.head).scope = "col";
    this.show();
  }

  /** Existing rows keep their elements, so that no click and no focus is lost when a row is added. */
  show() {
    const [rows, chosen] = [this.model.get("rows"), this.model.get("chosen")];
    this.table.hidden = !rows.length;
    this.unit.textContent = `change of ${this.model.get("effect")}`;
    const lines = new Map();
    let last = this.head;
    for (const [place, row] of rows.entries()) {
      const key = COLUMNS.map((name) => row[name]).join(", ");
      const line = this.lines.get(key) ?? this.newLine(row, key);
      lines.set(key, line);
      line.element.classList.toggle("caap-chosen", place === chosen);
      line.button.setAttribute("aria-pressed", String(place === chosen));
      line.effect.textContent = row.effect;
      line.effect.className = `number caap-${row.rises ? "rise" : "fall"}`;
      if (last.nextSibling !== line.element) last.after(line.element);
      last = line.element;
    }
    for (const [key, { element }] of this.lines) if (!lines.has(key)) element.remove();
    this.lines = lines;
  }

  newLine(row, key) {
    const element = document.createElement("tr");
    const button = node("button", row.where, node("td", "", element));
    button.setAttribute("aria-label", `Return to: ${key}`);
    for (const name of COLUMNS.slice(1)) node("td", row[name], element);
    const effect = node("td", "", element);
    element.addEventListener("click", () => {
      this.model.set("chosen", [...this.lines.keys()].indexOf(key));
      this.model.save_changes();
    });
    return { element, button, effect };
  }
}

export default {
  render({ model, el }) {
    el.classList.add("caap-live", "caap-history");
    el.addEventListener("keydown", (event) => event.stopPropagation()); // JupyterLab would treat keys as commands
    const history = new History(model, el);
    const show = () => history.show();
    model.on("change:rows change:chosen change:effect", show);
    return () => model.off("change:rows change:chosen change:effect", show);
  },
};
