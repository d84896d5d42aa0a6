// Which slice of another series belongs beside the one that is looked at.

import type { Series } from "./study";

/** Cosine above which two stacks count as parallel (18°): an earlier head CT is rarely tilted the same. */
const PARALLEL = 0.95;

type Vector = readonly [number, number, number];

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

/** Positions of all slices along `axis`, mm; null where one is missing. */
export function positions(series: Series, axis: Vector): number[] | null {
  const found = series.frames.map((frame) => (frame.position === null ? Number.NaN : dot(frame.position, axis)));
  return found.every(Number.isFinite) ? found : null;
}

function nearest(values: readonly number[], wanted: number): number {
  let best = 0;
  values.forEach((value, i) => {
    if (Math.abs(value - wanted) < Math.abs((values[best] as number) - wanted)) best = i;
  });
  return best;
}

/** How two series are laid beside each other; `offset` is what the second's position is further, mm or share. */
export type Link = { by: "position"; axis: Vector; offset: number } | { by: "share"; offset: number };

function share(index: number, count: number): number {
  return count > 1 ? index / (count - 1) : 0;
}

function overlap(a: readonly number[], b: readonly number[]): boolean {
  const low = Math.max(Math.min(...a), Math.min(...b));
  const high = Math.min(Math.max(...a), Math.max(...b));
  const shorter = Math.min(Math.max(...a) - Math.min(...a), Math.max(...b) - Math.min(...b));
  return high - low >= shorter / 2;
}

function along(from: Series, to: Series): { axis: Vector; a: number[]; b: number[] } | null {
  const axis = normal(from);
  const other = normal(to);
  if (axis === null || other === null || Math.abs(dot(axis, other)) < PARALLEL) return null;
  const a = positions(from, axis);
  const b = positions(to, axis);
  return a === null || b === null ? null : { axis, a, b };
}

/**
 * Lays two series beside each other from their headers.
 *
 * Parallel stacks that share at least half of the shorter one's extent go by position as it stands; parallel stacks
 * elsewhere (another table position) go by position with their middles together; all others go by their share of
 * the stack.
 */
export function linkByGeometry(from: Series, to: Series): Link {
  const found = along(from, to);
  if (found === null) return { by: "share", offset: 0 };
  const middle = (values: readonly number[]): number => (Math.min(...values) + Math.max(...values)) / 2;
  const offset = overlap(found.a, found.b) ? 0 : middle(found.b) - middle(found.a);
  return { by: "position", axis: found.axis, offset };
}

/** Keeps the two slices that the reader has put beside each other together. */
export function linkAsShown(from: Series, fromIndex: number, to: Series, toIndex: number): Link {
  const found = along(from, to);
  if (found === null) {
    return { by: "share", offset: share(toIndex, to.frames.length) - share(fromIndex, from.frames.length) };
  }
  return { by: "position", axis: found.axis, offset: (found.b[toIndex] as number) - (found.a[fromIndex] as number) };
}

/** The slice of `to` that belongs to slice `index` of `from`. */
export function linkedSlice(link: Link, from: Series, index: number, to: Series): number {
  if (link.by === "position") {
    const a = positions(from, link.axis);
    const b = positions(to, link.axis);
    if (a !== null && b !== null && b.length > 0) return nearest(b, (a[index] as number) + link.offset);
  }
  const wanted = share(index, from.frames.length) + (link.by === "share" ? link.offset : 0);
  const last = to.frames.length - 1;
  return Math.min(last, Math.max(0, Math.round(wanted * last)));
}

/** The same link seen from the other side. */
export function reversed(link: Link): Link {
  return { ...link, offset: -link.offset };
}
