// One viewport: a series, the slice and window it shows, what it says about them, and its failures.

import type { Types } from "@cornerstonejs/core";
import { h } from "./dom";
import * as engine from "./engine";
import type { Frame } from "./frame";
import * as measurements from "./measurements";
import { Sides } from "./sides";
import { firstSlice, store } from "./source";
import { prefetchOrder } from "./store";
import type { Series, Study, Window } from "./study";
import { autoWindow, clamp, defaultWindow, dragWindow, figure, toBounds, wantsAutoWindow } from "./window";

/** Frames to fetch around the slice at most, and how much of the memory one pane may fill with them. */
const PREFETCH_FRAMES = 240;
const PREFETCH_BYTES = 192 * 1024 * 1024;
/** A wait shorter than this is not worth a sign. */
const PATIENCE_MS = 150;

interface View {
  index: number;
  own: Window;
  window: Window;
  invert: boolean;
}

export interface PaneEvents {
  /** The reader (not a link) has gone to another slice. */
  moved: (pane: Pane) => void;
  /** Slice, window, zoom or series have changed. */
  changed: (pane: Pane) => void;
  windowed: (pane: Pane) => void;
}

export class Pane {
  readonly root: HTMLElement;
  readonly slider: HTMLInputElement;
  study: Study;
  series: Series;
  window: Window;
  /** The window that the series opens with. */
  own: Window;
  invert = false;
  /** The slice that is asked for; `shown` is the one on the screen, or null. */
  index = 0;
  shown: number | null = null;
  readonly image: HTMLDivElement;
  private viewport!: Types.IStackViewport;
  private readonly views = new Map<string, View>();
  private readonly corners: Record<"tl" | "tr" | "bl" | "br", HTMLElement>;
  private readonly sides = new Sides();
  private readonly message: HTMLElement;
  private ids: string[] = [];
  private turn = 0;
  private direction: 1 | -1 = 1;
  private opened: string | null = null;
  private measured = true;
  /** Magnification that fits the viewport; how many times that the reader has chosen, and the middle of the view. */
  private fitting = 1;
  private magnified = 1;
  private camera: Types.ICamera = {};
  private resizing = false;

  constructor(
    readonly id: string,
    study: Study,
    series: Series,
    private readonly events: PaneEvents,
  ) {
    this.study = study;
    this.series = series;
    this.own = this.window = defaultWindow(series);
    this.corners = {
      tl: h("div", { class: "overlay overlay--tl" }),
      tr: h("div", { class: "overlay overlay--tr" }),
      bl: h("div", { class: "overlay overlay--bl" }),
      br: h("div", { class: "overlay overlay--br" }),
    };
    this.message = h("div", { class: "pane__message", role: "alert", hidden: true });
    this.image = h("div", { class: "pane__image" });
    this.slider = h("input", { type: "range", class: "pane__slider", min: 0, max: 0, value: 0, "aria-label": "Slice" });
    this.root = h(
      "section",
      { class: "pane", tabindex: 0, role: "group", "data-pane": id },
      h("div", { class: "pane__stage" }, this.image, this.sides.root, ...Object.values(this.corners), this.message),
      this.slider,
    );
    this.listen();
  }

  /** To be called once, with the pane in the page: Cornerstone takes no element without a size. */
  attach(): void {
    this.viewport = engine.enable(this.id, this.image);
    // Cornerstone would take the focus, and with it the keys.
    this.image.removeAttribute("tabindex");
  }

