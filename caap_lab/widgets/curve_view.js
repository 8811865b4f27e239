// A line chart in SVG; colours of text and axes are the theme's.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { top: 12, right: 12, bottom: 40, left: 62 };

function niceTicks(low, high, count) {
  const raw = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw);
  const ticks = [];
  for (let tick = Math.ceil(low / step) * step; tick <= high + step * 1e-9; tick += step) ticks.push(tick);
  return [ticks, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))];
}

function add(parent, name, attributes, text) {
  const node = parent.appendChild(document.createElementNS(SVG, name));
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

function render({ model, el }) {
  el.classList.add("caap-live", "caap-curve");
  const host = el.appendChild(document.createElement("div"));
  const legend = el.appendChild(document.createElement("div"));
  legend.className = "caap-legend";

  function draw() {
    const [width, height] = [model.get("width"), model.get("height")];
    const x = model.get("x");
    const series = model.get("series");
    const current = model.get("current");
    const svg = document.createElementNS(SVG, "svg");
    for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}`, role: "img" })) {
      svg.setAttribute(key, value);
    }
    const known = series.flatMap((s) => s.values.filter((v) => v !== null));
    let low = known.length ? Math.min(...known) : 0;
    let high = known.length ? Math.max(...known) : 1;
    if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
    const room = 0.06 * (high - low);
    [low, high] = [low - room, high + room];
    const [first, last] = [x[0] ?? 0, x[x.length - 1] ?? 1];
    const right = (v) =>
      MARGIN.left + ((v - first) / (last - first || 1)) * (width - MARGIN.left - MARGIN.right);
    const up = (v) => height - MARGIN.bottom - ((v - low) / (high - low)) * (height - MARGIN.top - MARGIN.bottom);

    const [ticks, digits] = niceTicks(low, high, 4);
    for (const tick of ticks) {
      add(svg, "line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: up(tick), y2: up(tick), class: "caap-grid" });
      add(svg, "text", { x: MARGIN.left - 6, y: up(tick) + 4, "text-anchor": "end" }, tick.toFixed(digits));
    }
    const labelStep = Math.ceil(x.length / 13);
    x.forEach((v, i) => {
      if (i % labelStep === 0) add(svg, "text", { x: right(v), y: height - MARGIN.bottom + 16, "text-anchor": "middle" }, v);
    });
    add(svg, "text", { x: (MARGIN.left + width - MARGIN.right) / 2, y: height - 6, "text-anchor": "middle" }, model.get("x_label"));
    const middle = (MARGIN.top + height - MARGIN.bottom) / 2;
    add(svg, "text", { x: 14, y: middle, transform: `rotate(-90 14 ${middle})`, "text-anchor": "middle" }, model.get("y_label"));
    if (x.includes(current)) {
      add(svg, "line", { x1: right(current), x2: right(current), y1: MARGIN.top, y2: height - MARGIN.bottom, class: "caap-current" });
    }
    for (const { values, colour, dash } of series) {
      const points = x.map((v, i) => [v, values[i]]).filter(([, value]) => value !== null && value !== undefined);
      const path = points.map(([v, value]) => `${right(v)},${up(value)}`).join(" ");
      add(svg, "polyline", { points: path, fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash });
      for (const [v, value] of points) {
        const size = v === current ? 5.5 : 3;
        const dot = add(svg, "circle", { cx: right(v), cy: up(value), r: size, fill: colour });
        add(dot, "title", {}, `${model.get("x_label")} ${v}: ${value.toPrecision(4)}`);
      }
    }
    const index = x.indexOf(current);
    const said = series
      .map((s) => [s.name, s.values[index]])
      .filter(([, value]) => value !== null && value !== undefined)
      .map(([name, value]) => `${name} ${value.toPrecision(3)}`);
    svg.setAttribute("aria-label", `${model.get("label")}. At ${current}: ${said.join(", ") || "not computed yet"}.`);
    svg.addEventListener("click", (event) => {
      const at = ((event.clientX - svg.getBoundingClientRect().left) * width) / svg.getBoundingClientRect().width;
      const nearest = x.reduce((a, b) => (Math.abs(right(b) - at) < Math.abs(right(a) - at) ? b : a), x[0]);
      model.set("current", nearest);
      model.save_changes();
    });
    host.replaceChildren(svg);
    legend.replaceChildren(
      ...(series.length > 1 ? series : []).map(({ name, colour, dash }) => {
        const entry = document.createElement("span");
        const mark = add(document.createElementNS(SVG, "svg"), "line", {
          x1: 0, x2: 30, y1: 5, y2: 5, stroke: colour, "stroke-width": 3, "stroke-dasharray": dash,
        }).parentNode;
        mark.setAttribute("width", 30);
        mark.setAttribute("height", 10);
        entry.append(mark, ` ${name}`);
        return entry;
      }),
    );
  }

  model.on("change", draw);
  draw();
  return () => model.off("change", draw);
}

export default { render };
