// Lengths as they are kept: on which picture, and between which of its pixels.

import type { FrameRef, Series } from "./study";

/** Column and row; a whole number is the middle of a pixel. */
export type Pixel = readonly [number, number];
export type Point = [number, number, number];

export interface Length {
  id: string;
  /** Address of the picture. */
  picture: string;
  from: Pixel;
  to: Pixel;
}

export type Changes = Record<string, Omit<Length, "id"> | null>;

type Plane = { origin: readonly [number, number, number]; cosines: readonly number[]; spacing: readonly [number, number] };

/** Where a picture lies; one without a place lies at the origin with pixels of 1 mm, as the renderer takes it. */
export function planeOf(series: Series, frame: FrameRef): Plane {
  return {
    origin: frame.position ?? [0, 0, 0],
    cosines: frame.orientation ?? [1, 0, 0, 0, 1, 0],
    spacing: series.spacing ?? [1, 1],
  };
}

/** The pixel of a picture at a place in the patient, mm. */
export function toPixel({ origin, cosines, spacing }: Plane, point: readonly number[]): Pixel {
  const along = (first: number): number =>
    origin.reduce((sum, start, i) => sum + ((point[i] as number) - start) * (cosines[first + i] as number), 0);
  return [along(0) / spacing[1], along(3) / spacing[0]];
}

/** The place in the patient of a pixel of a picture, mm. */
export function toPoint({ origin, cosines, spacing }: Plane, [column, row]: Pixel): Point {
  const [right, down] = [column * spacing[1], row * spacing[0]];
  const at = (i: 0 | 1 | 2): number => origin[i] + right * (cosines[i] as number) + down * (cosines[i + 3] as number);
  return [at(0), at(1), at(2)];
}

function isPixel(value: unknown): value is Pixel {
  return Array.isArray(value) && value.length === 2 && value.every(Number.isFinite);
}

/** Reads the answer of a case's address of lengths; throws an Error when it is none. */
export function parseLengths(value: unknown): Length[] {
  const found = (value as { lengths?: unknown } | null)?.lengths;
  if (!Array.isArray(found)) throw new Error("lengths: a list is missing");
  return found.map((one: unknown, i) => {
    const { id, picture, from, to } = (one ?? {}) as Record<string, unknown>;
    if (typeof id !== "string" || typeof picture !== "string" || !isPixel(from) || !isPixel(to)) throw new Error(`lengths[${i}] is none`);
    return { id, picture, from, to };
  });
}

/** What the server holds, as far as it is known here; only what differs has to be sent. */
export class Ledger {
  /** By id; empty where the answer is outstanding, or did not come. */
  private readonly held = new Map<string, string>();

  holds(lengths: readonly Length[]): void {
    for (const { id, ...rest } of lengths) this.held.set(id, JSON.stringify(rest));
  }

  /** What has to be sent so that the server holds these lengths; null when it does. */
  changes(lengths: readonly Length[]): Changes | null {
    const changes: Changes = {};
    for (const { id, ...rest } of lengths) if (this.held.get(id) !== JSON.stringify(rest)) changes[id] = rest;
    const there = new Set(lengths.map(({ id }) => id));
    for (const id of this.held.keys()) if (!there.has(id)) changes[id] = null;
    return Object.keys(changes).length === 0 ? null : changes;
  }

  sent(changes: Changes): void {
    for (const [id, length] of Object.entries(changes)) if (length !== null) this.held.set(id, "");
  }

  kept(changes: Changes): void {
    for (const [id, length] of Object.entries(changes)) {
      if (length === null) this.held.delete(id);
      else this.held.set(id, JSON.stringify(length));
    }
  }
}
