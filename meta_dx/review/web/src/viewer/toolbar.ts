// The row of buttons above the viewports.

import { RATES } from "./cine";
import { h, type Icon, icon } from "./dom";
import type { Mode } from "./engine";
import type { Series, Window } from "./study";
import { figure, type Preset, presets, sameWindow } from "./window";

export interface Actions {
  mode: (mode: Mode) => void;
  preset: (window: Window) => void;
  invert: () => void;
  reset: () => void;
  clear: () => void;
  cine: () => void;
  rate: (rate: number) => void;
  compare: () => void;
  link: () => void;
  list: () => void;
  full: () => void;
  help: () => void;
  /** Gives the focus, and with it the keys, back to the picture. */
  leave: () => void;
}

export interface ToolbarState {
  mode: Mode;
  series: Series;
  own: Window;
  window: Window;
  invert: boolean;
  playing: boolean;
  rate: number;
  comparing: boolean;
  comparable: boolean;
  linked: boolean;
  linkable: boolean;
  listed: boolean;
  count: number;
}

const MODES: readonly (readonly [Mode, string, string])[] = [
  ["window", "Window", "W"],
  ["zoom", "Zoom", "Z"],
  ["pan", "Pan", "P"],
  ["length", "Length", "L"],
];

const STEPS: Record<string, number> = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

export class Toolbar {
  readonly root: HTMLElement;
  private readonly modes = new Map<Mode, HTMLButtonElement>();
  private readonly toggles: Record<"invert" | "cine" | "compare" | "link" | "list", HTMLButtonElement>;
  private readonly preset = h("select", { class: "select select--small", "aria-label": "Window preset", title: "Window preset (1 – 9)" });
  private readonly center = this.field("Window centre");
  private readonly width = this.field("Window width");
  private readonly rate = h("select", { class: "select select--small", "aria-label": "Cine rate", title: "Cine rate, slices a second ([ and ])" });
  private readonly grey = h("span", { class: "toolbar__group" });
  private readonly play = h("span", { class: "toolbar__group" });
  private readonly more = h("span", { class: "toolbar__group" });
  private shown: Series | null = null;
  private known: Preset[] = [];

  constructor(private readonly actions: Actions) {
    const tools = h("span", { class: "toolbar__group", role: "radiogroup", "aria-label": "Tool of the left mouse button" });
    for (const [mode, name, key] of MODES) {
      const button = this.button(mode, `${name} (${key})`, () => actions.mode(mode));
      button.setAttribute("role", "radio");
      this.leaveAfterMouse(button, "click");
      this.modes.set(mode, button);
      tools.append(button);
    }
    tools.addEventListener("keydown", (event) => this.chooseByArrow(event));
    this.toggles = {
      invert: this.button("invert", "Invert (I)", actions.invert),
      cine: this.button("play", "Cine (Space)", actions.cine),
      compare: this.button("compare", "Earlier study beside it (C)", actions.compare),
      link: this.button("link", "Link scrolling as the slices lie now (K)", actions.link),
      list: this.button("list", "List of series (S)", actions.list),
    };
    for (const rate of RATES) this.rate.append(h("option", { value: rate }, `${rate} / s`));
    this.grey.append(this.preset, h("label", { class: "toolbar__pair" }, "C", this.center), h("label", { class: "toolbar__pair" }, "W", this.width));
    this.play.append(this.toggles.cine, this.rate);
    this.more.append(this.toggles.compare, this.toggles.link);
    this.root = h(
      "div",
      { class: "toolbar", role: "toolbar", "aria-label": "Viewer" },
      this.toggles.list,
      tools,
      this.grey,
      h(
        "span",
        { class: "toolbar__group" },
        this.toggles.invert,
        this.button("reset", "Reset window, zoom and position (R)", actions.reset),
        this.button("clear", "Remove all lengths of this series (Shift+Delete)", actions.clear),
      ),
      this.play,
      this.more,
      h(
        "span",
        { class: "toolbar__group toolbar__group--end" },
        this.button("full", "Full screen (F)", actions.full),
        this.button("help", "Keyboard and mouse (?)", actions.help),
      ),
    );
    this.listen();
  }

