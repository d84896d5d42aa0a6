// What the server says about a case's pictures: studies, their series, the address of every frame.

export interface Window {
  center: number;
  width: number;
}

export interface FrameRef {
  url: string;
  /** Position of the first pixel's centre in the patient, mm (LPS). */
  position: readonly [number, number, number] | null;
  /** Direction of a row, then of a column: six cosines. */
  orientation: readonly number[] | null;
}

export interface Series {
  key: string;
  label: string;
  modality: string;
  color: boolean;
  rows: number;
  columns: number;
  /** Distance of rows, then of columns, mm; null where it is not known. */
  spacing: readonly [number, number] | null;
  window: Window | null;
  range: readonly [number, number] | null;
  /** Key of the frame of reference that the positions are told in; those of two keys cannot be compared. Null: not known. */
  frameOfReference: string | null;
  frames: readonly FrameRef[];
}

export interface Study {
  key: string;
  label: string;
  series: readonly Series[];
}

type Json = Record<string, unknown>;

function object(value: unknown, where: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error(`${where}: an object is missing`);
  return value as Json;
}

function list(value: unknown, where: string): unknown[] {
  if (!Array.isArray(value)) throw new Error(`${where}: a list is missing`);
  return value as unknown[];
}

function text(value: unknown, where: string): string {
  if (typeof value !== "string") throw new Error(`${where}: a text is missing`);
  return value;
}

/** A list of `length` finite numbers, or null. */
function numbers(value: unknown, length: number, where: string): number[] | null {
  if (value === null || value === undefined) return null;
  const found = list(value, where).map(Number);
  if (found.length !== length || !found.every(Number.isFinite)) throw new Error(`${where}: ${length} numbers are missing`);
  return found;
}

function parseWindow(value: unknown, where: string): Window | null {
  if (value === null || value === undefined) return null;
  const { center, width } = object(value, where);
  return typeof center === "number" && typeof width === "number" && width > 0 ? { center, width } : null;
}

function parseFrame(value: unknown, where: string): FrameRef {
  const frame = object(value, where);
  return {
    url: text(frame.url, `${where}.url`),
    position: numbers(frame.position, 3, `${where}.position`) as FrameRef["position"],
    orientation: numbers(frame.orientation, 6, `${where}.orientation`),
  };
}

function parseSeries(value: unknown, where: string): Series {
  const series = object(value, where);
  const spacing = numbers(series.spacing, 2, `${where}.spacing`) as Series["spacing"];
  return {
    key: text(series.key, `${where}.key`),
    label: text(series.label, `${where}.label`),
    modality: typeof series.modality === "string" ? series.modality : "",
    color: series.color === true,
    rows: Number(series.rows),
    columns: Number(series.columns),
    spacing: spacing !== null && spacing[0] > 0 && spacing[1] > 0 ? spacing : null,
    window: parseWindow(series.window, `${where}.window`),
    range: numbers(series.range, 2, `${where}.range`) as Series["range"],
    frameOfReference: typeof series.frame_of_reference === "string" ? series.frame_of_reference : null,
    frames: list(series.frames, `${where}.frames`).map((frame, i) => parseFrame(frame, `${where}.frames[${i}]`)),
  };
}

/**
 * Reads the answer of a case's address of pictures.
 *
 * Throws an Error that names the place where something is missing. Series without frames are left out.
 */
export function parseStudies(value: unknown): Study[] {
  return list(object(value, "images").studies, "studies").map((item, s) => {
    const study = object(item, `studies[${s}]`);
    return {
      key: text(study.key, `studies[${s}].key`),
      label: text(study.label, `studies[${s}].label`),
      series: list(study.series, `studies[${s}].series`)
        .map((series, i) => parseSeries(series, `studies[${s}].series[${i}]`))
        .filter((series) => series.frames.length > 0),
    };
  });
}
