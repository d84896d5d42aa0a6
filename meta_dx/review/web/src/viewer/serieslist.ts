// The list of studies and series, without thumbnails: labels say more, and load nothing.

import { h } from "./dom";
import type { Series, Study } from "./study";

export type Choice = { study: Study; series: Series };

export class SeriesList {
  readonly root = h("nav", { class: "serieslist", "aria-label": "Studies and series" });
  private readonly entries = new Map<HTMLButtonElement, Choice>();

  constructor(studies: readonly Study[], choose: (choice: Choice) => void) {
    for (const study of studies) {
      const list = h("ul", {});
      for (const series of study.series) {
        const button = h("button", { type: "button", class: "serieslist__entry", title: series.label }, ...this.parts(series.label));
        button.addEventListener("click", () => choose({ study, series }));
        this.entries.set(button, { study, series });
        list.append(h("li", {}, button));
      }
      this.root.append(h("section", {}, h("h3", { class: "serieslist__study" }, study.label), list));
    }
  }

  /** "CT · axial · 5.0 mm · 28 images" on two lines: what it is, then how much. */
  private parts(label: string): HTMLElement[] {
    const parts = label.split(" · ");
    const first = parts.slice(0, Math.max(1, parts.length - 2)).join(" · ");
    const rest = parts.slice(Math.max(1, parts.length - 2)).join(" · ");
    return [h("strong", {}, first), h("small", {}, rest)];
  }

  /** Marks what is shown: in the active viewport, and in the other one. */
  mark(active: Choice, others: readonly Choice[]): void {
    for (const [button, { study, series }] of this.entries) {
      const here = study === active.study && series === active.series;
      const there = others.some((other) => other.study === study && other.series === series);
      button.setAttribute("aria-current", here ? "true" : "false");
      button.classList.toggle("serieslist__entry--other", there && !here);
    }
  }
}
