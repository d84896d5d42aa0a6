// Cornerstone, set up once for a page: renderer, image loader, what it may know of an image, mouse tools.

import {
  cache,
  Enums,
  getRenderingCapabilities,
  imageLoader,
  init as initCore,
  metaData,
  RenderingEngine,
  setUseCPURendering,
  type Types,
} from "@cornerstonejs/core";
import {
  addTool,
  annotation,
  BaseTool,
  Enums as ToolEnums,
  init as initTools,
  LengthTool,
  PanTool,
  ToolGroupManager,
  type Types as ToolTypes,
  ZoomTool,
} from "@cornerstonejs/tools";
import { type Frame, toPicture } from "./frame";
import { planeOf } from "./lengths";
import { CACHE_BYTES, FrameError, store } from "./source";
import type { FrameRef, Series } from "./study";

export type Mode = "window" | "zoom" | "pan" | "length";

const SCHEME = "frame";
const ENGINE = "review";
const TOOLS = "review";
const REMEMBERED = "viewer.renderer";
/** Cornerstone keeps a second map to the same pixels: what leaves the store leaves it too. */
function forget(url: string): void {
  for (const id of idsOfUrl.get(url) ?? []) {
    if (cache.getImageLoadObject(id) !== undefined) cache.removeImageLoadObject(id, { force: true });
  }
}

interface Known {
  study: string;
  series: Series;
  frame: FrameRef;
  color: boolean;
}

const known = new Map<string, Known>();
const idsOfUrl = new Map<string, Set<string>>();

/** Makes the frames of a series known to Cornerstone; the identifiers in the order of the slices. */
export function register(series: Series, studyKey: string): string[] {
  return series.frames.map((frame, i) => {
    const id = `${SCHEME}:${studyKey}/${series.key}/${i}`;
    known.set(id, { study: studyKey, series, frame, color: series.color });
    const ids = idsOfUrl.get(frame.url) ?? new Set<string>();
    idsOfUrl.set(frame.url, ids.add(id));
    return id;
  });
}

/** What is known of an image by its identifier. */
export function knownImage(id: string): Readonly<Known> | undefined {
  return known.get(id);
}

/** The identifier of the picture at an address, where its series is registered. */
export function imageOf(url: string): string | undefined {
  return idsOfUrl.get(url)?.values().next().value;
}

function plane({ study, series, frame }: Known): Record<string, unknown> {
  const { origin, cosines, spacing } = planeOf(series, frame);
  return {
    frameOfReferenceUID: study,
    rows: series.rows,
    columns: series.columns,
    imageOrientationPatient: cosines,
    rowCosines: cosines.slice(0, 3),
    columnCosines: cosines.slice(3, 6),
    imagePositionPatient: origin,
    pixelSpacing: spacing,
    rowPixelSpacing: spacing[0],
    columnPixelSpacing: spacing[1],
    // Without a known spacing lengths are given in pixels, never in millimetres of 1.
    usingDefaultValues: series.spacing === null,
  };
}

function provide(type: string, ...queries: string[]): unknown {
  const found = known.get(queries[0] ?? "");
  if (found === undefined) return undefined;
  const color = found.color;
  if (type === Enums.MetadataModules.IMAGE_PLANE) return plane(found);
  if (type === Enums.MetadataModules.GENERAL_SERIES) return { modality: found.series.modality };
  if (type === Enums.MetadataModules.IMAGE_PIXEL) {
    return {
      samplesPerPixel: color ? 3 : 1,
      photometricInterpretation: color ? "RGB" : "MONOCHROME2",
      rows: found.series.rows,
      columns: found.series.columns,
      bitsAllocated: color ? 8 : 16,
      bitsStored: color ? 8 : 16,
      highBit: color ? 7 : 15,
      pixelRepresentation: 0,
    };
  }
  return undefined;
}

let lookupTable = false;

function makeImage(imageId: string, frame: Frame, entry: Known): Types.IImage {
  const picture = toPicture(frame, lookupTable);
  const color = frame.samples === 3;
  entry.color = color;
  const width = picture.max * picture.slope - picture.min * picture.slope;
  const image = {
    imageId,
    rows: frame.rows,
    columns: frame.columns,
    height: frame.rows,
    width: frame.columns,
    color,
    rgba: false,
    numberOfComponents: frame.samples,
    slope: picture.slope,
    intercept: picture.intercept,
    minPixelValue: picture.min,
    maxPixelValue: picture.max,
    windowCenter: ((picture.min + picture.max) / 2) * picture.slope + picture.intercept,
    windowWidth: Math.max(Math.abs(width), 1),
    voiLUTFunction: Enums.VOILUTFunctionType.LINEAR,
    rowPixelSpacing: entry.series.spacing?.[0] ?? 1,
    columnPixelSpacing: entry.series.spacing?.[1] ?? 1,
    invert: false,
    sizeInBytes: picture.pixels.byteLength,
    dataType: picture.pixels.constructor.name as Types.PixelDataTypedArrayString,
    preScale: { enabled: !lookupTable, scaled: !lookupTable },
    imageFrame: { photometricInterpretation: color ? "RGB" : "MONOCHROME2" },
    getPixelData: () => picture.pixels,
    getCanvas: undefined,
  };
  return image as unknown as Types.IImage;
}

function loadImage(imageId: string): { promise: Promise<Types.IImage> } {
  const entry = known.get(imageId);
  if (entry === undefined) return { promise: Promise.reject(new Error("unknown image")) };
  // A pane has always loaded the frame before it shows it; this is the way from the store to the renderer.
  const held = store.cache.get(entry.frame.url);
  if (held === undefined) return { promise: Promise.reject(new FrameError(0, "the picture is no longer in memory")) };
  return { promise: Promise.resolve(makeImage(imageId, held, entry)) };
}

