// A line chart in SVG, as wide as the space allows; text and axes have the theme's colours.

const SVG = "http://www.w3.org/2000/svg";
const MARGIN = { top: 12, right: 14, bottom: 40, left: 58 };
const NARROWEST = 240;

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

const isKnown = (value) => value !== null && value !== undefined;

// Runs of points without a gap: a value that is not known yet is no line.
function runs(x, values) {
  const found = [[]];
  x.forEach((v, i) => {
    if (isKnown(values[i])) found[found.length - 1].push([v, values[i]]);
    else if (found[found.length - 1].length) found.push([]);
  });
  return found.filter((run) => run.length);
}

// Ends of the vertical axis: those of the kernel, or the values' own where it gives none.
function ends(series, limits) {
  const known = series.flatMap((s) => s.values.filter(isKnown));
  let [low, high] = known.length ? [Math.min(...known), Math.max(...known)] : [0, 1];
  if (limits.length === 2) return [Math.min(low, limits[0]), Math.max(high, limits[1])];
  if (high - low < 1e-9) [low, high] = [low - 0.5, high + 0.5];
  const room = 0.06 * (high - low);
  return [low - room, high + room];
}

function render({ model, el }) {
  el.classList.add("caap-live", "caap-curve");
  const title = el.appendChild(document.createElement("div"));
  title.className = "caap-caption";
  const host = el.appendChild(document.createElement("div"));
  const tip = el.appendChild(document.createElement("div"));
  tip.className = "caap-curve-tip";
  const legend = el.appendChild(document.createElement("div"));
  legend.className = "caap-legend";
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("tabindex", "0");
  svg.setAttribute("role", "slider");
  svg.setAttribute("aria-orientation", "horizontal");
  host.append(svg);

  let pointed = null; // the number under the mouse
  let scale = null; // from numbers to pixels
  let marks = null; // the marks at the pointed number
  let drawn = 0;

  const named = (at) => `${model.get("x_label").split(" (")[0]} ${at}: ${words(at) || "not computed yet"}`;

  function words(at) {
    const index = model.get("x").indexOf(at);
    return model
      .get("series")
      .map((s) => [s.name, s.values[index]])
      .filter(([, value]) => isKnown(value))
      .map(([name, value]) => `${name} ${value.toPrecision(3)}`)
      .join(", ");
  }

  function draw() {
    const width = Math.max(Math.floor(el.clientWidth), NARROWEST);
    const height = Math.round(Math.max(model.get("height"), Math.min(0.55 * width, 1.5 * model.get("height"))));
    const [x, series, current] = [model.get("x"), model.get("series"), model.get("current")];
    for (const [key, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) {
      svg.setAttribute(key, value);
    }
    svg.replaceChildren();
    const [low, high] = ends(series, model.get("limits"));
    const [first, last] = [x[0] ?? 0, x[x.length - 1] ?? 1];
    const right = (v) => MARGIN.left + ((v - first) / (last - first || 1)) * (width - MARGIN.left - MARGIN.right);
    const up = (v) => height - MARGIN.bottom - ((v - low) / (high - low)) * (height - MARGIN.top - MARGIN.bottom);
    scale = { right, up, height };

    const [ticks, digits] = niceTicks(low, high, 4);
    for (const tick of ticks) {
      add(svg, "line", { x1: MARGIN.left, x2: width - MARGIN.right, y1: up(tick), y2: up(tick), class: "caap-grid" });
      add(svg, "text", { x: MARGIN.left - 6, y: up(tick) + 4, "text-anchor": "end" }, tick.toFixed(digits));
    }
    const labelStep = Math.ceil(x.length / Math.max(Math.floor((width - MARGIN.left - MARGIN.right) / 26), 1));
    x.forEach((v, i) => {
      if (i % labelStep) return;
      add(svg, "text", { x: right(v), y: height - MARGIN.bottom + 16, "text-anchor": "middle" }, v);
    });
    const across = (MARGIN.left + width - MARGIN.right) / 2;
    add(svg, "text", { x: across, y: height - 6, "text-anchor": "middle" }, model.get("x_label"));
    const middle = (MARGIN.top + height - MARGIN.bottom) / 2;
    const turned = `rotate(-90 14 ${middle})`;
    add(svg, "text", { x: 14, y: middle, transform: turned, "text-anchor": "middle" }, model.get("y_label"));
    if (x.includes(current)) {
      const edge = { y1: MARGIN.top, y2: height - MARGIN.bottom };
      add(svg, "line", { x1: right(current), x2: right(current), ...edge, class: "caap-current" });
    }
    let points = 0;
    for (const { values, colour, dash } of series) {
      for (const run of runs(x, values)) {
        points += run.length;
        const path = run.map(([v, value]) => `${right(v)},${up(value)}`).join(" ");
        const look = { fill: "none", stroke: colour, "stroke-width": 2, "stroke-dasharray": dash };
        add(svg, "polyline", { points: path, ...look });
        for (const [v, value] of run) {
          add(svg, "circle", { cx: right(v), cy: up(value), r: v === current ? 5.5 : 3, fill: colour });
        }
      }
    }
    marks = add(svg, "g", { class: "caap-pointed" });
    el.dataset.points = String(points); // what is on the screen, for tests and measurements
    el.dataset.current = String(current);
    el.dataset.shown = String(++drawn);
    name(x, current);
    point(pointed);
  }

  function name(x, current) {
    title.textContent = title.title = model.get("title");
    title.hidden = !model.get("title");
    const said = words(current) || "not computed yet";
    svg.setAttribute("aria-label", `${model.get("label")}. At ${current}: ${said}.`);
    svg.setAttribute("aria-valuemin", String(x[0] ?? 0));
    svg.setAttribute("aria-valuemax", String(x[x.length - 1] ?? 0));
    svg.setAttribute("aria-valuenow", String(current));
    svg.setAttribute("aria-valuetext", named(current));
    const series = model.get("series");
    legend.replaceChildren(
      ...(series.length > 1 ? series : []).map(({ name, colour, dash }) => {
        const entry = document.createElement("span");
        const stroke = { stroke: colour, "stroke-width": 3, "stroke-dasharray": dash };
        const mark = add(document.createElementNS(SVG, "svg"), "line", { x1: 0, x2: 30, y1: 5, y2: 5, ...stroke });
        mark.parentNode.setAttribute("width", 30);
        mark.parentNode.setAttribute("height", 10);
        entry.append(mark.parentNode, ` ${name}`);
        return entry;
      }),
    );
  }

  // A line and rings at a number, and its values in words; at the current number if the mouse is elsewhere.
  function point(at) {
    pointed = at;
    const [x, series] = [model.get("x"), model.get("series")];
    marks.replaceChildren();
    const shown = at ?? model.get("current");
    tip.textContent = x.includes(shown) ? named(shown) : "";
    if (at === null) return;
    const place = { x1: scale.right(at), x2: scale.right(at), y1: MARGIN.top, y2: scale.height - MARGIN.bottom };
    add(marks, "line", place);
    for (const { values, colour } of series) {
      const value = values[x.indexOf(at)];
      if (!isKnown(value)) continue;
      add(marks, "circle", { cx: scale.right(at), cy: scale.up(value), r: 6, stroke: colour, "stroke-width": 2 });
    }
  }

  function nearest(event) {
    const at = event.clientX - svg.getBoundingClientRect().left;
    return model.get("x").reduce((a, b) => (Math.abs(scale.right(b) - at) < Math.abs(scale.right(a) - at) ? b : a));
  }

  function choose(at) {
    if (at === model.get("current")) return;
    model.set("current", at);
    model.save_changes();
  }

  svg.addEventListener("pointermove", (event) => {
    if (!model.get("x").length) return;
    if (event.buttons & 1) choose(nearest(event));
    point(nearest(event));
  });
  svg.addEventListener("pointerleave", () => point(null));
  svg.addEventListener("pointerdown", (event) => {
    if (event.button === 0 && model.get("x").length) choose(nearest(event));
  });
  svg.addEventListener("keydown", (event) => {
    const x = model.get("x");
    const index = x.indexOf(model.get("current"));
    const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -5, PageUp: 5 };
    const wanted = { Home: 0, End: x.length - 1 }[event.key] ?? index + steps[event.key];
    if (Number.isNaN(wanted) || !x.length) return;
    event.preventDefault();
    event.stopPropagation(); // otherwise JupyterLab would move between cells
    point(null);
    choose(x[Math.min(Math.max(wanted, 0), x.length - 1)]);
  });

  // Several traits change in one message: draw once.
  let waiting = false;
  function later() {
    if (waiting) return;
    waiting = true;
    queueMicrotask(() => {
      waiting = false;
      draw();
    });
  }
  let width = 0;
  const resized = new ResizeObserver(() => {
    if (el.clientWidth !== width) requestAnimationFrame(draw);
    width = el.clientWidth;
  });
  resized.observe(el);
  model.on("change", later);
  draw();
  return () => {
    resized.disconnect();
    model.off("change", later);
  };
}

export default { render };
