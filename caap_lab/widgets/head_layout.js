// Positions of the maps: slots in rows, all visible at first, enlarged ones in a scrolling frame.

const GAP = 2; // pixels between maps
const APART = 8; // pixels before the means
const [SMALLEST, LARGEST, ENLARGED] = [4, 72, 240]; // pixels of a map's width: the least, and the most before and after a zoom

class Layout {
  constructor({ slots, across, split, rows, cols }) {
    this.slots = slots; // the map of each slot, -1 for none
    this.across = across;
    this.down = Math.ceil(slots.length / across);
    this.split = split;
    this.shape = cols / rows;
    this.size = [1, 1];
  }

  // Width in pixels if only the height limits the size of the maps.
  natural(height) {
    const tall = ((height - this.offset(1, this.down)) / this.down - GAP) * this.shape;
    return this.offset(0, this.across) + this.across * (Math.max(Math.min(Math.floor(tall), LARGEST), SMALLEST) + GAP);
  }

  // Set the size at which all maps are visible, times `zoom`; returns the zoom that was possible.
  fit(width, height, zoom) {
    const wide = (width - this.offset(0, this.across)) / this.across - GAP;
    const tall = ((height - this.offset(1, this.down)) / this.down - GAP) * this.shape;
    const whole = Math.max(Math.min(Math.floor(Math.min(wide, tall)), LARGEST), SMALLEST);
    this.most = Math.max(ENLARGED / whole, 1);
    const given = Math.min(Math.max(zoom, 1), this.most);
    this.size = [whole * given, (whole * given) / this.shape];
    return given;
  }

  offset(axis, place) {
    return GAP + (this.split[1 - axis] > 0 && place >= this.split[1 - axis] ? APART : 0);
  }

  left(column) {
    return this.offset(0, column) + column * (this.size[0] + GAP);
  }

  top(row) {
    return this.offset(1, row) + row * (this.size[1] + GAP);
  }

  get extent() {
    return [this.left(this.across), this.top(this.down)];
  }

  corner(slot) {
    return [this.left(slot % this.across), this.top(Math.floor(slot / this.across))];
  }

  // The slot at a place in pixels; in a gap, the nearest one.
  at(x, y) {
    const nearest = (count, edge, size, value) => {
      let best = 0;
      while (best + 1 < count && value >= edge(best + 1) - GAP / 2) best++;
      return best;
    };
    const column = nearest(this.across, (place) => this.left(place), this.size[0], x);
    const row = nearest(this.down, (place) => this.top(place), this.size[1], y);
    return row * this.across + column;
  }

  // The next slot with a map in a direction; the same one at the end.
  next(slot, down, right) {
    let [row, column] = [Math.floor(slot / this.across) + down, (slot % this.across) + right];
    while (row >= 0 && row < this.down && column >= 0 && column < this.across) {
      if (this.holds(row * this.across + column)) return row * this.across + column;
      [row, column] = [row + down, column + right];
    }
    return slot;
  }

  // The first or last slot with a map of a row or column.
  end(slot, down, right) {
    let next = slot;
    while ((next = this.next(slot, down, right)) !== slot) slot = next;
    return slot;
  }

  holds(slot) {
    return (this.slots[slot] ?? -1) >= 0;
  }
}
