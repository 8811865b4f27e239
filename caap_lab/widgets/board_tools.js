// The row of tools above the tiles. They set the board's traits in the browser, and so work while the kernel is busy.

const MODES = {
  choose: ["M3 1l10 7-4.4.9L11 14l-1.9.9-2.4-5.2L3.6 13z", "Choose a patch"],
  box: ["M2 2h3v1.4H3.4V5H2zM11 2h3v3h-1.4V3.4H11zM2 11h1.4v1.6H5V14H2zM12.6 11H14v3h-3v-1.4h1.6zM6.5 2h3v1.4h-3zM6.5 12.6h3V14h-3zM2 6.5h1.4v3H2zM12.6 6.5H14v3h-1.4z", "Drag a box"],
  paint: ["M13.8 1.2c.7.6.6 1.6 0 2.3L8.6 9.8 6.5 8l5.1-6.5c.6-.7 1.6-.9 2.2-.3zM5.7 8.8l2.1 1.9c.2 2.3-1.6 4-4.1 4-1 0-2-.3-2.7-.9 1.4-.3 1.5-1.2 1.7-2.3.2-1.5 1.5-2.7 3-2.7z", "Paint patches"],
  erase: ["M9.6 2.2l4.2 4.2c.5.5.5 1.2 0 1.7L8.9 13H14v1.4H5.2L2.2 11.4c-.5-.5-.5-1.2 0-1.7l5.7-7.5c.5-.5 1.2-.5 1.7 0zM5.8 13h1.2l1.7-1.7-3.6-3.6-1.9 2.5z", "Erase patches"],
};
const LOOKS = { patches: [false, "One colour per patch"], smooth: [true, "Interpolate scores between patches"] };
const RANGES = {
  full: [false, "Colours from the lowest to the highest score"],
  "2\u201398 %": [true, "Colours from the 2nd to the 98th percentile, robust to outliers"],
};
const SIGNS = {
  "\u00b1": ["all", "All scores"],
  "+": ["positive", "Positive scores only"],
  "\u2212": ["negative", "Negative scores only"],
};

/** A titled group of tools; `update` shows the board's state in it. */
function group(parent, label, title = "") {
  const element = node("div", "caap-tool", parent);
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", label);
  if (title) node("span", "caap-tool-name", element, title);
  return element;
}

/** Buttons of which one is pressed: `options` are [value, title, text or icon]. */
function choice(parent, model, trait, label, options, title = "") {
  const element = group(parent, label, title);
  element.classList.add("caap-choice");
  const buttons = options.map(([value, tip, text, path]) => {
    const button = node("button", "", element, path ? "" : text);
    button.type = "button";
    button.title = tip;
    button.setAttribute("aria-label", tip);
    button.dataset.value = String(value);
    if (path) button.append(icon(path));
    button.addEventListener("click", () => setTrait(model, trait, value));
    return [button, value];
  });
  const update = () => {
    for (const [button, value] of buttons) button.setAttribute("aria-pressed", String(model.get(trait) === value));
  };
  return { element, update };
}

function toggle(parent, model, trait, text, tip) {
  const element = group(parent, text);
  const button = node("button", "", element, text);
  button.type = "button";
  button.title = tip;
  button.addEventListener("click", () => setTrait(model, trait, !model.get(trait)));
  return { element, update: () => button.setAttribute("aria-pressed", String(model.get(trait))) };
}

/** An input after its name. The board follows immediately; the kernel gets the final value. */
function field(parent, model, trait, text, tip, tag, settings) {
  const element = node("label", "caap-tool", parent);
  element.title = tip;
  node("span", "caap-tool-name", element, text);
  const input = Object.assign(node(tag, "", element), settings);
  input.setAttribute("aria-label", text);
  input.setAttribute("data-lm-suppress-shortcuts", "true"); // JupyterLab would use the arrow keys
  const value = () => (input.type === "select-one" ? input.value : Number(input.value));
  input.addEventListener("input", () => {
    if (input.checkValidity() && input.value !== "") model.set(trait, value());
  });
  input.addEventListener("change", () => {
    input.value = model.get(trait);
    model.save_changes();
  });
  const update = () => {
    if (input.value !== String(model.get(trait)) && !(input.type === "number" && input.matches(":focus"))) {
      input.value = model.get(trait);
    }
  };
  return { element, input, update };
}

function setTrait(model, trait, value) {
  model.set(trait, value);
  model.save_changes();
}

const BUILDERS = {
  modes(parent, model) {
    const options = model.get("modes").map((mode) => [mode, MODES[mode][1], mode, MODES[mode][0]]);
    return choice(parent, model, "mode", "What dragging does", options);
  },
  smooth(parent, model) {
    const options = Object.entries(LOOKS).map(([text, [value, tip]]) => [value, tip, text]);
    return choice(parent, model, "smooth", "Look of the maps", options);
  },
  robust(parent, model) {
    const options = Object.entries(RANGES).map(([text, [value, tip]]) => [value, tip, text]);
    return choice(parent, model, "robust", "Range of the colours", options, "range");
  },
  signs(parent, model) {
    const options = Object.entries(SIGNS).map(([text, [value, tip]]) => [value, tip, text]);
    return choice(parent, model, "signs", "Signs shown", options, "signs");
  },
  fade: (parent, model) =>
    toggle(parent, model, "fade", "fade", "Opacity follows the score: low scores leave the photo visible"),
  lock: (parent, model) => toggle(parent, model, "lock", "lock scale", "One scale for all maps of the same unit"),
  opacity(parent, model) {
    const settings = { type: "range", min: 0, max: 1, step: 0.05 };
    return field(parent, model, "opacity", "opacity", "Opacity of the maps over their photos", "input", settings);
  },
  top(parent, model) {
    const settings = { type: "number", min: 0, max: 999, step: 1 };
    return field(parent, model, "top", "top", "Number of highest patches to outline", "input", settings);
  },
  colours(parent, model) {
    const built = field(parent, model, "colours", "colours", "Colour map", "select", {});
    const names = Object.keys(model.get("tables")).filter((name) => !name.endsWith(" signed"));
    for (const name of names) built.input.add(new Option(name, name));
    return built;
  },
};

/** Build a board's tools; returns a function that shows the board's state in them. */
function buildTools(parent, model, isSigned) {
  let tools = {};
  const build = () => {
    parent.replaceChildren();
    const names = model.get("tools").filter((name) => name !== "modes" || model.get("modes").length > 1);
    tools = Object.fromEntries(names.map((name) => [name, BUILDERS[name](parent, model)]));
    parent.hidden = names.length === 0;
  };
  const update = () => {
    for (const tool of Object.values(tools)) tool.update();
    if (tools.signs) tools.signs.element.hidden = !isSigned(); // without a meaningful 0 there are no signs
  };
  build();
  return { build, update };
}