  private listen(): void {
    this.slider.addEventListener("input", () => this.go(Number(this.slider.value)));
    this.image.addEventListener("viewer:drag-window", (event) => {
      const { dx, dy } = (event as CustomEvent<{ dx: number; dy: number }>).detail;
      this.setWindow(dragWindow(this.window, dx, dy, this.series.range));
      this.events.windowed(this);
    });
    let rest = 0;
    this.image.addEventListener(
      "wheel",
      (event) => {
        event.preventDefault();
        if (event.ctrlKey) return this.zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1);
        // A notch of a wheel is one slice; the small steps of a touchpad add up to one.
        const lines = event.deltaMode === WheelEvent.DOM_DELTA_PIXEL ? event.deltaY / 40 : event.deltaY;
        rest = Math.abs(lines) >= 1 ? Math.sign(lines) : rest + lines;
        if (Math.abs(rest) < 1) return;
        this.step(Math.sign(rest));
        rest = 0;
      },
      { passive: false },
    );
    this.image.addEventListener("contextmenu", (event) => event.preventDefault());
    this.image.addEventListener("CORNERSTONE_CAMERA_MODIFIED", () => this.describe());
  }

  private view(): View {
    return { index: this.index, own: this.own, window: this.window, invert: this.invert };
  }

  get count(): number {
    return this.series.frames.length;
  }

  /** Opens a series where it was left, else at its middle (`index` overrides both). */
  async open(study: Study, series: Series, index?: number): Promise<void> {
    if (this.opened !== null) this.views.set(this.opened, this.view());
    const key = `${study.key}/${series.key}`;
    const seen = this.views.get(key);
    this.study = study;
    this.series = series;
    this.opened = key;
    this.own = seen?.own ?? defaultWindow(series);
    this.window = seen?.window ?? this.own;
    this.measured = seen !== undefined;
    this.invert = seen?.invert ?? false;
    this.ids = engine.register(series, study.key);
    this.shown = null;
    this.slider.max = String(this.count - 1);
    this.slider.hidden = this.count < 2;
    await this.show(clamp(index ?? seen?.index ?? firstSlice(series), 0, this.count - 1));
  }

  /** Goes to a slice by the reader's hand. */
  go(index: number): void {
    const wanted = clamp(index, 0, this.count - 1);
    if (wanted === this.index) return;
    this.direction = wanted > this.index ? 1 : -1;
    void this.show(wanted);
    this.events.moved(this);
  }

  step(by: number): void {
    this.go(this.index + by);
  }

  /** Shows a slice; resolves when it is on the screen, was overtaken by another one, or has failed. */
  async show(index: number): Promise<void> {
    const turn = ++this.turn;
    this.index = index;
    this.slider.value = String(index);
    const frame = this.series.frames[index];
    if (frame === undefined) return;
    const asked = performance.now();
    this.root.dataset.state = "busy";
    // Cornerstone may never answer for a slice that was overtaken: its clock must not say anything then.
    const wait = window.setTimeout(() => turn === this.turn && this.state("loading"), PATIENCE_MS);
    try {
      const loading = store.load(this.id, frame.url);
      store.cache.pin(this.id, frame.url);
      const arrived = await loading;
      if (turn !== this.turn) return;
      this.measure(arrived);
      await this.draw(index);
      if (turn !== this.turn) return;
      this.shown = index;
      this.state("ready");
      performance.measure("viewer:slice", { start: asked, detail: { pane: this.id, index } });
      this.fetchAround(frame.url);
    } catch (error) {
      if (turn === this.turn && !(error instanceof DOMException && error.name === "AbortError")) this.fail(error);
    } finally {
      window.clearTimeout(wait);
      if (turn === this.turn) this.describe();
    }
  }

  /** Takes the series' own window from its first picture where the headers give none. */
  private measure(frame: Frame): void {
    if (this.measured) return;
    this.measured = true;
    if (!wantsAutoWindow(this.series, frame.pixels instanceof Float32Array)) return;
    const found = autoWindow(frame, this.series.modality);
    if (found !== null) this.own = this.window = found;
  }

  private async draw(index: number): Promise<void> {
    if (this.shown === null) {
      await this.viewport.setStack([...this.ids], index);
      this.fit();
    } else {
      await this.viewport.setImageIdIndex(index);
    }
    this.applyWindow();
    this.viewport.render();
  }

  private fetchAround(url: string): void {
    const bytes = store.cache.get(url)?.bytes ?? 1;
    const limit = Math.min(PREFETCH_FRAMES, Math.floor(PREFETCH_BYTES / bytes));
    const order = prefetchOrder(this.index, this.count, this.direction, limit);
    store.prefetch(
      this.id,
      order.map((i) => this.series.frames[i]?.url ?? "").filter((wished) => wished !== ""),
    );
  }

  private applyWindow(): void {
    const { lower, upper } = toBounds(this.window);
    this.viewport.setProperties({ voiRange: { lower, upper }, invert: this.invert });
  }

  setWindow(window: Window): void {
    this.window = window;
    if (this.shown !== null) {
      this.applyWindow();
      this.viewport.render();
    }
    this.describe();
  }

  toggleInvert(): void {
    this.invert = !this.invert;
    this.setWindow(this.window);
  }

  /** Multiplies the magnification around the middle of the viewport. */
  zoom(by: number): void {
    if (this.shown === null) return;
    this.viewport.setZoom(this.viewport.getZoom() * by);
    this.viewport.render();
    this.describe();
  }

  /** Moves the picture by CSS pixels. */
  pan(dx: number, dy: number): void {
    if (this.shown === null) return;
    const { focalPoint, position } = this.viewport.getCamera();
    if (focalPoint === undefined || position === undefined) return;
    const [a, b] = [this.viewport.canvasToWorld([0, 0]), this.viewport.canvasToWorld([dx, dy])];
    const shift = (point: Types.Point3): Types.Point3 => [
      point[0] - (b[0] - a[0]),
      point[1] - (b[1] - a[1]),
      point[2] - (b[2] - a[2]),
    ];
    this.viewport.setCamera({ focalPoint: shift(focalPoint), position: shift(position) });
    this.viewport.render();
  }

  /** Window, inversion, zoom and position as when the series was opened; slice and measurements stay. */
  reset(): void {
    if (this.shown === null) return;
    this.invert = false;
    this.fit();
    this.setWindow(this.own);
    this.events.windowed(this);
  }

  /** Adds a length between two points of the pane in CSS pixels. */
  addLength(from: readonly [number, number], to: readonly [number, number]): void {
    if (this.shown !== null) measurements.addLength(this.viewport, [...from], [...to]);
  }

  /** Removes the length that was drawn last on the slice that is shown. */
  removeLength(): void {
    if (this.shown !== null) measurements.removeLast(this.ids.slice(this.shown, this.shown + 1));
  }

  /** Removes the lengths on all slices of the series. */
  removeLengths(): void {
    measurements.removeAll(this.ids);
  }

  private fit(): void {
    this.viewport.resetCamera();
    this.fitting = this.pixelsPerPixel();
  }

  /** To be called around a change of the viewport's size: what fitted fits again, what was magnified stays so. */
  resize(apply: () => void): void {
    this.resizing = true;
    const { magnified } = this;
    const { focalPoint, position } = this.camera;
    apply();
    if (this.shown !== null) {
      this.fit();
      if (Math.abs(magnified - 1) > 0.01 && focalPoint !== undefined && position !== undefined) {
        this.viewport.setZoom(this.viewport.getZoom() * magnified);
        this.viewport.setCamera({ focalPoint, position });
      }
      this.viewport.render();
    }
    this.resizing = false;
    this.describe();
  }

  private pixelsPerPixel(): number {
    const [x, y] = [this.image.clientWidth / 2, this.image.clientHeight / 2];
    const [a, b] = [this.viewport.canvasToWorld([x, y]), this.viewport.canvasToWorld([x + 100, y])];
    const distance = Math.hypot(b[0] - a[0], b[1] - a[1], b[2] - a[2]) / (this.series.spacing?.[1] ?? 1);
    return (100 * window.devicePixelRatio) / distance;
  }

  private state(state: "loading" | "ready" | "error"): void {
    this.root.dataset.state = state;
    if (state !== "error") this.message.hidden = true;
    if (state === "loading") {
      this.message.replaceChildren(h("p", { class: "pane__wait" }, `Loading slice ${this.index + 1} …`));
      this.message.hidden = this.shown !== null;
    }
  }

  private fail(error: unknown): void {
    const reason = error instanceof Error ? error.message : "an unknown fault";
    const retry = h("button", { type: "button", class: "button button--small" }, "Try again");
    retry.addEventListener("click", () => {
      this.root.focus();
      void this.show(this.index);
    });
    this.message.replaceChildren(
      h("p", { class: "pane__fault" }, `Slice ${this.index + 1} cannot be shown: ${reason}.`),
      retry,
    );
    this.message.hidden = false;
    this.state("error");
  }

  /** Writes what is on the screen into the corners, the labels and (for tests) the data attributes. */
  describe(): void {
    const { center, width } = this.window;
    const shown = this.shown ?? this.index;
    const slice = `${shown + 1} / ${this.count}`;
    const zoom = this.shown === null ? null : this.pixelsPerPixel();
    if (zoom !== null && !this.resizing) {
      this.magnified = zoom / this.fitting;
      this.camera = this.viewport.getCamera();
    }
    const percent = zoom === null ? null : Math.round(zoom * 100);
    const spacing = this.series.spacing;
    const moving = this.shown !== null && this.shown !== this.index ? ` → ${this.index + 1}` : "";
    this.corners.tl.replaceChildren(
      h("strong", {}, this.study.label),
      h("span", {}, this.series.label),
    );
    this.corners.tr.replaceChildren(h("strong", {}, slice + moving), h("span", {}, this.place(shown)));
    this.corners.bl.replaceChildren(
      h("span", {}, this.series.color ? "colour" : `C ${figure(center)}  W ${figure(width)}${this.invert ? "  inverted" : ""}`),
      h("span", {}, `${percent === null ? "" : `${percent} %   `}${spacing === null ? "no pixel spacing" : `${figure(spacing[0])} × ${figure(spacing[1])} mm`}`),
    );
    this.corners.br.replaceChildren(h("span", {}, "Research use only"));
    this.sides.show(this.series.frames[shown]?.orientation ?? null);
    this.slider.setAttribute("aria-valuetext", `slice ${this.index + 1} of ${this.count}`);
    this.root.setAttribute("aria-label", `${this.study.label}, ${this.series.label}, slice ${this.index + 1} of ${this.count}`);
    Object.assign(this.root.dataset, {
      slice: String(shown),
      slices: String(this.count),
      center: String(center),
      width: String(width),
      invert: String(this.invert),
      zoom: String(percent ?? ""),
      series: this.series.key,
      study: this.study.key,
    });
    this.events.changed(this);
  }

  /** Where the slice lies along the stack, mm, where the headers say so. */
  private place(index: number): string {
    const frame = this.series.frames[index];
    if (!frame?.position || !frame.orientation) return "";
    const [a, b, c, d, e, f] = frame.orientation as [number, number, number, number, number, number];
    const n = [b * f - c * e, c * d - a * f, a * e - b * d] as const;
    const [x, y, z] = frame.position;
    return `${(n[0] * x + n[1] * y + n[2] * z).toFixed(1)} mm`;
  }

  close(): void {
    store.release(this.id);
    engine.disable(this.id);
    this.root.remove();
  }
}
