// The viewer of a case: one or two viewports, the list of series, the toolbar and the keys.

import { Cine } from "./cine";
import { h } from "./dom";
import * as engine from "./engine";
import { LengthKeeper } from "./keeping";
import { dispatch } from "./keys";
import { Corrections, crossing, type Link, linkAsShown, linkByGeometry, linkedSlice, linkWords, reversed } from "./linking";
import { Pane } from "./pane";
import { ruler } from "./ruler";
import { type Choice, SeriesList } from "./serieslist";
import { toggleSheet } from "./sheet";
import { shortcutsOf } from "./shortcuts";
import { fetchStudies, store } from "./source";
import type { Series, Study, Window } from "./study";
import { Toolbar } from "./toolbar";
import { presets } from "./window";

export class Viewer {
  readonly panes: Pane[] = [];
  readonly cine: Cine;
  active!: Pane;
  mode: engine.Mode = "window";
  /** Whether the reader wants linked viewports; `link` is null also where the two series cannot be linked. */
  private linking = false;
  private link: Link | null = null;
  private readonly corrections = new Corrections();
  private readonly toolbar: Toolbar;
  private readonly list: SeriesList;
  private readonly stage = h("div", { class: "viewer__stage" });
  private readonly note = h("p", { class: "viewer__note", role: "status", hidden: true });
  private readonly choices: Choice[];
  readonly shortcuts = shortcutsOf(this);

  constructor(
    readonly root: HTMLElement,
    readonly studies: readonly Study[],
  ) {
    this.choices = studies.flatMap((study) => study.series.map((series) => ({ study, series })));
    this.cine = new Cine(() => this.active, () => this.refresh());
    this.toolbar = new Toolbar({
      mode: (mode) => this.setMode(mode),
      preset: (window) => this.setWindow(window),
      invert: () => this.active.toggleInvert(),
      reset: () => this.active.reset(),
      clear: () => this.active.removeLengths(),
      cine: () => this.cine.toggle(),
      rate: (rate) => this.cine.setRate(rate),
      compare: () => void this.toggleCompare(),
      link: () => this.toggleLink(),
      list: () => this.toggleList(),
      full: () => this.toggleFull(),
      help: () => toggleSheet(this.shortcuts),
      leave: () => this.active.root.focus({ preventScroll: true }),
    });
    this.list = new SeriesList(studies, (choice) => void this.open(choice));
    const body = h("div", { class: "viewer__body" }, this.list.root, this.stage);
    this.root.replaceChildren(this.toolbar.root, this.note, body);
    this.root.classList.add("viewer");
    this.list.root.hidden = this.choices.length < 2;
  }

  /** Shows the first series and listens to keys and sizes. */
  async start(): Promise<void> {
    const [first] = this.choices;
    if (first === undefined) throw new Error("this case has no pictures");
    const began = performance.now();
    engine.start(this.root.dataset.rendering);
    performance.measure("viewer:start", { start: began });
    this.root.dataset.renderer = engine.rendering();
    this.active = this.add(first);
    const opened = this.active.open(first.study, first.series);
    document.addEventListener("keydown", (event) => this.root.isConnected && dispatch(event, this.shortcuts));
    new ResizeObserver(() => this.resize()).observe(this.stage);
    await opened;
    if (this.root.dataset.lengths !== undefined) {
      // Lengths lie on pictures of all series, also of those that were not opened yet.
      for (const { study, series } of this.choices) engine.register(series, study.key);
      void new LengthKeeper(this.root, this.root.dataset.lengths).load();
    }
  }

  private add({ study, series }: Choice): Pane {
    const pane = new Pane(`pane-${this.panes.length}`, study, series, {
      moved: (moved) => this.follow(moved),
      changed: () => this.refresh(),
      windowed: (changed) => this.shareWindow(changed),
    });
    const select = (): void => this.activate(pane);
    pane.root.addEventListener("focusin", select);
    pane.root.addEventListener("pointerdown", () => {
      select();
      pane.root.focus({ preventScroll: true });
    });
    this.panes.push(pane);
    this.stage.append(pane.root);
    this.stage.dataset.panes = String(this.panes.length);
    pane.attach();
    return pane;
  }

