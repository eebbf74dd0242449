// PNG files, bytes in and bytes out.  A <canvas> would do it too, but some browsers change a few
// pixels there, against being recognised by them, and one pixel more or less is another label.

const SIGNATURE = [137, 80, 78, 71, 13, 10, 26, 10];
const GREY = 0;
const RGB = 2;

const CRC_OF_BYTE = Uint32Array.from({ length: 256 }, (_, byte) => {
  for (let bit = 0; bit < 8; bit++) byte = byte & 1 ? 0xedb88320 ^ (byte >>> 1) : byte >>> 1;
  return byte;
});

function crc(bytes) {
  let value = 0xffffffff;
  for (const byte of bytes) value = CRC_OF_BYTE[(value ^ byte) & 255] ^ (value >>> 8);
  return ~value >>> 0;
}

async function through(bytes, stream) {
  const readable = new Blob([bytes]).stream().pipeThrough(stream);
  return new Uint8Array(await new Response(readable).arrayBuffer());
}

function chunk(name, data) {
  const bytes = new Uint8Array(data.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, data.length);
  bytes.set(new TextEncoder().encode(name), 4);
  bytes.set(data, 8);
  view.setUint32(data.length + 8, crc(bytes.subarray(4, data.length + 8)));
  return bytes;
}

// pixels: row by row, one number a pixel (a map of label ids) or three (a picture).
export async function encodePng(pixels, width, height) {
  const rowBytes = pixels.length / height;
  const header = new Uint8Array(13);
  const view = new DataView(header.buffer);
  view.setUint32(0, width);
  view.setUint32(4, height);
  header.set([8, rowBytes === width ? GREY : RGB], 8); // 8 bits, not interlaced
  const rows = new Uint8Array((rowBytes + 1) * height); // each begins with its filter: none
  for (let y = 0; y < height; y++) {
    rows.set(pixels.subarray(y * rowBytes, (y + 1) * rowBytes), y * (rowBytes + 1) + 1);
  }
  const data = await through(rows, new CompressionStream("deflate"));
  const parts = [chunk("IHDR", header), chunk("IDAT", data), chunk("IEND", new Uint8Array())];
  return new Blob([new Uint8Array(SIGNATURE), ...parts], { type: "image/png" });
}

// A map of label ids from the bytes of a file -> { ids, width, height }.
export async function decodeMap(bytes, name) {
  const wanted = "expected a map that the painter saved, a file that ends in _labelIds.png";
  if (SIGNATURE.some((byte, i) => bytes[i] !== byte)) {
    throw new Error(`${name} is no PNG file: ${wanted}.`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const damaged = new Error(`${name} is cut off or damaged: save or download it again.`);
  const data = [];
  let [place, header, ended] = [8, null, false];
  while (place + 12 <= bytes.length && !ended) {
    const length = view.getUint32(place);
    const end = place + 8 + length;
    const kind = String.fromCharCode(...bytes.subarray(place + 4, place + 8));
    if (end + 4 > bytes.length || crc(bytes.subarray(place + 4, end)) !== view.getUint32(end)) {
      throw damaged;
    }
    if (kind === "IHDR") header = new DataView(bytes.buffer, bytes.byteOffset + place + 8, 13);
    if (kind === "IDAT") data.push(bytes.subarray(place + 8, end));
    ended = kind === "IEND";
    place = end + 4;
  }
  if (!ended || !header) throw damaged;
  const [width, height] = [header.getUint32(0), header.getUint32(4)];
  const [depth, color, interlaced] = [8, 9, 12].map((at) => header.getUint8(at));
  if (depth !== 8 || color !== GREY || interlaced) {
    throw new Error(`${name} is a picture in colours, or of another bit depth: ${wanted}.`);
  }
  const rows = await through(new Blob(data), new DecompressionStream("deflate")).catch(() => {
    throw damaged;
  });
  if (rows.length !== (width + 1) * height) throw damaged;
  const ids = unfiltered(rows, width, height);
  const largest = ids.reduce((a, b) => Math.max(a, b), 0);
  if (largest > 33) {
    throw new Error(`${name} holds the value ${largest}, and label ids are 0 to 33: ${wanted}.`);
  }
  return { ids, width, height };
}

// The filters of PNG, which foretell a byte a from the left, b from above, c from both.
const FORETELL = [
  () => 0,
  (a) => a,
  (a, b) => b,
  (a, b) => (a + b) >> 1,
  (a, b, c) => {
    const [da, db, dc] = [Math.abs(b - c), Math.abs(a - c), Math.abs(a + b - 2 * c)];
    return da <= db && da <= dc ? a : db <= dc ? b : c;
  },
];

function unfiltered(rows, width, height) {
  const ids = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const row = rows.subarray(y * (width + 1), (y + 1) * (width + 1));
    const foretell = FORETELL[row[0]];
    for (let x = 0; x < width; x++) {
      const at = y * width + x;
      const [a, b] = [x ? ids[at - 1] : 0, y ? ids[at - width] : 0];
      ids[at] = row[x + 1] + foretell(a, b, x && y ? ids[at - width - 1] : 0);
    }
  }
  return ids;
}