/** What a drag with the window tool does is the pane's matter: it knows the window, also between slices. */
class WindowTool extends BaseTool {
  static override toolName = "ReviewWindow";

  constructor(toolProps: ToolTypes.PublicToolProps = {}) {
    super(toolProps, { supportedInteractionTypes: ["Mouse", "Touch"] } as ToolTypes.ToolProps);
  }

  mouseDragCallback(event: { detail: { element: HTMLElement; deltaPoints: { canvas: number[] } } }): void {
    const { element, deltaPoints } = event.detail;
    element.dispatchEvent(new CustomEvent("viewer:drag-window", { detail: { dx: deltaPoints.canvas[0] ?? 0, dy: deltaPoints.canvas[1] ?? 0 } }));
  }

  touchDragCallback(event: Parameters<WindowTool["mouseDragCallback"]>[0]): void {
    this.mouseDragCallback(event);
  }
}

const TOOL_OF_MODE: Record<Mode, string> = {
  window: WindowTool.toolName,
  zoom: ZoomTool.toolName as string,
  pan: PanTool.toolName as string,
  length: LengthTool.toolName as string,
};

let engine: RenderingEngine | null = null;

/** Whether this machine draws with WebGL on a real graphics card, and if not, that a 2-D canvas is used. */
export function rendering(): "gpu" | "cpu" {
  return lookupTable ? "cpu" : "gpu";
}

/**
 * Chooses the renderer. Looking for a graphics card takes up to 150 ms without one, so what was found is kept for the
 * life of the tab.
 */
function chooseRenderer(forced?: string): "gpu" | "cpu" {
  const wanted = forced ?? window.sessionStorage.getItem(REMEMBERED);
  if (wanted === "cpu") {
    setUseCPURendering(true);
    return "cpu";
  }
  initCore();
  const found = getRenderingCapabilities();
  // WebGL in software is slower than a plain canvas, and reads back wrongly on some virtual desktops.
  const choice = wanted === "gpu" || (found.webgl2 && !found.softwareRasterizer) ? "gpu" : "cpu";
  setUseCPURendering(choice === "cpu");
  if (forced === undefined) window.sessionStorage.setItem(REMEMBERED, choice);
  return choice;
}

/** Pixels of the text of a length: that of the page, which is larger on a large screen. */
function textSize(): number {
  return Math.round(0.88 * Number.parseFloat(getComputedStyle(document.documentElement).fontSize));
}

/** Sets Cornerstone up; `forced` overrides the choice of the renderer (for tests and broken drivers). */
export function start(forced?: string): RenderingEngine {
  if (engine !== null) return engine;
  store.onEvict = forget;
  lookupTable = chooseRenderer(forced) === "cpu";
  initTools();
  cache.setMaxCacheSize(CACHE_BYTES * 3);
  imageLoader.registerImageLoader(SCHEME, loadImage as unknown as Types.ImageLoaderFn);
  metaData.addProvider(provide, 10_000);
  for (const tool of [WindowTool, ZoomTool, PanTool, LengthTool]) addTool(tool);
  const group = ToolGroupManager.createToolGroup(TOOLS);
  for (const name of Object.values(TOOL_OF_MODE)) group?.addTool(name);
  const styles = annotation.config.style.getDefaultToolStyles();
  annotation.config.style.setDefaultToolStyles({
    ...styles,
    global: {
      ...styles.global,
      color: "rgb(255, 214, 102)",
      colorHighlighted: "rgb(255, 236, 179)",
      colorSelected: "rgb(255, 214, 102)",
      textBoxColor: "rgb(255, 214, 102)",
      textBoxColorHighlighted: "rgb(255, 236, 179)",
      textBoxColorSelected: "rgb(255, 214, 102)",
      lineWidth: "1.5",
      textBoxFontFamily: "system-ui, sans-serif",
      textBoxFontSize: `${textSize()}px`,
    },
  });
  engine = new RenderingEngine(ENGINE);
  setMode("window");
  return engine;
}

/** What the left button does; the middle one pans, the right one zooms, always. */
export function setMode(mode: Mode): void {
  const group = ToolGroupManager.getToolGroup(TOOLS);
  if (group === undefined) return;
  const { Primary, Secondary, Auxiliary } = ToolEnums.MouseBindings;
  for (const name of Object.values(TOOL_OF_MODE)) group.setToolPassive(name, { removeAllBindings: true });
  group.setToolActive(PanTool.toolName as string, { bindings: [{ mouseButton: Auxiliary }, { numTouchPoints: 2 }] });
  group.setToolActive(ZoomTool.toolName as string, { bindings: [{ mouseButton: Secondary }] });
  group.setToolActive(TOOL_OF_MODE[mode], { bindings: [{ mouseButton: Primary }, { numTouchPoints: 1 }] });
}

export function enable(viewportId: string, element: HTMLDivElement): Types.IStackViewport {
  const running = start();
  running.enableElement({
    viewportId,
    type: Enums.ViewportType.STACK,
    element,
    defaultOptions: { background: [0, 0, 0] },
  });
  ToolGroupManager.getToolGroup(TOOLS)?.addViewport(viewportId, ENGINE);
  return running.getViewport(viewportId) as Types.IStackViewport;
}

export function disable(viewportId: string): void {
  ToolGroupManager.getToolGroup(TOOLS)?.removeViewports(ENGINE, viewportId);
  engine?.disableElement(viewportId);
}

export function resize(): void {
  engine?.resize(true, true);
}

/** Draws all viewports anew. */
export function render(): void {
  engine?.render();
}
