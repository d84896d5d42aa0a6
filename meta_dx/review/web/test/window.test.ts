import { describe, expect, it } from "vitest";
import type { Series } from "../src/viewer/study";
import { autoWindow, defaultWindow, dragWindow, figure, fullRange, presets, sameWindow, toBounds, wantsAutoWindow } from "../src/viewer/window";

const series = (more: Partial<Series> = {}): Series => ({
  key: "1",
  label: "a series",
  modality: "CT",
  color: false,
  rows: 4,
  columns: 4,
  spacing: null,
  window: null,
  range: [-1024, 3071],
  frameOfReference: null,
  frames: [],
  ...more,
});

describe("windows", () => {
  it("shows the values half a width to both sides of the centre", () => {
    expect(toBounds({ center: 40, width: 400 })).toEqual({ lower: -160, upper: 240 });
  });

  it("spans the whole range, also an empty one", () => {
    expect(toBounds(fullRange([-5, 15]))).toEqual({ lower: -5, upper: 15 });
    expect(fullRange([3, 3]).width).toBeGreaterThan(0);
  });

  it("opens with the series' own window, else soft tissue for CT, else the whole range", () => {
    expect(defaultWindow(series({ window: { center: 1, width: 2 } }))).toEqual({ center: 1, width: 2 });
    expect(defaultWindow(series())).toEqual({ center: 40, width: 400 });
    expect(defaultWindow(series({ modality: "MR", range: [0, 1000] }))).toEqual({ center: 500, width: 1000 });
  });

  it("offers the CT presets for CT only, and one window for colour", () => {
    const names = (one: Series): string[] => presets(one).map(({ name }) => name);
    expect(names(series())).toEqual(expect.arrayContaining(["Default", "Full range", "Brain", "Lung", "Bone", "Soft tissue"]));
    expect(names(series({ modality: "MR" }))).toEqual(["Default", "Full range"]);
    expect(names(series({ color: true }))).toEqual(["Default"]);
  });

  it("gives every preset a digit", () => {
    expect(presets(series()).length).toBeLessThanOrEqual(9);
  });
});

describe("dragging", () => {
  const start = { center: 40, width: 80 };

  it("widens to the right and narrows to the left by the same factor", () => {
    const wide = dragWindow(start, 120, 0, [-1024, 3071]);
    expect(wide.width).toBeGreaterThan(80);
    expect(dragWindow(wide, -120, 0, [-1024, 3071]).width).toBeCloseTo(80, 9);
  });

  it("brightens upwards: the centre falls", () => {
    expect(dragWindow(start, 0, -50, [-1024, 3071]).center).toBeLessThan(40);
  });

  it("never leaves a window without a width or far from all values", () => {
    const tiny = dragWindow(start, -1e6, 1e6, [-1024, 3071]);
    expect(tiny.width).toBe(1);
    expect(tiny.center).toBeLessThanOrEqual(3071 + 4095);
    const small = dragWindow({ center: 0.5, width: 1 }, -1e6, 0, [0, 1]);
    expect(small.width).toBeCloseTo(0.001, 9);
  });
});

describe("the window of the first picture", () => {
  it("is not decided by a few bright pixels or an even background", () => {
    const pixels = Float32Array.from({ length: 40_000 }, (_, i) => (i % 2 === 0 ? 0 : 1 + (i % 1000) / 1000));
    for (let i = 0; i < 4; i++) pixels[i * 17] = 500;
    const found = autoWindow({ pixels, slope: 1, intercept: 0 }, "MR");
    const { lower, upper } = toBounds(found ?? { center: 0, width: 0 });
    expect(lower).toBeGreaterThan(0.9);
    expect(upper).toBeLessThan(2.1);
  });

  it("is in physical units, also with a falling slope", () => {
    const pixels = Uint16Array.from({ length: 20_000 }, (_, i) => i % 1000);
    const { lower, upper } = toBounds(autoWindow({ pixels, slope: -2, intercept: 100 }, "MR") ?? { center: 0, width: 0 });
    expect(lower).toBeGreaterThan(-1900);
    expect(lower).toBeLessThan(-1850);
    expect(upper).toBeGreaterThan(60);
  });

  it("is found for CT only where the soft tissue window would show next to nothing", () => {
    const lungs = Int16Array.from({ length: 20_000 }, (_, i) => (i % 10 === 0 ? 50 : -850) + (i % 37));
    expect(autoWindow({ pixels: lungs, slope: 1, intercept: 0 }, "CT")).toBeNull();
    expect(autoWindow({ pixels: lungs, slope: 1, intercept: 0 }, "MR")).not.toBeNull();
    const found = toBounds(autoWindow({ pixels: lungs, slope: 1, intercept: 2000 }, "CT") ?? { center: 0, width: 1 });
    expect(found.lower).toBeGreaterThan(1100);
    expect(found.upper).toBeLessThan(2100);
    const hard = (white: number): Int16Array => Int16Array.from({ length: 20_000 }, (_, i) => (i % 10 < white ? 900 : 0) + (i % 37));
    expect(autoWindow({ pixels: hard(2), slope: 1, intercept: 0 }, "CT")).toBeNull();
    expect(autoWindow({ pixels: hard(4), slope: 1, intercept: 0 }, "CT")).not.toBeNull();
  });

  it("leaves 8-bit pictures and given windows alone, and an even picture", () => {
    expect(wantsAutoWindow(series({ modality: "MR", range: [0, 255] }), false)).toBe(false);
    expect(wantsAutoWindow(series(), false)).toBe(true);
    expect(wantsAutoWindow(series({ modality: "MR", window: { center: 1, width: 2 } }), true)).toBe(false);
    expect(wantsAutoWindow(series({ modality: "MR" }), false)).toBe(true);
    expect(autoWindow({ pixels: new Uint16Array(5000), slope: 1, intercept: 0 }, "MR")).toBeNull();
  });
});

describe("figures", () => {
  it("prints whole numbers where values are large and three digits where they are small", () => {
    expect([figure(40), figure(1500.4), figure(0.0012345), figure(12.345)]).toEqual(["40", "1500", "0.00123", "12.3"]);
  });

  it("knows a preset again after rounding", () => {
    expect(sameWindow({ center: 40, width: 80 }, { center: 40.00001, width: 80 })).toBe(true);
    expect(sameWindow({ center: 40, width: 80 }, { center: 41, width: 80 })).toBe(false);
  });
});
