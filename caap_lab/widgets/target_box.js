// A class, or one rather than another.

function render({ model, el }) {
  el.classList.add("caap-live", "caap-target");
  el.setAttribute("data-lm-suppress-shortcuts", "true");
  const search = new ClassSearch(model.get("names"), model.get("ids"));

  function described(index) {
    const id = search.ids[index] ? ` (${search.ids[index]})` : "";
    return { value: search.label(index), text: search.label(index), title: search.names[index] + id, note: search.share(index) };
  }

  function decide(text) {
    if (!text.trim()) return { value: "" };
    if (text === model.get("given")) return { value: text };
    const only = search.only(text);
    if (only !== null) return { value: search.label(only) };
    const fits = search.find(text).length;
    if (!fits) return { value: text.trim(), problem: `No class matches “${text.trim()}”.` }; // the kernel names the nearest
    return { problem: `${fits.toLocaleString("en")} classes match “${text.trim()}”: choose one from the list.` };
  }

  function field(trait, label, first) {
    return searchField({
      label,
      decide,
      options(text, most) {
        const before = text ? [] : first();
        const found = search.find(text);
        const count = before.length + found.length;
        return { count, first: [...before, ...found.slice(0, most - before.length).map(described)] };
      },
      choose(value) {
        model.set(trait, value);
        if (trait === "against" && value && !model.get("value") && search.likelihoods) {
          model.set("value", search.label(search.find("")[0])); // the prediction, by its name
        }
        model.save_changes();
      },
    });
  }

  const predicted = () => [{ value: "", text: model.get("placeholder"), note: "" }];
  const given = () => (model.get("given") ? [{ value: model.get("given"), text: model.get("given") }] : []);
  const of = field("value", "class", () => [...given(), ...predicted()]);
  const against = field("against", "rather than", () => [{ value: "", text: "no other class", note: "" }]);
  const other = element("div", "caap-against");
  const more = element("button", "caap-link-button", { type: "button" });
  more.textContent = "rather than …";
  more.title = "Explain why this class rather than another one";
  other.append(element("span", "caap-note"), against.root);
  other.firstChild.textContent = "rather than";
  el.append(of.root, more, other);
  more.addEventListener("click", () => {
    more.hidden = true;
    other.hidden = false;
    against.focus();
  });

  function show() {
    const view = model.get("likelihoods");
    search.likelihoods = view.byteLength ? floatsOf(view) : null;
    const rather = model.get("against");
    const open = Boolean(rather) || (document.activeElement && other.contains(document.activeElement));
    other.hidden = !open;
    more.hidden = open || model.get("value") === model.get("given") && Boolean(model.get("given"));
    of.show(model.get("value"), model.get("placeholder"), rather ? "" : model.get("problem"));
    against.show(rather, "no other class", rather ? model.get("problem") : "");
    of.refresh();
    against.refresh();
  }

  model.on("change", show);
  show();
  return () => model.off("change", show);
}

export default { render };
