// A frame as the server sends it: little-endian pixels and headers that say what they are.

export type Pixels = Uint8Array | Int16Array | Uint16Array | Float32Array;

export interface Frame {
  pixels: Pixels;
  rows: number;
  columns: number;
  /** 1, or 3 for interleaved RGB. */
  samples: 1 | 3;
  /** physical = stored × slope + intercept */
  slope: number;
  intercept: number;
  bytes: number;
}

/** What a Cornerstone image is made of; `pixels × slope + intercept` is the physical value. */
export interface Picture {
  pixels: Pixels;
  slope: number;
  intercept: number;
  /** Smallest and greatest of `pixels`. */
  min: number;
  max: number;
}

const KINDS = {
  uint8: { make: (buffer: ArrayBuffer) => new Uint8Array(buffer), size: 1 },
  int16: { make: (buffer: ArrayBuffer) => new Int16Array(buffer), size: 2 },
  uint16: { make: (buffer: ArrayBuffer) => new Uint16Array(buffer), size: 2 },
  float32: { make: (buffer: ArrayBuffer) => new Float32Array(buffer), size: 4 },
} as const;

function whole(headers: Headers, name: string): number {
  const value = Number(headers.get(name) ?? Number.NaN);
  if (!Number.isInteger(value) || value < 1) throw new Error(`the answer's ${name} is not a number of pixels`);
  return value;
}

function factor(headers: Headers, name: string, otherwise: number): number {
  const given = headers.get(name);
  const value = given === null ? otherwise : Number(given);
  if (!Number.isFinite(value)) throw new Error(`the answer's ${name} is not a number`);
  return value;
}

/** Reads one frame; throws an Error with a sentence when headers and bytes do not belong together. */
export function parseFrame(headers: Headers, buffer: ArrayBuffer): Frame {
  const dtype = headers.get("X-Frame-Dtype") ?? "";
  if (!(dtype in KINDS)) throw new Error(`pixels of type '${dtype}' cannot be shown`);
  const kind = KINDS[dtype as keyof typeof KINDS];
  const rows = whole(headers, "X-Frame-Rows");
  const columns = whole(headers, "X-Frame-Columns");
  const samples = whole(headers, "X-Frame-Samples");
  if (samples !== 1 && samples !== 3) throw new Error(`${samples} samples a pixel cannot be shown`);
  if (samples === 3 && dtype !== "uint8") throw new Error("colour needs 8 bits a sample");
  const expected = rows * columns * samples * kind.size;
  if (buffer.byteLength !== expected) throw new Error(`${buffer.byteLength} bytes came, ${expected} belong to this picture`);
  return {
    pixels: kind.make(buffer),
    rows,
    columns,
    samples,
    slope: factor(headers, "X-Frame-Slope", 1),
    intercept: factor(headers, "X-Frame-Intercept", 0),
    bytes: expected,
  };
}

function extent(pixels: Pixels): { min: number; max: number } {
  let min = Infinity;
  let max = -Infinity;
  for (const value of pixels) {
    if (value < min) min = value;
    if (value > max) max = value;
  }
  return Number.isFinite(min) && Number.isFinite(max) ? { min, max } : { min: 0, max: 0 };
}

function scaled(pixels: Pixels, slope: number, intercept: number): Picture {
  const { min, max } = extent(pixels);
  const low = Math.min(min * slope, max * slope) + intercept;
  const high = Math.max(min * slope, max * slope) + intercept;
  const integers = !(pixels instanceof Float32Array) && Number.isInteger(slope) && Number.isInteger(intercept);
  let out: Pixels;
  if (slope === 1 && intercept === 0) out = pixels;
  else if (integers && low >= -32768 && high <= 32767) out = new Int16Array(pixels.length);
  else if (integers && low >= 0 && high <= 65535) out = new Uint16Array(pixels.length);
  else out = new Float32Array(pixels.length);
  if (out !== pixels) for (let i = 0; i < pixels.length; i++) out[i] = (pixels[i] as number) * slope + intercept;
  return { pixels: out, slope: 1, intercept: 0, min: low, max: high };
}

function quantised(pixels: Float32Array, slope: number, intercept: number): Picture {
  const { min, max } = extent(pixels);
  const step = max > min ? (max - min) / 65535 : 1;
  const out = new Uint16Array(pixels.length);
  for (let i = 0; i < pixels.length; i++) out[i] = Math.round(((pixels[i] as number) - min) / step);
  return { pixels: out, slope: step * slope, intercept: min * slope + intercept, min: 0, max: max > min ? 65535 : 0 };
}

/**
 * The frame as a renderer wants it, in one pass over the pixels.
 *
 * The graphics card gets physical values (so one window fits every slice, whatever its own slope); the renderer
 * without one looks grey values up in a table, so it gets whole numbers with slope and intercept.
 */
export function toPicture(frame: Frame, lookupTable: boolean): Picture {
  if (frame.samples === 3) return { pixels: frame.pixels, slope: 1, intercept: 0, min: 0, max: 255 };
  if (!lookupTable) return scaled(frame.pixels, frame.slope, frame.intercept);
  if (frame.pixels instanceof Float32Array) return quantised(frame.pixels, frame.slope, frame.intercept);
  return { pixels: frame.pixels, slope: frame.slope, intercept: frame.intercept, ...extent(frame.pixels) };
}
