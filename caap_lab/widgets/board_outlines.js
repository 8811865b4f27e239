// Frames around patches, each with a rim that is visible on any background.

const CHOSEN = "#d55e00";
const BOX = "#e69f00";
const NEIGHBOUR = "#56b4e9";
const WHITE = "#ffffff";
const BLACK = "#000000";

/** Left, top, right and bottom of the patches between two corners, in the canvas's pixels. */
function areaOf([top, left, bottom, right], tile, canvas) {
  const [high, wide] = [canvas.height / tile.rows, canvas.width / tile.cols];
  return [left * wide, top * high, (right + 1) * wide, (bottom + 1) * high];
}

/** The position at which a line of this width covers whole pixels inside the picture. */
function onPixels(value, size, width) {
  const shift = Math.round(width) % 2 ? 0.5 : 0;
  return Math.min(Math.max(Math.round(value), Math.round(width)), size - Math.round(width)) + (value < size / 2 ? shift : -shift);
}

function strokeTwice(context, path, colour, width, dash = []) {
  context.lineJoin = "miter";
  context.setLineDash([]);
  context.strokeStyle = colour === WHITE ? BLACK : WHITE;
  context.lineWidth = 2 * Math.round(width);
  context.stroke(path);
  context.setLineDash(dash);
  context.strokeStyle = colour;
  context.lineWidth = Math.round(width);
  context.stroke(path);
  context.setLineDash([]);
}

/** A frame around the patches between two corners; at the picture's edge it is inside. */
function frame(context, corners, tile, colour, width, dash) {
  const { canvas } = context;
  const [left, top, right, bottom] = areaOf(corners, tile, canvas);
  const path = new Path2D();
  const [x, y] = [onPixels(left, canvas.width, width), onPixels(top, canvas.height, width)];
  path.rect(x, y, onPixels(right, canvas.width, width) - x, onPixels(bottom, canvas.height, width) - y);
  strokeTwice(context, path, colour, width, dash);
}

/** One line around a set of patches, given by their numbers in reading order. */
function contour(context, numbers, tile, colour, width) {
  const { canvas } = context;
  const [high, wide] = [canvas.height / tile.rows, canvas.width / tile.cols];
  const [x, y] = [(col) => onPixels(col * wide, canvas.width, width), (row) => onPixels(row * high, canvas.height, width)];
  const path = new Path2D();
  const line = (fromCol, fromRow, toCol, toRow) => {
    path.moveTo(x(fromCol), y(fromRow));
    path.lineTo(x(toCol), y(toRow));
  };
  const has = (row, col) => col >= 0 && col < tile.cols && numbers.has(row * tile.cols + col);
  for (const number of numbers) {
    const [row, col] = [Math.floor(number / tile.cols), number % tile.cols];
    if (!has(row - 1, col)) line(col, row, col + 1, row);
    if (!has(row + 1, col)) line(col, row + 1, col + 1, row + 1);
    if (!has(row, col - 1)) line(col, row, col, row + 1);
    if (!has(row, col + 1)) line(col + 1, row, col + 1, row + 1);
  }
  context.lineCap = "square";
  strokeTwice(context, path, colour, width);
}