  activate(pane: Pane): void {
    if (this.active === pane) return;
    this.cine.stop();
    this.active = pane;
    this.refresh();
  }

  private resize(): void {
    const apply = this.panes.reduce((inner, pane) => () => pane.resize(inner), engine.resize);
    apply();
  }

  private refresh(): void {
    if (this.active === undefined) return;
    for (const pane of this.panes) pane.root.classList.toggle("pane--active", pane === this.active && this.panes.length > 1);
    this.list.mark(this.active, this.panes.filter((pane) => pane !== this.active));
    this.toolbar.update({
      mode: this.mode,
      series: this.active.series,
      own: this.active.own,
      window: this.active.window,
      invert: this.active.invert,
      playing: this.cine.playing,
      rate: this.cine.rate,
      comparing: this.panes.length > 1,
      comparable: this.choices.length > 1,
      linked: this.link !== null,
      linkable: this.linkable(),
      listed: !this.list.root.hidden,
      count: this.active.count,
    });
    this.sayLink();
  }

  private linkable(): boolean {
    const [first, second] = this.panes;
    return first !== undefined && second !== undefined && !crossing(first.series, second.series);
  }

  /** Says by what the two viewports are linked; a sentence that stands there already is not said again. */
  private sayLink(): void {
    const [first, second] = this.panes;
    const words = first === undefined || second === undefined ? "" : linkWords(this.link, first.series, second.series);
    if (this.note.textContent !== words) this.note.textContent = words;
    this.note.hidden = words === "";
    this.root.dataset.link = this.link?.ground ?? "none";
  }

  /** Shows a series in the active viewport. */
  async open({ study, series }: Choice): Promise<void> {
    this.cine.stop();
    const opened = this.active.open(study, series);
    this.relink();
    await opened;
    this.follow(this.active);
    this.refresh();
  }

  /** The next (+1) or previous (-1) series of all studies, in the active viewport. */
  stepSeries(by: 1 | -1): void {
    const at = this.choices.findIndex(({ study, series }) => study === this.active.study && series === this.active.series);
    const next = this.choices[(at + by + this.choices.length) % this.choices.length];
    if (next !== undefined && this.choices.length > 1) void this.open(next);
  }

  setMode(mode: engine.Mode): void {
    this.mode = mode;
    engine.setMode(mode);
    this.root.dataset.mode = mode;
    this.refresh();
  }

  setWindow(window: Window): void {
    this.active.setWindow(window);
    this.shareWindow(this.active);
  }

  /** The window preset of a digit, 1 being the series' own window. */
  preset(digit: number): void {
    const chosen = presets(this.active.series, this.active.own)[digit - 1];
    if (chosen !== undefined) this.setWindow(chosen.window);
  }

  /** Linked viewports of the same modality keep the same window: what differs is then the patient. */
  private shareWindow(from: Pane): void {
    if (this.link === null || from.series.color) return;
    for (const pane of this.panes) {
      if (pane !== from && pane.series.modality === from.series.modality && !pane.series.color) pane.setWindow(from.window);
    }
  }

  /** The series that belongs beside the active one: of the earliest other study, most alike in its name. */
  private counterpart(): Choice | undefined {
    const { study, series } = this.active;
    const others = this.choices.filter((choice) => choice.series !== series);
    const alike = (choice: Choice): number => {
      const words = new Set(series.label.split(" · "));
      const shared = choice.series.label.split(" · ").filter((word) => words.has(word)).length;
      const along = crossing(choice.series, series) ? 0 : 10;
      return (choice.study === study ? 0 : 100) + (choice.series.modality === series.modality ? 20 : 0) + along + shared;
    };
    return others.sort((a, b) => alike(b) - alike(a))[0];
  }

