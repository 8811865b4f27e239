// Search of classes by a text.

const LIKELY = 0.01;
const words = (text) => text.toLowerCase().split(/\s+/).filter(Boolean).join(" ");
const shortName = (name) => name.split(",")[0].trim() || name;

class ClassSearch {
  constructor(names, ids) {
    this.names = names;
    this.ids = ids;
    this.lower = names.map(words);
    this.likelihoods = null;
  }

  label(index) {
    return `${index}: ${shortName(this.names[index])}`;
  }

  // All matching classes: those with exactly this name, index or id; then likely ones; then those with
  // the whole word in their names; then the rest; each likeliest first.
  find(text) {
    const query = words(text);
    const every = this.names.map((_, index) => index);
    if (!query) return every.sort((a, b) => this.compare(a, b));
    const exact = new Set(every.filter((index) => this.isExactly(index, query)));
    const parts = query.split(" ");
    const fits = (index) =>
      exact.has(index) || parts.every((part) => this.lower[index].includes(part)) || this.startsAs(index, query);
    const whole = new RegExp(`(^|[^\\p{L}\\p{N}_])${query.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")}($|[^\\p{L}\\p{N}_])`, "u");
    const likely = (index) => this.likelihoods && this.likelihoods[index] >= LIKELY;
    const rank = (index) => (exact.has(index) ? 0 : likely(index) ? 1 : whole.test(this.lower[index]) ? 2 : 3);
    return every.filter(fits).sort((a, b) => rank(a) - rank(b) || this.compare(a, b));
  }

  // The one class that a text means; null if none or several match.
  only(text) {
    const query = words(text);
    const label = query.match(/^(\d+): (.*)$/);
    if (label && words(this.label(Number(label[1]) % this.names.length)) === query) return Number(label[1]);
    const found = this.find(text);
    const exact = found.filter((index) => this.isExactly(index, query));
    if (exact.length) return exact.length === 1 ? exact[0] : null;
    return found.length === 1 ? found[0] : null;
  }

  isExactly(index, query) {
    if (String(index) === query || this.ids[index] === query || this.lower[index] === query) return true;
    return this.lower[index].includes(query) && this.lower[index].split(",").some((name) => name.trim() === query);
  }

  startsAs(index, query) {
    return (/^\d+$/.test(query) && String(index).startsWith(query)) || (/^n\d+$/.test(query) && !!this.ids[index]?.startsWith(query));
  }

  compare(a, b) {
    return this.likelihoods ? this.likelihoods[b] - this.likelihoods[a] || a - b : a - b;
  }

  share(index) {
    if (!this.likelihoods) return "";
    const percent = 100 * this.likelihoods[index];
    return percent < 0.05 ? "<0.1%" : `${percent.toFixed(1)}%`;
  }
}
