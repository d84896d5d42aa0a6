import { describe, expect, it } from "vitest";
import { Ledger, type Length, parseLengths, planeOf, toPixel, toPoint } from "../src/viewer/lengths";
import type { FrameRef, Series } from "../src/viewer/study";

const A = (20 * Math.PI) / 180;
const frame: FrameRef = { url: "/1", position: [-120.5, 33.25, 410], orientation: [Math.cos(A), Math.sin(A), 0, 0, 0, -1] };
const series: Series = {
  key: "0",
  label: "",
  modality: "CT",
  color: false,
  rows: 40,
  columns: 30,
  spacing: [0.7, 0.4],
  window: null,
  range: null,
  frameOfReference: null,
  frames: [frame],
};

describe("a place on a picture", () => {
  it("is the same in pixels and in the patient", () => {
    const plane = planeOf(series, frame);
    expect(toPoint(plane, [0, 0])).toEqual(frame.position);
    const [x, y, z] = toPoint(plane, [10, 5]);
    expect([x, y, z]).toEqual([-120.5 + 4 * Math.cos(A), 33.25 + 4 * Math.sin(A), 410 - 3.5]);
    for (const pixel of [[10, 5], [-3.25, 39.9], [1 / 3, 0]] as const) {
      const back = toPixel(plane, toPoint(plane, pixel));
      expect(back[0]).toBeCloseTo(pixel[0], 10);
      expect(back[1]).toBeCloseTo(pixel[1], 10);
    }
  });

  it("does not depend on how far from the picture's plane the point was taken", () => {
    const plane = planeOf(series, frame);
    const [x, y, z] = toPoint(plane, [10, 5]);
    const [column, row] = toPixel(plane, [x + 7 * Math.sin(A), y - 7 * Math.cos(A), z]);
    expect([column, row]).toEqual([expect.closeTo(10, 10), expect.closeTo(5, 10)]);
  });

  it("is told in pixels where nothing is known of the picture", () => {
    const plane = planeOf({ ...series, spacing: null }, { url: "/1", position: null, orientation: null });
    expect(toPoint(plane, [3, 7])).toEqual([3, 7, 0]);
    expect(toPixel(plane, [3, 7, 0])).toEqual([3, 7]);
  });
});

const length = (id: string, x = 0): Length => ({ id, picture: "/1", from: [x, 0], to: [5, 5] });

describe("the answer with lengths", () => {
  it("is read as it was sent", () => {
    expect(parseLengths({ lengths: [length("a"), length("b", 0.1)] })).toEqual([length("a"), length("b", 0.1)]);
  });

  it.each([null, {}, { lengths: {} }, { lengths: [null] }, { lengths: [{ ...length("a"), to: [1] }] }, { lengths: [{ ...length("a"), to: [1, "2"] }] }])(
    "is refused when it is none: %j",
    (answer) => {
      expect(() => parseLengths(answer)).toThrow("lengths");
    },
  );
});

describe("what the server has to be told", () => {
  const told = ({ id: _, ...rest }: Length): Omit<Length, "id"> => rest;

  it("is what was drawn, moved or removed since", () => {
    const ledger = new Ledger();
    ledger.holds([length("a"), length("b"), length("c")]);
    expect(ledger.changes([length("a"), length("b"), length("c")])).toBeNull();
    const changes = ledger.changes([length("a"), length("b", 2), length("d")]);
    expect(changes).toEqual({ b: told(length("b", 2)), c: null, d: told(length("d")) });
    ledger.sent(changes ?? {});
    ledger.kept(changes ?? {});
    expect(ledger.changes([length("a"), length("b", 2), length("d")])).toBeNull();
  });

  it("is told again when no answer came, also that a length is gone which may have arrived", () => {
    const ledger = new Ledger();
    const drawn = ledger.changes([length("a")]);
    ledger.sent(drawn ?? {});
    expect(ledger.changes([length("a")])).toEqual({ a: told(length("a")) });
    expect(ledger.changes([])).toEqual({ a: null });
    ledger.sent({ a: null });
    expect(ledger.changes([])).toEqual({ a: null });
    ledger.kept({ a: null });
    expect(ledger.changes([])).toBeNull();
  });

  it("has an answer that was overtaken change nothing about what came later", () => {
    const ledger = new Ledger();
    const first = ledger.changes([length("a")]) ?? {};
    ledger.sent(first);
    ledger.kept(first);
    expect(ledger.changes([length("a", 3)])).toEqual({ a: told(length("a", 3)) });
  });
});