  private field(label: string): HTMLInputElement {
    return h("input", { type: "text", inputmode: "decimal", class: "input input--small input--figure", "aria-label": label, autocomplete: "off" });
  }

  private button(name: Icon, title: string, run: () => void): HTMLButtonElement {
    const button = h("button", { type: "button", class: "tool", title, "aria-label": title.replace(/ \([^(]*\)$/, "") }, icon(name));
    button.addEventListener("click", run);
    return button;
  }

  /** Within the tools the arrows choose, as among all radio buttons; elsewhere they belong to the slices and the series. */
  private chooseByArrow(event: KeyboardEvent): void {
    const step = STEPS[event.key];
    const at = MODES.findIndex(([mode]) => this.modes.get(mode) === event.target);
    if (step === undefined || at < 0 || event.shiftKey || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    const next = MODES[(at + step + MODES.length) % MODES.length];
    if (next !== undefined) this.actions.mode(next[0]);
  }

  /** The tool that is chosen is the one that Tab comes to, and has the focus if any of them has it. */
  private showMode(chosen: Mode): void {
    const inside = [...this.modes.values()].some((button) => button === document.activeElement);
    for (const [mode, button] of this.modes) {
      button.setAttribute("aria-checked", String(mode === chosen));
      button.tabIndex = mode === chosen ? 0 : -1;
      if (mode === chosen && inside) button.focus();
    }
  }

  /** After a choice by the mouse the keys go to the picture again; by the keyboard the control keeps them. */
  private leaveAfterMouse(control: HTMLElement, choice: "change" | "click"): void {
    let byMouse = false;
    control.addEventListener("pointerdown", () => (byMouse = true));
    control.addEventListener("keydown", () => (byMouse = false));
    control.addEventListener(choice, () => {
      if (byMouse) this.actions.leave();
      byMouse = false;
    });
  }

  private listen(): void {
    this.preset.addEventListener("change", () => {
      const chosen = this.known[Number(this.preset.value)];
      if (chosen !== undefined) this.actions.preset(chosen.window);
    });
    for (const field of [this.center, this.width]) {
      field.addEventListener("change", () => {
        const [center, width] = [Number(this.center.value), Number(this.width.value)];
        const good = Number.isFinite(center) && Number.isFinite(width) && width > 0;
        field.toggleAttribute("aria-invalid", !good);
        if (good) this.actions.preset({ center, width });
      });
    }
    this.rate.addEventListener("change", () => this.actions.rate(Number(this.rate.value)));
    for (const select of [this.preset, this.rate]) this.leaveAfterMouse(select, "change");
  }

  update(state: ToolbarState): void {
    this.showMode(state.mode);
    const { invert, cine, compare, link, list } = this.toggles;
    invert.setAttribute("aria-pressed", String(state.invert));
    list.setAttribute("aria-pressed", String(state.listed));
    compare.setAttribute("aria-pressed", String(state.comparing));
    link.setAttribute("aria-pressed", String(state.linked));
    link.disabled = !state.linkable;
    this.more.hidden = !state.comparable;
    this.play.hidden = state.count < 2;
    if (cine.getAttribute("aria-pressed") !== String(state.playing)) {
      cine.setAttribute("aria-pressed", String(state.playing));
      cine.replaceChildren(icon(state.playing ? "pause" : "play"));
    }
    this.rate.value = String(state.rate);
    this.updateWindow(state);
  }

  private updateWindow({ series, own, window }: ToolbarState): void {
    this.grey.hidden = series.color;
    const known = (this.known = presets(series, own));
    if (this.shown !== series) {
      this.shown = series;
      this.preset.replaceChildren(...known.map(({ name }, i) => h("option", { value: i }, i < 9 ? `${i + 1} ${name}` : name)), h("option", { value: "own", hidden: true }, "Own window"));
    }
    const at = known.findIndex((preset) => sameWindow(preset.window, window));
    this.preset.value = at < 0 ? "own" : String(at);
    if (document.activeElement !== this.center) this.center.value = figure(window.center);
    if (document.activeElement !== this.width) this.width.value = figure(window.width);
  }
}
