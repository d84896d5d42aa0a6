import { describe, expect, it } from "vitest";
import { nextSlice } from "../src/viewer/cine";
import { firstSlice } from "../src/viewer/source";
import { parseStudies } from "../src/viewer/study";
import { themeOf } from "../src/app/theme";
import { loginAddress, warnAfter } from "../src/app/session";

const frame = { url: "/frames/1", position: [1, 2, 3], orientation: [1, 0, 0, 0, 1, 0] };
const series = { key: "a", label: "CT", modality: "CT", color: false, rows: 2, columns: 2, spacing: [0.5, 0.5], window: null, range: [0, 9], frames: [frame] };
const answer = (more: object = {}): unknown => ({ studies: [{ key: "s0", label: "current", series: [{ ...series, ...more }] }] });

describe("the description of a case", () => {
  it("is read with what may be missing", () => {
    const [study] = parseStudies(answer({ spacing: null, range: null, frames: [{ url: "/1", position: null, orientation: null }] }));
    expect(study?.series[0]).toMatchObject({ spacing: null, range: null, window: null });
  });

  it("leaves out series without pictures", () => {
    expect(parseStudies(answer({ frames: [] }))[0]?.series).toEqual([]);
  });

  it("takes no spacing that cannot be one", () => {
    expect(parseStudies(answer({ spacing: [0, 0.5] }))[0]?.series[0]?.spacing).toBeNull();
  });

  it.each([
    ["studies", {}],
    ["studies[0].series[0].frames[0].url", answer({ frames: [{}] })],
    ["studies[0].series[0].spacing", answer({ spacing: [1] })],
    ["studies[0].series[0].frames[0].position", answer({ frames: [{ ...frame, position: [1, 2, "x"] }] })],
  ])("names %s when it is missing or broken", (place, value) => {
    expect(() => parseStudies(value)).toThrow(place);
  });

  it.each([
    ["0", "0"],
    [null, null],
    [undefined, null],
    [7, null],
  ])("takes %s for the frame of reference %s", (told, kept) => {
    expect(parseStudies(answer({ frame_of_reference: told }))[0]?.series[0]?.frameOfReference).toBe(kept);
  });

  it("opens a stack at its middle", () => {
    const [study] = parseStudies(answer({ frames: Array.from({ length: 28 }, () => frame) }));
    expect(study?.series[0] && firstSlice(study.series[0])).toBe(13);
  });
});

describe("cine", () => {
  it("starts again after the last slice", () => {
    expect([nextSlice(0, 3), nextSlice(2, 3), nextSlice(0, 0)]).toEqual([1, 0, 0]);
  });
});

describe("a session", () => {
  it("warns three minutes before its end, at once when it is nearer", () => {
    expect([warnAfter(1800), warnAfter(60)]).toEqual([1_620_000, 0]);
  });

  it("comes back to the page after signing in", () => {
    expect(loginAddress("/sign-in", { pathname: "/cases/1", search: "?a=b&c" } as Location)).toBe("/sign-in?next=%2Fcases%2F1%3Fa%3Db%26c");
  });
});

describe("the theme", () => {
  it("is the cookie's, where that is one", () => {
    expect(["a=1; theme=light", "theme=dark;b=2", "theme=pink", "nottheme=dark", ""].map(themeOf)).toEqual(["light", "dark", null, null, null]);
  });
});
