import { describe, expect, it } from "vitest";
import { parseFrame, toPicture } from "../src/viewer/frame";

const headers = (more: Record<string, string> = {}): Headers =>
  new Headers({ "X-Frame-Dtype": "int16", "X-Frame-Rows": "2", "X-Frame-Columns": "3", "X-Frame-Samples": "1", ...more });

const bytes = (values: number[]): ArrayBuffer => Int16Array.from(values).buffer;

describe("a frame of the server", () => {
  it("is read as its headers say", () => {
    const found = parseFrame(headers({ "X-Frame-Slope": "2", "X-Frame-Intercept": "-5" }), bytes([1, -2, 3, 4, 5, 6]));
    expect(found).toMatchObject({ rows: 2, columns: 3, samples: 1, slope: 2, intercept: -5, bytes: 12 });
    expect([...found.pixels]).toEqual([1, -2, 3, 4, 5, 6]);
  });

  it("has slope 1 and intercept 0 where none is given", () => {
    expect(parseFrame(headers(), bytes([0, 0, 0, 0, 0, 0]))).toMatchObject({ slope: 1, intercept: 0 });
  });

  it.each([
    ["too few bytes", headers(), bytes([1, 2])],
    ["an unknown type", headers({ "X-Frame-Dtype": "int64" }), new ArrayBuffer(48)],
    ["no size", headers({ "X-Frame-Rows": "" }), bytes([1, 2, 3, 4, 5, 6])],
    ["a broken size", headers({ "X-Frame-Rows": "2.5" }), bytes([1, 2, 3, 4, 5, 6])],
    ["two samples", headers({ "X-Frame-Samples": "2" }), new ArrayBuffer(24)],
    ["colour of 16 bits", headers({ "X-Frame-Samples": "3" }), new ArrayBuffer(36)],
    ["a slope that is none", headers({ "X-Frame-Slope": "x" }), bytes([1, 2, 3, 4, 5, 6])],
  ])("is refused with %s", (_, given, buffer) => {
    expect(() => parseFrame(given, buffer)).toThrow();
  });
});

describe("a frame for a renderer", () => {
  const physical = (values: number[], dtype: string, slope: string, intercept: string, table: boolean): number[] => {
    const kinds = { int16: Int16Array, uint16: Uint16Array, float32: Float32Array } as const;
    const buffer = kinds[dtype as keyof typeof kinds].from(values).buffer;
    const given = headers({ "X-Frame-Dtype": dtype, "X-Frame-Slope": slope, "X-Frame-Intercept": intercept });
    const picture = toPicture(parseFrame(given, buffer), table);
    const low = Math.min(...picture.pixels);
    const high = Math.max(...picture.pixels);
    expect([picture.min, picture.max]).toEqual([expect.closeTo(low, 4), expect.closeTo(high, 4)]);
    if (table) expect(picture.pixels).not.toBeInstanceOf(Float32Array);
    return [...picture.pixels].map((value) => value * picture.slope + picture.intercept);
  };

  it.each([
    ["int16", "1", "0"],
    ["int16", "1", "-1024"],
    ["uint16", "3", "7"],
    ["uint16", "0.25", "-3.5"],
    ["float32", "1", "0"],
    ["float32", "-2.5", "10"],
  ])("keeps the physical values of %s × %s + %s", (dtype, slope, intercept) => {
    const values = dtype === "float32" ? [0.5, 1.25, -3, 1000, 8, 0] : [0, 1, 200, 4095, 30_000, 12];
    const expected = values.map((value) => value * Number(slope) + Number(intercept));
    const span = Math.max(...expected) - Math.min(...expected);
    for (const table of [false, true]) {
      const found = physical(values, dtype, slope, intercept, table);
      found.forEach((value, i) => expect(Math.abs(value - (expected[i] as number))).toBeLessThanOrEqual(span / 65_000 + 1e-4));
    }
  });

  it("leaves colour as it is", () => {
    const given = headers({ "X-Frame-Dtype": "uint8", "X-Frame-Samples": "3" });
    const picture = toPicture(parseFrame(given, Uint8Array.from({ length: 18 }, (_, i) => i * 10).buffer), true);
    expect(picture).toMatchObject({ slope: 1, intercept: 0, min: 0, max: 255 });
    expect(picture.pixels[17]).toBe(170);
  });

  it("survives a picture of one value", () => {
    expect(physical([5, 5, 5, 5, 5, 5], "float32", "1", "0", true)).toEqual([5, 5, 5, 5, 5, 5]);
  });
});
