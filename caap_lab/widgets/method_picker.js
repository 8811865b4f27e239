// Check boxes by family, with a field that searches names, families and sources.

function passes(number) {
  if (number === null) return "";
  if (number < 9950) return number < 10 ? String(Number(number.toFixed(1))) : number.toFixed(0);
  return `${(number / 1000).toFixed(0)}k`;
}

function render({ model, el }) {
  el.classList.add("caap-live", "caap-methods");
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  const search = element("input", "caap-input", { type: "search", placeholder: "search methods", "aria-label": "search methods" });
  const head = element("div", "caap-methods-head");
  const count = head.appendChild(element("span", "", { "aria-live": "polite" }));
  const unit = head.appendChild(element("span"));
  unit.textContent = "passes";
  unit.title = "Forward passes of this model for one map; a backward pass counts as two";
  const list = element("div", "caap-methods-list", { role: "group", "aria-label": "methods" });
  el.append(search, head, list);
  let rows = [];

  function toggle(name, on) {
    const before = model.get("value");
    const value = on ? [...before, name] : before.filter((other) => other !== name);
    const order = model.get("methods").map((method) => method.name);
    model.set("value", order.filter((other) => value.includes(other)));
    model.save_changes();
  }

  function build() {
    const methods = model.get("methods");
    const families = [...new Set(methods.map((method) => method.family))];
    rows = [];
    list.replaceChildren(...families.map((family) => {
      const part = element("div", "caap-family", { role: "group", "aria-label": family });
      part.appendChild(element("div", "caap-family-title")).textContent = family;
      for (const method of methods.filter((one) => one.family === family)) {
        const row = part.appendChild(element("label", "caap-method"));
        const box = row.appendChild(element("input", "", { type: "checkbox", value: method.name }));
        row.appendChild(element("span", "caap-method-name")).textContent = method.name;
        row.appendChild(element("span", "caap-note")).textContent = passes(method.passes);
        row.title = [method.source, `reads ${method.needs}`].join("\n");
        box.addEventListener("change", () => toggle(method.name, box.checked));
        rows.push({ row, box, name: method.name, text: [method.name, method.name.replaceAll("_", " "), family, method.source].join("\n").toLowerCase() });
      }
      return part;
    }));
    mark();
  }

  function mark() {
    const value = model.get("value");
    rows.forEach(({ box, name }) => {
      box.checked = value.includes(name);
      box.disabled = box.checked && value.length === 1; // at least one stays checked
    });
    filter();
  }

  function filter() {
    const parts = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    rows.forEach(({ row, text }) => { row.hidden = !parts.every((part) => text.includes(part)); });
    list.querySelectorAll(".caap-family").forEach((part) => { part.hidden = !part.querySelector(".caap-method:not([hidden])"); });
    const fit = rows.filter(({ row }) => !row.hidden).length;
    count.textContent = parts.length ? `${fit} of ${rows.length} match` : `${model.get("value").length} of ${rows.length} chosen`;
  }

  search.addEventListener("input", filter);
  search.addEventListener("keydown", (event) => {
    if (event.key === "Enter") { // the only match
      const fit = rows.filter(({ row }) => !row.hidden);
      if (fit.length === 1 && !fit[0].box.disabled) fit[0].box.click();
    } else if (event.key === "Escape") {
      search.value = "";
      filter();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  });
  model.on("change:methods", build);
  model.on("change:value", mark);
  build();
  return () => {
    model.off("change:methods", build);
    model.off("change:value", mark);
  };
}

export default { render };
