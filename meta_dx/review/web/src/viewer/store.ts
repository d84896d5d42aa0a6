// Frames in memory: bounded by bytes, the least recently used goes first; what is looked at loads before what may
// be looked at next; what nobody wants any more is cancelled.

export class FrameCache<T extends { bytes: number }> {
  private readonly held = new Map<string, T>();
  private readonly pins = new Map<string, string>();
  private size = 0;

  /** `onEvict` is told every key that leaves. */
  constructor(
    readonly maxBytes: number,
    private readonly onEvict: (key: string) => void = () => undefined,
  ) {}

  get bytes(): number {
    return this.size;
  }

  has(key: string): boolean {
    return this.held.has(key);
  }

  /** The frame, which counts as used now. */
  get(key: string): T | undefined {
    const found = this.held.get(key);
    if (found !== undefined) {
      this.held.delete(key);
      this.held.set(key, found);
    }
    return found;
  }

  put(key: string, frame: T): void {
    this.drop(key);
    this.held.set(key, frame);
    this.size += frame.bytes;
    const pinned = new Set(this.pins.values());
    for (const old of this.held.keys()) {
      if (this.size <= this.maxBytes) break;
      if (old !== key && !pinned.has(old)) {
        this.drop(old);
        this.onEvict(old);
      }
    }
  }

  /** What `owner` shows stays, however old; null releases it. */
  pin(owner: string, key: string | null): void {
    if (key === null) this.pins.delete(owner);
    else this.pins.set(owner, key);
  }

  private drop(key: string): void {
    const found = this.held.get(key);
    if (found === undefined) return;
    this.size -= found.bytes;
    this.held.delete(key);
  }
}

interface Job<T> {
  promise: Promise<T>;
  start: () => void;
  controller: AbortController;
  running: boolean;
  /** Panes that wait for this frame now. */
  waiting: Set<string>;
}

export interface StoreOptions<T> {
  fetch: (key: string, signal: AbortSignal) => Promise<T>;
  maxBytes: number;
  /** Requests at once; `reserve` of them are kept for what is looked at now. */
  concurrency?: number;
  reserve?: number;
}

export class FrameStore<T extends { bytes: number }> {
  readonly cache: FrameCache<T>;
  /** Told every key that leaves the memory. */
  onEvict: (key: string) => void = () => undefined;
  private readonly jobs = new Map<string, Job<T>>();
  private readonly wishes = new Map<string, readonly string[]>();
  /** Wishes that came to nothing: only someone who looks at them asks again. */
  private readonly failed = new Set<string>();
  private readonly concurrency: number;
  private readonly reserve: number;

  constructor(private readonly options: StoreOptions<T>) {
    this.cache = new FrameCache<T>(options.maxBytes, (key) => this.onEvict(key));
    this.concurrency = options.concurrency ?? 5;
    this.reserve = options.reserve ?? 1;
  }

  /**
   * The frame that `owner` looks at now. What the same owner waited for before is given up: its promise rejects
   * with an AbortError, unless the frame is on a list of wishes anyway and is loaded all the same.
   */
  load(owner: string, key: string): Promise<T> {
    const found = this.cache.get(key);
    for (const [other, job] of this.jobs) if (other !== key) job.waiting.delete(owner);
    if (found !== undefined) {
      this.prune();
      return Promise.resolve(found);
    }
    this.failed.delete(key);
    const job = this.jobs.get(key) ?? this.create(key);
    job.waiting.add(owner);
    this.prune();
    this.pump();
    return job.promise;
  }

  /** Replaces what `owner` may look at next, in this order. */
  prefetch(owner: string, keys: readonly string[]): void {
    this.wishes.set(owner, keys);
    this.prune();
    this.pump();
  }

  /** Forgets what `owner` waits and wishes for. */
  release(owner: string): void {
    this.wishes.delete(owner);
    for (const job of this.jobs.values()) job.waiting.delete(owner);
    this.cache.pin(owner, null);
    this.prune();
  }

  private create(key: string): Job<T> {
    const controller = new AbortController();
    let start: () => void = () => undefined;
    const promise = new Promise<T>((resolve, reject) => {
      start = () => {
        this.options.fetch(key, controller.signal).then(resolve, reject);
      };
      controller.signal.addEventListener("abort", () => reject(new DOMException("no longer wanted", "AbortError")));
    });
    const job: Job<T> = { promise, start, controller, running: false, waiting: new Set() };
    this.jobs.set(key, job);
    promise.then(
      (frame) => {
        this.cache.put(key, frame);
        this.finish(key, job);
      },
      () => {
        if (!controller.signal.aborted) this.failed.add(key);
        this.finish(key, job);
      },
    );
    return job;
  }

  private finish(key: string, job: Job<T>): void {
    if (this.jobs.get(key) === job) this.jobs.delete(key);
    this.pump();
  }

  private prune(): void {
    const wished = new Set([...this.wishes.values()].flat());
    for (const [key, job] of this.jobs) {
      if (job.waiting.size === 0 && !wished.has(key)) {
        this.jobs.delete(key);
        job.controller.abort();
      }
    }
  }

  private pump(): void {
    let running = 0;
    for (const job of this.jobs.values()) if (job.running) running += 1;
    for (const job of this.jobs.values()) {
      if (running >= this.concurrency) return;
      if (!job.running && job.waiting.size > 0) {
        job.running = true;
        running += 1;
        job.start();
      }
    }
    for (const key of this.inTurn()) {
      if (running >= this.concurrency - this.reserve) return;
      if (this.cache.has(key) || this.failed.has(key) || this.jobs.get(key)?.running === true) continue;
      const job = this.jobs.get(key) ?? this.create(key);
      job.running = true;
      running += 1;
      job.start();
    }
  }

  /** First wishes of all owners, then second wishes, ... */
  private *inTurn(): Generator<string> {
    const lists = [...this.wishes.values()];
    const longest = Math.max(0, ...lists.map((keys) => keys.length));
    for (let i = 0; i < longest; i++) {
      for (const keys of lists) if (i < keys.length) yield keys[i] as string;
    }
  }
}

/**
 * Which slices to fetch around slice `index` of `count`, nearest first, twice as far ahead as behind.
 *
 * `direction` is +1 or -1: the way the reader last moved. At most `limit` slices, so that prefetching never
 * throws out what it has just fetched.
 */
export function prefetchOrder(index: number, count: number, direction: 1 | -1, limit: number): number[] {
  const order: number[] = [];
  let ahead = 1;
  let behind = 1;
  while (order.length < limit && (ahead < count || behind < count)) {
    for (const step of [ahead++, ahead++]) {
      const slice = index + direction * step;
      if (slice >= 0 && slice < count) order.push(slice);
    }
    const slice = index - direction * behind++;
    if (slice >= 0 && slice < count) order.push(slice);
  }
  return order.slice(0, Math.max(0, limit));
}
