// A colour bar below a map: its colours, round values, the unit, and a tip at each end where scores are cut off.

const STOPS = 64;
const TICK_WIDTH = 58; // pixels needed for a value and the space around it

function node(tag, className, parent, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  if (text) made.textContent = text;
  return parent ? parent.appendChild(made) : made;
}

class ColourBar {
  constructor(parent) {
    this.element = node("div", "caap-bar", parent);
    const strip = node("div", "caap-bar-strip", this.element);
    this.below = node("i", "caap-bar-below", strip);
    this.colours = node("i", "caap-bar-colours", strip);
    this.above = node("i", "caap-bar-above", strip);
    this.marker = node("b", "caap-bar-marker", this.colours);
    this.ticks = node("span", "caap-bar-ticks", this.colours);
    this.unit = node("div", "caap-bar-unit", this.element);
  }

  /** Show the scale of a map, or nothing if there is none. */
  draw(tile, ends, known, table, look, width) {
    this.element.hidden = !ends;
    this.ends = ends;
    if (!ends) return;
    const colour = (place) => {
      const [red, green, blue, opacity] = table.subarray(4 * place, 4 * place + 4);
      const score = ends[0] + ((place + 0.5) / 256) * (ends[1] - ends[0]);
      const shown = isShown(score, tile, look.signs) ? (look.fade ? opacity / 255 : 1) : 0;
      return `rgba(${red}, ${green}, ${blue}, ${shown.toFixed(3)})`;
    };
    const stops = Array.from({ length: STOPS }, (_, stop) => colour(Math.round((stop * 255) / (STOPS - 1))));
    this.colours.style.setProperty("--caap-colours", `linear-gradient(to right, ${stops.join(", ")})`);
    this.below.style.setProperty("--caap-colours", `linear-gradient(${colour(0)}, ${colour(0)})`);
    this.above.style.setProperty("--caap-colours", `linear-gradient(${colour(255)}, ${colour(255)})`);
    const [low, high] = known;
    const slack = 1e-6 * Math.max(Math.abs(ends[0]), Math.abs(ends[1]));
    this.below.classList.toggle("caap-cut", low < ends[0] - slack);
    this.above.classList.toggle("caap-cut", high > ends[1] + slack);
    this.ticks.replaceChildren();
    for (const [value, text] of ticksOf(ends, Math.min(Math.max(Math.floor(width / TICK_WIDTH), 2), 7))) {
      node("span", "", this.ticks, text).style.setProperty("--caap-share", this.share(value));
    }
    this.unit.textContent = tile.unit;
    const cut = [low < ends[0] - slack && "below", high > ends[1] + slack && "above"].filter(Boolean);
    this.element.title = [
      tile.unit,
      `colours from ${numberText(ends[0])} to ${numberText(ends[1])}`,
      `scores from ${numberText(low)} to ${numberText(high)}`,
      ...(cut.length ? [`scores ${cut.join(" and ")} have the colour of that end`] : []),
    ].join("\n");
  }

  share(value) {
    const [low, high] = this.ends;
    return Math.min(Math.max((value - low) / (high - low || 1), 0), 1);
  }

  /** Mark a score, or none. */
  mark(score) {
    const shown = this.ends && Number.isFinite(score);
    this.marker.hidden = !shown;
    if (shown) this.marker.style.setProperty("--caap-share", this.share(score));
  }
}
