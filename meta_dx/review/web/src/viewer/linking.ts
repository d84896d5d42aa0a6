// Which slice of another series belongs beside the one that is looked at.

import type { FrameRef, Series } from "./study";

/** Cosine above which two stacks count as parallel (18°): an earlier head CT is rarely tilted the same. */
const PARALLEL = 0.95;

type Vector = readonly [number, number, number];

/**
 * What two series are laid beside each other by: their positions in one frame of reference, the middles of the stacks,
 * two slices that the reader has put beside each other, or the share of the stack where there are no positions.
 */
export type Ground = "position" | "middles" | "reader" | "share";

/** How two series are laid beside each other; `offset` is what the second's position is further, mm along `axis` or, without one, share. */
export interface Link {
  ground: Ground;
  axis: Vector | null;
  offset: number;
}

function dot(a: Vector, b: Vector): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

/** The direction through the slices, or null where the headers do not say. */
export function normal(series: Series): Vector | null {
  const cosines = series.frames[0]?.orientation;
  if (!cosines || cosines.length !== 6) return null;
  const [a, b, c, d, e, f] = cosines as [number, number, number, number, number, number];
  const n: Vector = [b * f - c * e, c * d - a * f, a * e - b * d];
  const length = Math.hypot(...n);
  return length < 1e-6 ? null : [n[0] / length, n[1] / length, n[2] / length];
}

/** The middle of a picture: its corner would move along the axis of a stack that is tilted against it. */
function middleOf(series: Series, frame: FrameRef): Vector | null {
  const { position, orientation } = frame;
  if (position === null || orientation === null || series.spacing === null) return position;
  const right = ((series.columns - 1) / 2) * series.spacing[1];
  const down = ((series.rows - 1) / 2) * series.spacing[0];
  const at = (i: 0 | 1 | 2): number => position[i] + right * (orientation[i] as number) + down * (orientation[i + 3] as number);
  return [at(0), at(1), at(2)];
}

/** Positions of the middles of all slices along `axis`, mm; null where one is missing. */
export function positions(series: Series, axis: Vector): number[] | null {
  const found = series.frames.map((frame) => {
    const middle = middleOf(series, frame);
    return middle === null ? Number.NaN : dot(middle, axis);
  });
  return found.every(Number.isFinite) ? found : null;
}

function nearest(values: readonly number[], wanted: number): number {
  let best = 0;
  values.forEach((value, i) => {
    if (Math.abs(value - wanted) < Math.abs((values[best] as number) - wanted)) best = i;
  });
  return best;
}

function share(index: number, count: number): number {
  return count > 1 ? index / (count - 1) : 0;
}

function parallel(one: Series, other: Series): boolean {
  const [a, b] = [normal(one), normal(other)];
  return a !== null && b !== null && Math.abs(dot(a, b)) >= PARALLEL;
}

/** Whether the slices of two series are known to run in different directions: none of one belongs beside one of the other. */
export function crossing(one: Series, other: Series): boolean {
  return normal(one) !== null && normal(other) !== null && !parallel(one, other);
}

function sameFrame(one: Series, other: Series): boolean {
  return one.frameOfReference !== null && one.frameOfReference === other.frameOfReference;
}

function along(from: Series, to: Series): { axis: Vector; a: number[]; b: number[] } | null {
  const axis = normal(from);
  if (axis === null || !parallel(from, to)) return null;
  const [a, b] = [positions(from, axis), positions(to, axis)];
  return a === null || b === null ? null : { axis, a, b };
}

/**
 * Lays two series beside each other from their headers; null where their slices run in different directions.
 *
 * Parallel stacks in one frame of reference go by position. Positions in two frames of reference, or in one that is
 * not known, cannot be compared: parallel stacks are laid with their middles together then. Series without positions
 * go by their share of the stack.
 */
export function linkByGeometry(from: Series, to: Series): Link | null {
  if (crossing(from, to)) return null;
  const found = along(from, to);
  if (found === null) return { ground: "share", axis: null, offset: 0 };
  const { axis, a, b } = found;
  if (sameFrame(from, to)) return { ground: "position", axis, offset: 0 };
  const middle = (values: readonly number[]): number => (Math.min(...values) + Math.max(...values)) / 2;
  return { ground: "middles", axis, offset: middle(b) - middle(a) };
}

/** Keeps the two slices that the reader has put beside each other together; null as for `linkByGeometry`. */
export function linkAsShown(from: Series, fromIndex: number, to: Series, toIndex: number): Link | null {
  if (crossing(from, to)) return null;
  const found = along(from, to);
  if (found === null) {
    return { ground: "reader", axis: null, offset: share(toIndex, to.frames.length) - share(fromIndex, from.frames.length) };
  }
  return { ground: "reader", axis: found.axis, offset: (found.b[toIndex] as number) - (found.a[fromIndex] as number) };
}

/** The slice of `to` that belongs to slice `index` of `from`. */
export function linkedSlice(link: Link, from: Series, index: number, to: Series): number {
  if (link.axis !== null) {
    const a = positions(from, link.axis);
    const b = positions(to, link.axis);
    if (a !== null && b !== null && b.length > 0) return nearest(b, (a[index] as number) + link.offset);
  }
  const wanted = share(index, from.frames.length) + (link.axis === null ? link.offset : 0);
  const last = to.frames.length - 1;
  return Math.min(last, Math.max(0, Math.round(wanted * last)));
}

/** The same link seen from the other side. */
export function reversed(link: Link): Link {
  return { ...link, offset: -link.offset };
}

/** How the reader has laid series beside each other whose positions say nothing: it holds for all parallel series of the two frames. */
export class Corrections {
  private readonly kept: { from: Series; to: Series; link: Link }[] = [];

  add(from: Series, to: Series, link: Link): void {
    if (!sameFrame(from, to)) this.kept.unshift({ from, to, link });
  }

  find(from: Series, to: Series): Link | null {
    const alike = (a: Series, b: Series): boolean => a === b || (sameFrame(a, b) && parallel(a, b));
    for (const one of this.kept) {
      if (alike(one.from, from) && alike(one.to, to)) return one.link;
      if (alike(one.from, to) && alike(one.to, from)) return reversed(one.link);
    }
    return null;
  }
}

/** What the viewer says about a link: by what the slices belong together, and how to correct it. */
export function linkWords(link: Link | null, from: Series, to: Series): string {
  if (from.frames.length < 2 || to.frames.length < 2) return "";
  if (crossing(from, to)) return "Not linked: the slices of the two series run in different directions.";
  if (link === null) return "Not linked. K links the two slices as they lie now.";
  const correct = "To correct: unlink (K), scroll one, link again (K).";
  const words: Record<Ground, string> = {
    position: "Linked by position: the two series share a frame of reference.",
    middles: `Linked by the middles of the stacks: the two series share no known frame of reference. ${correct}`,
    reader: "Linked as you laid the slices beside each other.",
    share: `Linked by the share of the stack: the pictures tell no positions. ${correct}`,
  };
  return words[link.ground];
}
