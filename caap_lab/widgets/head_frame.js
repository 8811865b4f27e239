// The elements of a grid of heads: its name and tools, the maps with the numbers of rows and columns, the colour bar.

const SCALES = ["each head", "each layer", "all heads"];

const make = (parent, ...what) => parent.appendChild(element(...what));

// The elements of the whole, and its buttons.
function frameOf(el) {
  el.classList.add("caap-live", "caap-heads");
  const head = make(el, "div", "caap-heads-head");
  const caption = make(head, "div", "caap-caption");
  const named = make(head, "label", "caap-heads-scale");
  make(named, "span", "").textContent = "scale of";
  const scale = make(named, "select", "", { "aria-label": "Upper end of the colours", title: "The colours end at the highest value of" });
  for (const name of SCALES) scale.append(new Option(name, name));
  const zooms = make(head, "span", "caap-heads-zoom", { role: "group", "aria-label": "Zoom" });
  const button = (text, label) => {
    const node = make(zooms, "button", "", { type: "button", "aria-label": label, title: `${label} (Ctrl and wheel)` });
    node.textContent = text;
    return node;
  };
  const buttons = [button("−", "Zoom out"), button("fit", "Show all maps"), button("+", "Zoom in")];
  const body = make(el, "div", "caap-heads-body");
  const strip = (classes) => make(make(body, "div", classes, { "aria-hidden": "true" }), "div", "caap-heads-strip");
  const columns = strip("caap-heads-columns"); // the canvas's label describes the choice
  const rows = strip("caap-heads-rows");
  const frame = make(body, "div", "caap-heads-frame");
  const extent = make(frame, "div", "caap-heads-extent");
  const canvas = make(extent, "canvas", "", { tabindex: "0", role: "application" });
  const bar = make(el, "div", "caap-heads-bar", { role: "img" });
  const [low, colours, high] = ["span", "i", "span"].map((tag) => make(bar, tag, ""));
  const tip = make(el, "div", "caap-tip", { role: "status" });
  return { caption, named, scale, zooms, buttons, columns, rows, frame, extent, canvas, bar, low, colours, high, tip };
}
