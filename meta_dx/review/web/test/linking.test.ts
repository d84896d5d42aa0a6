import { describe, expect, it } from "vitest";
import { Corrections, crossing, type Link, linkAsShown, linkByGeometry, linkedSlice, linkWords, normal, reversed } from "../src/viewer/linking";
import type { Series } from "../src/viewer/study";

type Place = { position: [number, number, number] | null; orientation: number[] | null };

const AXIAL = [1, 0, 0, 0, 1, 0];
const SAGITTAL = [0, 1, 0, 0, 0, -1];

function series(places: Place[], frameOfReference: string | null = null): Series {
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
    frameOfReference,
    frames: places.map((place, i) => ({ url: `/${i}`, ...place })),
  };
}

const stack = (count: number, start: number, step: number, orientation: number[] = AXIAL, frame: string | null = "0"): Series =>
  series(Array.from({ length: count }, (_, i) => ({ position: [7, -3, start + step * i], orientation })), frame);
const inFrame = (frame: string | null, count: number, start: number, step: number): Series => stack(count, start, step, AXIAL, frame);
/** A link that has to be there. */
const there = (link: Link | null): Link => {
  if (link === null) throw new Error("not linked");
  return link;
};
const loose = (count: number): Series => series(Array.from({ length: count }, () => ({ position: null, orientation: null })));

