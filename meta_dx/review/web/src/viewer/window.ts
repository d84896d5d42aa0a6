// Grey-level windows: presets by modality and the arithmetic of dragging.

import type { Frame } from "./frame";
import type { Series, Window } from "./study";

export interface Preset {
  name: string;
  window: Window;
}

const SOFT_TISSUE: Window = { center: 40, width: 400 };
const CT: readonly Preset[] = [
  { name: "Brain", window: { center: 40, width: 80 } },
  { name: "Subdural", window: { center: 75, width: 215 } },
  { name: "Stroke", window: { center: 32, width: 8 } },
  { name: "Lung", window: { center: -600, width: 1500 } },
  { name: "Mediastinum", window: { center: 50, width: 350 } },
  { name: "Soft tissue", window: SOFT_TISSUE },
  { name: "Bone", window: { center: 480, width: 2500 } },
];
/**
 * Shares of the values that the soft tissue window has to show, and may show white. Of a slice through lungs and air
 * around it shows a fifth; of a slice through the head a sixth is bone.
 */
const LEAST_SHOWN = 0.05;
const MOST_WHITE = 0.3;

/** Stored pixels and what makes them physical. */
type Values = Pick<Frame, "slope" | "intercept"> & { pixels: ArrayLike<number> };

/** The window that shows every value of the series. */
export function fullRange(range: readonly [number, number]): Window {
  const [low, high] = range;
  return { center: (low + high) / 2, width: Math.max(high - low, 1e-6) };
}

/**
 * What a series opens with: its own window; for CT soft tissue; else its whole range, which `autoWindow` narrows once
 * a picture is there.
 */
export function defaultWindow(series: Series): Window {
  if (series.color) return { center: 127.5, width: 255 };
  if (series.window !== null) return series.window;
  if (series.modality === "CT") return SOFT_TISSUE;
  return fullRange(series.range ?? [0, 255]);
}

/** Whether the first picture decides about the window: not 8 bits, and nobody has said how to show them. */
export function wantsAutoWindow(series: Series, fractions: boolean): boolean {
  const [low, high] = series.range ?? [0, 255];
  return !series.color && series.window === null && (fractions || high - low > 255);
}

/** Some of the values above the smallest one, sorted: every 17th pixel is enough, and the even background is no tissue. */
function sampled({ pixels, slope, intercept }: Values): number[] {
  const sample: number[] = [];
  for (let i = 0; i < pixels.length; i += 17) sample.push((pixels[i] as number) * slope + intercept);
  sample.sort((a, b) => a - b);
  return sample.filter((value) => value > (sample[0] as number));
}

/**
 * The window from the 0.5th to the 99.5th percentile.
 *
 * A few very bright pixels (a marker, fat beside the coil) would otherwise darken the whole picture. Of CT, where
 * windows have names, only if the soft tissue window would show next to nothing or much of it white: a phantom, a
 * specimen, values without their rescale.
 */
export function autoWindow(values: Values, modality: string): Window | null {
  const above = sampled(values);
  if (above.length < 20) return null;
  const { lower, upper } = toBounds(SOFT_TISSUE);
  const share = (least: number, most: number): number => above.filter((value) => value >= least && value < most).length / above.length;
  if (modality === "CT" && share(lower, upper) >= LEAST_SHOWN && share(upper, Infinity) <= MOST_WHITE) return null;
  const at = (rank: number): number => above[Math.round(rank * (above.length - 1))] as number;
  const [low, high] = [at(0.005), at(0.995)];
  return high > low ? fullRange([low, high]) : null;
}

/** Presets of a series in the order of their digits: 1 is the default, 2 the full range. */
export function presets(series: Series, own: Window = defaultWindow(series)): Preset[] {
  const found: Preset[] = [{ name: "Default", window: own }];
  if (series.color) return found;
  if (series.range !== null) found.push({ name: "Full range", window: fullRange(series.range) });
  return series.modality === "CT" ? [...found, ...CT] : found;
}

/** Lowest and highest shown value. Exactly linear: width 400 around 40 shows -160 to 240. */
export function toBounds(window: Window): { lower: number; upper: number } {
  return { lower: window.center - window.width / 2, upper: window.center + window.width / 2 };
}

/**
 * The window after a drag of `dx` to the right and `dy` down, in CSS pixels.
 *
 * To the right the window widens (less contrast), upwards the picture brightens. Both go by the window's own
 * width, so a brain window answers as finely as a lung window; 300 px multiply the width by e.
 */
export function dragWindow(window: Window, dx: number, dy: number, range: readonly [number, number] | null): Window {
  const [low, high] = range ?? [0, 255];
  const span = Math.max(high - low, 1e-6);
  // Whole steps where values are whole numbers, a thousandth of the range where they are small.
  const smallest = span > 50 ? 1 : span / 1000;
  const width = clamp(window.width * Math.exp(dx / 300), smallest, span * 4);
  const center = clamp(window.center + (dy * Math.max(window.width, smallest * 40)) / 400, low - span, high + span);
  return { center, width };
}

export function sameWindow(a: Window, b: Window): boolean {
  const tolerance = Math.max(Math.abs(a.width), Math.abs(b.width)) * 1e-3 + 1e-9;
  return Math.abs(a.center - b.center) <= tolerance && Math.abs(a.width - b.width) <= tolerance;
}

/** A figure of a window as text: whole where it is large, else three significant digits. */
export function figure(value: number): string {
  return Math.abs(value) >= 100 || Number.isInteger(value) ? String(Math.round(value)) : String(Number(value.toPrecision(3)));
}

export function clamp(value: number, low: number, high: number): number {
  return Math.min(Math.max(value, low), high);
}
