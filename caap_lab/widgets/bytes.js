// Arrays from the bytes that the kernel sends; empty if it sends none.

function bytesOf(view) {
  return view ? new Uint8Array(view.buffer, view.byteOffset, view.byteLength) : new Uint8Array(0);
}

/** Little-endian numbers of four bytes, at any offset. */
function floatsOf(view) {
  const bytes = bytesOf(view);
  const reader = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Float32Array.from({ length: bytes.length / 4 }, (_, place) => reader.getFloat32(4 * place, true));
}
