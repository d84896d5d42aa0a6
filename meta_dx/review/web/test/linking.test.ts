import { describe, expect, it } from "vitest";
import { linkAsShown, linkByGeometry, linkedSlice, normal, reversed } from "../src/viewer/linking";
import type { Series } from "../src/viewer/study";

type Place = { position: [number, number, number] | null; orientation: number[] | null };

const AXIAL = [1, 0, 0, 0, 1, 0];
const SAGITTAL = [0, 1, 0, 0, 0, -1];

function series(places: Place[]): Series {
  return {
    key: "1",
    label: "stack",
    modality: "CT",
    color: false,
    rows: 2,
    columns: 2,
    spacing: null,
    window: null,
    range: null,
    frames: places.map((place, i) => ({ url: `/${i}`, ...place })),
  };
}

const stack = (count: number, start: number, step: number, orientation: number[] | null = AXIAL): Series =>
  series(Array.from({ length: count }, (_, i) => ({ position: [7, -3, start + step * i], orientation })));
const loose = (count: number): Series => series(Array.from({ length: count }, () => ({ position: null, orientation: null })));

describe("linked scrolling", () => {
  it("knows the direction through the slices", () => {
    expect(normal(stack(2, 0, 1))).toEqual([0, 0, 1]);
    expect(normal(loose(2))).toBeNull();
  });

  it("goes by position, whatever the order and the spacing of the slices", () => {
    const thick = stack(10, 0, 5);
    const thin = stack(46, 45, -1);
    const link = linkByGeometry(thick, thin);
    expect(link).toMatchObject({ by: "position", offset: 0 });
    for (let i = 0; i < 10; i++) {
      const there = linkedSlice(link, thick, i, thin);
      expect(thin.frames[there]?.position?.[2]).toBe(5 * i);
      expect(linkedSlice(reversed(link), thin, there, thick)).toBe(i);
    }
  });

  it("lays the middles together where the table stood elsewhere", () => {
    const now = stack(11, 0, 5);
    const then = stack(11, 400, 5);
    const link = linkByGeometry(now, then);
    expect(linkedSlice(link, now, 5, then)).toBe(5);
    expect(linkedSlice(link, now, 0, then)).toBe(0);
  });

  it("does not take stacks for parallel that are not", () => {
    expect(linkByGeometry(stack(5, 0, 5), stack(5, 0, 5, SAGITTAL)).by).toBe("share");
  });

  it("takes slightly tilted stacks for parallel", () => {
    const a = (10 * Math.PI) / 180;
    const tilted = stack(5, 0, 5, [1, 0, 0, 0, Math.cos(a), Math.sin(a)]);
    expect(linkByGeometry(stack(5, 0, 5), tilted).by).toBe("position");
  });

  it("goes by the share of the stack where there are no positions", () => {
    const link = linkByGeometry(loose(11), loose(21));
    expect([0, 5, 10].map((i) => linkedSlice(link, loose(11), i, loose(21)))).toEqual([0, 10, 20]);
  });

  it("keeps what the reader has put beside each other", () => {
    const now = stack(20, 0, 5);
    const then = stack(20, 0, 5);
    const link = linkAsShown(now, 4, then, 9);
    expect(linkedSlice(link, now, 4, then)).toBe(9);
    expect(linkedSlice(link, now, 7, then)).toBe(12);
    expect(linkedSlice(reversed(link), then, 12, now)).toBe(7);
    expect(linkedSlice(link, now, 19, then)).toBe(19);
    const shares = linkAsShown(loose(11), 2, loose(11), 4);
    expect(linkedSlice(shares, loose(11), 5, loose(11))).toBe(7);
  });

  it("stays within a stack of one slice", () => {
    expect(linkedSlice(linkByGeometry(loose(1), loose(9)), loose(1), 0, loose(9))).toBe(0);
    expect(linkedSlice(linkByGeometry(loose(9), loose(1)), loose(9), 8, loose(1))).toBe(0);
  });
});
