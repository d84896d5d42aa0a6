// Keeps the reader's lengths on the server, and puts back those of an earlier visit.

import { Autosave, type Parcel, type SaveState } from "../app/autosave";
import { guard } from "../app/drafts";
import { toast } from "../app/toast";
import { Ledger } from "./lengths";
import { lengths, onLengths, putBack } from "./measurements";
import { fetchLengths, FrameError } from "./source";

const DELAY_MS = 300;
const RETRY_MS = 5000;

/** The lengths of one case; `data-lengths-state` of the viewer says how far they are kept. */
export class LengthKeeper {
  private readonly ledger = new Ledger();
  private readonly saver: Autosave;
  /** What the server holds is not known before it was loaded: until then nothing is sent. */
  private loaded = false;
  private trouble = "";

  constructor(
    private readonly root: HTMLElement,
    private readonly url: string,
  ) {
    const told = (state: SaveState, words: string): void => this.say(state, words);
    this.saver = new Autosave({ url, delay: DELAY_MS, pack: () => this.pack(), told, outlives: true });
    onLengths(() => this.loaded && this.saver.changed());
    guard(root, this);
    for (const leaving of ["beforeunload", "pagehide"]) window.addEventListener(leaving, () => this.saver.leave());
  }

  /** Whether leaving the page loses lengths; what is only not sent yet goes out while it is left. */
  get unsaved(): boolean {
    if (!this.loaded) return lengths().length > 0;
    return this.saver.state === "failed" || this.saver.state === "refused";
  }

  /** Puts back what the server holds; tries again until it answers. To be called with all series registered. */
  async load(): Promise<void> {
    try {
      const drawn = new Set(lengths().map(({ id }) => id));
      putBack(await fetchLengths(this.url));
      // As they are read out again: a last digit may differ from what was sent.
      this.ledger.holds(lengths().filter(({ id }) => !drawn.has(id)));
    } catch (error) {
      const refused = error instanceof FrameError && error.status >= 400 && error.status < 500 && error.status !== 401;
      const then = refused ? "New ones are not kept." : "Trying again.";
      this.tell(`Your lengths cannot be loaded: ${error instanceof Error ? error.message : "an unknown fault"}. ${then}`);
      if (!refused) window.setTimeout(() => void this.load(), RETRY_MS);
      return;
    }
    this.loaded = true;
    this.saver.changed();
  }

  private pack(): Parcel | null {
    const changes = this.ledger.changes(lengths());
    if (changes === null) return null;
    this.ledger.sent(changes);
    return { fields: new URLSearchParams({ changes: JSON.stringify(changes) }), kept: () => this.ledger.kept(changes) };
  }

  private say(state: SaveState, words: string): void {
    this.root.dataset.lengthsState = state;
    if (state === "failed") this.tell("Your lengths are not saved. Trying again.");
    if (state === "refused") this.tell(`Your lengths are not saved. ${words}`);
    if (state === "saved") this.tell("");
  }

  /** Says once what is wrong, and once that it no longer is. */
  private tell(trouble: string): void {
    if (trouble === this.trouble) return;
    toast(trouble === "" ? "Your lengths are saved." : trouble, trouble === "" ? "ok" : "danger", "lengths");
    this.trouble = trouble;
  }
}