describe("linked scrolling", () => {
  it("knows the direction through the slices", () => {
    expect(normal(stack(2, 0, 1))).toEqual([0, 0, 1]);
    expect(normal(loose(2))).toBeNull();
  });

  it("goes by position in one frame of reference, whatever the order, the spacing and the overlap of the slices", () => {
    const thick = stack(10, 0, 5);
    const thin = stack(46, 45, -1);
    const link = there(linkByGeometry(thick, thin));
    expect(link).toMatchObject({ ground: "position", offset: 0 });
    for (let i = 0; i < 10; i++) {
      const beside = linkedSlice(link, thick, i, thin);
      expect(thin.frames[beside]?.position?.[2]).toBe(5 * i);
      expect(linkedSlice(reversed(link), thin, beside, thick)).toBe(i);
    }
    const below = stack(10, 40, 5);
    const apart = there(linkByGeometry(thick, below));
    expect(apart.ground).toBe("position");
    expect([0, 8, 9].map((i) => linkedSlice(apart, thick, i, below))).toEqual([0, 0, 1]);
  });

  it.each([
    ["0", "1"],
    ["0", null],
    [null, "0"],
    [null, null],
  ])("takes no position of frame %s for one of frame %s, also where they overlap", (one, other) => {
    const now = inFrame(one, 11, 0, 5);
    const then = inFrame(other, 11, 20, 5);
    const link = there(linkByGeometry(now, then));
    expect(link.ground).toBe("middles");
    expect([0, 5, 10].map((i) => linkedSlice(link, now, i, then))).toEqual([0, 5, 10]);
    expect([0, 5, 10].map((i) => linkedSlice(reversed(link), then, i, now))).toEqual([0, 5, 10]);
  });

  it("does not link slices that run in different directions", () => {
    const [axial, sagittal] = [stack(5, 0, 5), stack(5, 0, 5, SAGITTAL)];
    expect(crossing(axial, sagittal)).toBe(true);
    expect(linkByGeometry(axial, sagittal)).toBeNull();
    expect(linkAsShown(axial, 0, sagittal, 3)).toBeNull();
    expect(crossing(axial, loose(5))).toBe(false);
  });

  it("takes slightly tilted stacks for parallel, and goes by the middles of their pictures", () => {
    const a = (10 * Math.PI) / 180;
    const square = { rows: 101, columns: 101, spacing: [2, 2] as const };
    const flat = { ...series(Array.from({ length: 41 }, (_, i) => ({ position: [-100, -100, i - 20], orientation: AXIAL })), "0"), ...square };
    const down = [0, Math.cos(a), Math.sin(a)] as const;
    // Their middles lie on the z axis, their corners up to 17 mm beside it.
    const places: Place[] = [-10, 0, 10].map((z) => ({ position: [-100, -100 * down[1], z - 100 * down[2]], orientation: [1, 0, 0, ...down] }));
    const tilted = { ...series(places, "0"), ...square };
    const link = there(linkByGeometry(flat, tilted));
    expect(link.ground).toBe("position");
    expect([10, 20, 30].map((i) => linkedSlice(link, flat, i, tilted))).toEqual([0, 1, 2]);
  });

  it("goes by the share of the stack where there are no positions", () => {
    const link = there(linkByGeometry(loose(11), loose(21)));
    expect(link.ground).toBe("share");
    expect([0, 5, 10].map((i) => linkedSlice(link, loose(11), i, loose(21)))).toEqual([0, 10, 20]);
  });

  it.each(["0", "1"])("keeps what the reader has put beside each other in frames 0 and %s", (frame) => {
    const now = inFrame("0", 20, 0, 5);
    const then = inFrame(frame, 20, 0, 5);
    const link = there(linkAsShown(now, 4, then, 9));
    expect(link.ground).toBe("reader");
    expect(linkedSlice(link, now, 4, then)).toBe(9);
    expect(linkedSlice(link, now, 7, then)).toBe(12);
    expect(linkedSlice(reversed(link), then, 12, now)).toBe(7);
    expect(linkedSlice(link, now, 19, then)).toBe(19);
    const shares = there(linkAsShown(loose(11), 2, loose(11), 4));
    expect(linkedSlice(shares, loose(11), 5, loose(11))).toBe(7);
  });

  it("keeps a correction for the other parallel series of the same two frames, from either side", () => {
    const [now, then] = [inFrame("0", 20, 0, 5), inFrame("1", 20, 0, 5)];
    const kept = new Corrections();
    expect(kept.find(now, then)).toBeNull();
    kept.add(now, then, there(linkAsShown(now, 4, then, 9)));
    const [thin, thick] = [inFrame("0", 100, 0, 1), inFrame("1", 10, 0, 10)];
    expect(linkedSlice(there(kept.find(thin, thick)), thin, 20, thick)).toBe(4);
    expect(linkedSlice(there(kept.find(thick, thin)), thick, 4, thin)).toBe(15);
    expect(kept.find(thin, stack(9, 0, 5, SAGITTAL, "1"))).toBeNull();
    expect(kept.find(now, inFrame("2", 20, 0, 5))).toBeNull();
    expect(kept.find(now, inFrame(null, 20, 0, 5))).toBeNull();
    kept.add(now, then, there(linkAsShown(now, 4, then, 3)));
    expect(linkedSlice(there(kept.find(now, then)), now, 4, then)).toBe(3);
  });

  it("does not put a correction over positions that can be compared", () => {
    const [one, other] = [stack(20, 0, 5), stack(20, 0, 5)];
    const kept = new Corrections();
    kept.add(one, other, there(linkAsShown(one, 4, other, 9)));
    expect(kept.find(one, other)).toBeNull();
  });

  it("stays within a stack of one slice", () => {
    expect(linkedSlice(there(linkByGeometry(loose(1), loose(9))), loose(1), 0, loose(9))).toBe(0);
    expect(linkedSlice(there(linkByGeometry(loose(9), loose(1))), loose(9), 8, loose(1))).toBe(0);
  });

  it("says by what it goes, and how to correct what is a guess", () => {
    const [now, then] = [inFrame("0", 20, 0, 5), inFrame("1", 20, 0, 5)];
    const says = (from: Series, to: Series): string => linkWords(linkByGeometry(from, to), from, to);
    expect(says(now, inFrame("0", 9, 0, 5))).toMatch(/^Linked by position/);
    expect(says(now, then)).toMatch(/^Linked by the middles of the stacks.*To correct/);
    expect(says(loose(4), then)).toMatch(/^Linked by the share of the stack.*To correct/);
    expect(says(now, stack(9, 0, 5, SAGITTAL))).toMatch(/^Not linked: .*different directions/);
    expect(linkWords(linkAsShown(now, 0, then, 3), now, then)).toBe("Linked as you laid the slices beside each other.");
    expect(linkWords(null, now, then)).toMatch(/^Not linked\. K /);
    expect(says(now, stack(1, 0, 5))).toBe("");
  });
});