  /** Opens a second viewport with the earlier study beside the first one, linked; or closes it. */
  async toggleCompare(): Promise<void> {
    this.cine.stop();
    const [first, second] = this.panes;
    if (second !== undefined) {
      this.linking = false;
      this.link = null;
      this.panes.pop();
      second.close();
      this.stage.dataset.panes = "1";
      this.active = first as Pane;
      this.sayLink(); // the line takes room: a canvas that does not know of it is stretched, and lengths with it
      this.resize();
      return this.refresh();
    }
    const beside = this.counterpart();
    if (beside === undefined || first === undefined) return;
    this.linking = true;
    this.link = this.linkOf(first.series, beside.series);
    const pane = this.add(beside);
    this.sayLink();
    this.resize();
    const slice = this.link === null ? undefined : linkedSlice(this.link, first.series, first.index, beside.series);
    await pane.open(beside.study, beside.series, slice);
    this.shareWindow(first);
    this.refresh();
  }

  private linkOf(first: Series, second: Series): Link | null {
    return this.corrections.find(first, second) ?? linkByGeometry(first, second);
  }

  private relink(): void {
    const [first, second] = this.panes;
    const both = first !== undefined && second !== undefined;
    this.link = both && this.linking ? this.linkOf(first.series, second.series) : null;
  }

  /** Unlinks, or links the two slices that the reader has put beside each other. */
  toggleLink(): void {
    const [first, second] = this.panes;
    if (first === undefined || second === undefined || !this.linkable()) return;
    this.linking = !this.linking;
    this.link = this.linking ? linkAsShown(first.series, first.index, second.series, second.index) : null;
    if (this.link !== null) this.corrections.add(first.series, second.series, this.link);
    this.refresh();
  }

  private follow(moved: Pane): void {
    const [first, second] = this.panes;
    if (this.link === null || first === undefined || second === undefined) return;
    const other = moved === first ? second : first;
    const link = moved === first ? this.link : reversed(this.link);
    const slice = linkedSlice(link, moved.series, moved.index, other.series);
    if (slice !== other.index) void other.show(slice);
  }

  toggleList(): void {
    this.list.root.hidden = !this.list.root.hidden;
    this.resize();
    this.refresh();
  }

  toggleFull(): void {
    if (document.fullscreenElement !== null) void document.exitFullscreen();
    else void this.root.requestFullscreen();
  }

  /** Moves the focus to the other viewport. */
  swap(): void {
    const other = this.panes.find((pane) => pane !== this.active);
    other?.root.focus();
  }

  /** A length by the keyboard: arrows move a cross, Enter sets both ends, Escape leaves. */
  measure(): void {
    this.cine.stop();
    ruler(this.active);
  }

  help(): void {
    toggleSheet(this.shortcuts);
  }
}

/** Fills `<div data-viewer data-images="...">`; what fails is said in its place, with a button to try again. */
export async function mount(root: HTMLElement, asked?: Promise<Study[]>): Promise<void> {
  root.setAttribute("aria-busy", "true");
  try {
    const viewer = new Viewer(root, await (asked ?? fetchStudies(root.dataset.images ?? "")));
    await viewer.start();
    store.release("head start");
    performance.measure("viewer:first-image", { start: "viewer:asked" });
    root.dispatchEvent(new CustomEvent("viewer:ready", { bubbles: true }));
  } catch (error) {
    const reason = error instanceof Error ? error.message : "an unknown fault";
    const retry = h("button", { type: "button", class: "button" }, "Try again");
    retry.addEventListener("click", () => void mount(root));
    root.replaceChildren(h("div", { class: "empty", role: "alert" }, h("p", {}, `The pictures cannot be shown: ${reason}.`), retry));
  } finally {
    root.removeAttribute("aria-busy");
  }
}
