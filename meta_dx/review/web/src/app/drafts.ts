// Drafts: a form with data-autosave posts its fields a moment after the last change and says whether they are kept;
// leaving a page with what is not kept asks first.

import { csrfToken } from "./htmx";

const DELAY_MS = 800;
const RETRY_MS = 5000;

type State = "clean" | "dirty" | "saving" | "saved" | "failed" | "refused";

const WORDS: Record<State, string> = {
  clean: "",
  dirty: "Not saved yet",
  saving: "Saving …",
  saved: "Draft saved",
  failed: "Not saved: trying again",
  refused: "Not saved: the server refuses it",
};

class Draft {
  private state: State = "clean";
  private timer = 0;
  private changes = 0;
  private readonly sign: HTMLElement | null;

  constructor(private readonly form: HTMLFormElement) {
    this.sign = form.querySelector<HTMLElement>("[data-autosave-state]");
    const changed = (): void => {
      this.changes += 1;
      this.say("dirty");
      this.later(DELAY_MS);
    };
    form.addEventListener("input", changed);
    form.addEventListener("change", changed);
    const sent = (): void => {
      window.clearTimeout(this.timer);
      this.say("clean");
    };
    form.addEventListener("submit", sent);
    form.addEventListener("htmx:beforeRequest", (event) => event.target === form && sent());
    form.addEventListener("htmx:responseError", (event) => event.target === form && this.say("dirty"));
  }

  /** Whether leaving the page would lose something. */
  get unsaved(): boolean {
    return this.form.isConnected && this.state !== "clean" && this.state !== "saved";
  }

  private say(state: State): void {
    this.state = state;
    this.form.dataset.draft = state;
    if (this.sign === null) return;
    this.sign.textContent = WORDS[state];
    this.sign.dataset.state = state;
  }

  private later(delay: number): void {
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => void this.save(), delay);
  }

  private async save(): Promise<void> {
    if (!this.form.isConnected || this.state === "clean") return;
    const at = this.changes;
    this.say("saving");
    let outcome: State = "failed";
    try {
      const answer = await fetch(this.form.dataset.autosave ?? "", {
        method: "POST",
        body: new URLSearchParams([...new FormData(this.form)].map(([name, value]) => [name, String(value)])),
        headers: { "X-CSRF-Token": csrfToken(), Accept: "application/json" },
        credentials: "same-origin",
      });
      if (answer.status === 401 || answer.redirected) document.dispatchEvent(new CustomEvent("session:lost"));
      if (answer.ok && !answer.redirected) outcome = "saved";
      // What the server refuses once it refuses again: only a change is worth another try.
      else if (answer.status >= 400 && answer.status < 500 && answer.status !== 401) outcome = "refused";
    } catch {
      outcome = "failed";
    }
    if (this.form.dataset.draft !== "saving") return; // sent or changed meanwhile
    this.say(outcome === "saved" && this.changes !== at ? "dirty" : outcome);
    if (outcome === "failed") this.later(RETRY_MS);
  }
}

/** A form with data-guard (and no drafts): asks before its changes are lost. */
class Guarded {
  private dirty = false;

  constructor(private readonly form: HTMLFormElement) {
    form.addEventListener("input", () => (this.dirty = true));
    form.addEventListener("submit", () => (this.dirty = false));
  }

  get unsaved(): boolean {
    return this.form.isConnected && this.dirty;
  }
}

const watched = new Map<HTMLFormElement, Draft | Guarded>();

export function prepareDrafts(root: ParentNode): void {
  for (const form of root.querySelectorAll<HTMLFormElement>("form[data-autosave], form[data-guard]")) {
    if (!watched.has(form)) watched.set(form, form.dataset.autosave !== undefined ? new Draft(form) : new Guarded(form));
  }
  for (const form of watched.keys()) if (!form.isConnected) watched.delete(form);
}

export function setUpGuard(): void {
  window.addEventListener("beforeunload", (event) => {
    if ([...watched.values()].some((form) => form.unsaved)) event.preventDefault();
  });
}
