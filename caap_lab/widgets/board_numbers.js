// Numbers for people: values at the pointer, ranks, and the ticks of a colour bar.

/** A number with four digits, formatted like Python's "%.4g". */
function numberText(value) {
  if (!Number.isFinite(value)) return "not known yet";
  if (value === 0) return "0";
  const digits = value.toPrecision(4);
  const size = Math.abs(Number(digits));
  if (size >= 1e-4 && size < 1e4) return String(Number(digits));
  const [share, power] = value.toExponential(3).split("e");
  const sign = power[0] === "-" ? "-" : "+";
  return `${Number(share)}e${sign}${power.slice(1).padStart(2, "0")}`;
}

/** Patches from the highest score to the lowest, ties in reading order; unknown scores are omitted. */
function ranked(scores) {
  const known = [...scores.keys()].filter((place) => !Number.isNaN(scores[place]));
  return known.sort((a, b) => scores[b] - scores[a] || a - b);
}

function tickText(value, step, largest) {
  if (value === 0) return "0";
  if (step < 1e-4 || largest >= 1e5) return String(Number(value.toPrecision(3)).toExponential()).replace("e+", "e");
  return value.toFixed(Math.max(0, -Math.floor(Math.log10(step) + 1e-9)));
}

/** Round values between two ends, at most `most` of them, as [[value, text], ...]. */
function ticksOf([low, high], most) {
  const largest = Math.max(Math.abs(low), Math.abs(high));
  if (!(high > low)) return [[low, numberText(low)]];
  const rough = (high - low) / Math.max(most - 1, 1);
  const power = 10 ** Math.floor(Math.log10(rough));
  for (const factor of [1, 2, 5, 10, 20, 50]) {
    const step = factor * power;
    const [first, last] = [Math.ceil(low / step - 1e-9), Math.floor(high / step + 1e-9)];
    if (last - first + 1 > most) continue;
    if (last > first || factor === 50) {
      const places = Array.from({ length: Math.max(last - first + 1, 0) }, (_, place) => (first + place) * step);
      return places.map((value) => [value, tickText(value, step, largest)]);
    }
  }
  return [low, high].map((value) => [value, numberText(value)]);
}
