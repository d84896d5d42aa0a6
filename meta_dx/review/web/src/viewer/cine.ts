// Plays a stack: one slice after the other, at a rate that is kept only as far as the frames arrive.

import type { Pane } from "./pane";

export const RATES = [2, 5, 8, 12, 18, 25] as const;

/** The slice after `index`, from the start again after the last one. */
export function nextSlice(index: number, count: number): number {
  return count < 1 ? 0 : (index + 1) % count;
}

export class Cine {
  rate = 8;
  private timer: number | null = null;

  constructor(
    private readonly pane: () => Pane,
    private readonly changed: () => void,
  ) {}

  get playing(): boolean {
    return this.timer !== null;
  }

  toggle(): void {
    if (this.playing) this.stop();
    else this.start();
  }

  start(): void {
    if (this.playing || this.pane().count < 2) return;
    this.timer = window.setInterval(() => this.tick(), 1000 / this.rate);
    this.changed();
  }

  stop(): void {
    if (this.timer === null) return;
    window.clearInterval(this.timer);
    this.timer = null;
    this.changed();
  }

  /** Slices a second. */
  setRate(rate: number): void {
    this.rate = rate;
    if (this.playing) {
      this.stop();
      this.start();
    }
    this.changed();
  }

  /** The next faster (+1) or slower (-1) rate. */
  shift(by: 1 | -1): void {
    const at = RATES.findIndex((rate) => rate >= this.rate);
    this.setRate(RATES[Math.min(RATES.length - 1, Math.max(0, at + by))] ?? this.rate);
  }

  private tick(): void {
    const pane = this.pane();
    if (pane.root.dataset.state === "error") return this.stop();
    // A slice that has not arrived yet is waited for: cine never skips one.
    if (pane.shown === pane.index) pane.go(nextSlice(pane.index, pane.count));
  }
}
