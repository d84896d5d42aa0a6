// Drafts: a form with data-autosave posts its fields a moment after the last change and says whether they are kept;
// leaving a page with what is not kept asks first.

import { Autosave, type Parcel, type SaveState } from "./autosave";

const DELAY_MS = 800;

const WORDS: Record<SaveState, string> = {
  clean: "",
  dirty: "Not saved yet",
  saving: "Saving …",
  saved: "Draft saved",
  failed: "Not saved: trying again",
  refused: "Not saved: the server refuses it",
};

/** Something that leaving the page may lose. */
export interface Unsaved {
  readonly unsaved: boolean;
}

class Draft implements Unsaved {
  private readonly saver: Autosave;

  constructor(private readonly form: HTMLFormElement) {
    const sign = form.querySelector<HTMLElement>("[data-autosave-state]");
    const told = (state: SaveState): void => {
      form.dataset.draft = state;
      if (sign === null) return;
      sign.textContent = WORDS[state];
      sign.dataset.state = state;
    };
    const pack = (): Parcel | null => {
      if (!form.isConnected) return null;
      return { fields: new URLSearchParams([...new FormData(form)].map(([name, value]) => [name, String(value)])) };
    };
    this.saver = new Autosave({ url: form.dataset.autosave ?? "", delay: DELAY_MS, pack, told, outlives: false });
    const changed = (): void => this.saver.changed();
    const sent = (): void => this.saver.settled();
    form.addEventListener("input", changed);
    form.addEventListener("change", changed);
    form.addEventListener("submit", sent);
    form.addEventListener("htmx:beforeRequest", (event) => event.target === form && sent());
    form.addEventListener("htmx:responseError", (event) => event.target === form && changed());
  }

  /** Whether leaving the page would lose something. */
  get unsaved(): boolean {
    return this.form.isConnected && this.saver.state !== "clean" && this.saver.state !== "saved";
  }
}

/** A form with data-guard (and no drafts): asks before its changes are lost. */
class Guarded implements Unsaved {
  private dirty = false;

  constructor(private readonly form: HTMLFormElement) {
    form.addEventListener("input", () => (this.dirty = true));
    form.addEventListener("submit", () => (this.dirty = false));
  }

  get unsaved(): boolean {
    return this.form.isConnected && this.dirty;
  }
}

const watched = new Map<Element, Unsaved>();

/** Lets leaving the page ask while something in an element of it is not kept. */
export function guard(element: Element, what: Unsaved): void {
  watched.set(element, what);
}

export function prepareDrafts(root: ParentNode): void {
  for (const form of root.querySelectorAll<HTMLFormElement>("form[data-autosave], form[data-guard]")) {
    if (!watched.has(form)) guard(form, form.dataset.autosave !== undefined ? new Draft(form) : new Guarded(form));
  }
  for (const element of watched.keys()) if (!element.isConnected) watched.delete(element);
}

export function setUpGuard(): void {
  window.addEventListener("beforeunload", (event) => {
    if ([...watched.values()].some((one) => one.unsaved)) event.preventDefault();
  });
}
