// Sends something a moment after its last change, one request at a time, and again until the server has it.

import { ask } from "./ask";

const RETRY_MS = 5000;
const MOST_OUTLIVING = 60_000; // bytes; browsers allow 64 KiB

export type SaveState = "clean" | "dirty" | "saving" | "saved" | "failed" | "refused";

export interface Parcel {
  fields: URLSearchParams;
  /** Called when the server has it, also when something has changed since. */
  kept?: () => void;
}

export interface Saving {
  url: string;
  /** How long to wait after the last change. */
  delay: number;
  /** What is to be sent now; null when there is nothing. */
  pack: () => Parcel | null;
  /** Hears of every state; with "refused" come the server's words. */
  told: (state: SaveState, words: string) => void;
  /** Whether requests go on when the page is left. */
  outlives: boolean;
}

export class Autosave {
  state: SaveState = "clean";
  private timer: ReturnType<typeof setTimeout> | undefined;
  private changes = 0;
  private sending = false;

  constructor(private readonly saving: Saving) {}

  changed(): void {
    this.changes += 1;
    this.say("dirty");
    this.later(this.saving.delay);
  }

  /** What there was to be kept was sent in another way. */
  settled(): void {
    clearTimeout(this.timer);
    this.say("clean");
  }

  /** The page is being left: sends what is not kept at once, also beside a request that is on its way. */
  leave(): void {
    if (this.state === "dirty" || this.state === "failed") void this.save();
  }

  private say(state: SaveState, words = ""): void {
    this.state = state;
    this.saving.told(state, words);
  }

  private later(delay: number): void {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      // A request that is on its way goes first: two could overtake each other.
      if (!this.sending) void this.save();
    }, delay);
  }

  private async save(): Promise<void> {
    clearTimeout(this.timer);
    const parcel = this.saving.pack();
    if (parcel === null) return this.say("saved");
    const at = this.changes;
    this.say("saving");
    this.sending = true;
    const [outcome, words] = await this.send(parcel.fields);
    this.sending = false;
    if (outcome === "saved") parcel.kept?.();
    if (this.changes !== at) {
      // What has changed since is not in this answer; settled() has stopped the clock for good.
      if (!this.isSettled()) this.later(this.saving.delay);
    } else if (!this.isSettled()) {
      this.say(outcome, words);
      if (outcome === "failed") this.later(RETRY_MS);
    }
  }

  private isSettled(): boolean {
    return this.state === "clean";
  }

  private async send(fields: URLSearchParams): Promise<["saved" | "failed" | "refused", string]> {
    try {
      const answer = await ask(this.saving.url, {
        method: "POST",
        body: fields,
        headers: { Accept: "application/json" },
        keepalive: this.saving.outlives && fields.toString().length < MOST_OUTLIVING,
      });
      if (answer.ok) return ["saved", ""];
      // What the server refuses once it refuses again: only a change is worth another try.
      if (answer.status >= 400 && answer.status < 500) return ["refused", await answer.text()];
    } catch {
      // No answer, or nobody is signed in: it is sent again.
    }
    return ["failed", ""];
  }
}
