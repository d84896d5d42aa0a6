import { describe, expect, it } from "vitest";
import { FrameCache, FrameStore, prefetchOrder } from "../src/viewer/store";

const frame = (bytes: number): { bytes: number } => ({ bytes });

describe("the cache of frames", () => {
  it("throws out what was used longest ago, and never holds more than its bytes", () => {
    const gone: string[] = [];
    const cache = new FrameCache(100, (key) => gone.push(key));
    cache.put("a", frame(40));
    cache.put("b", frame(40));
    cache.get("a");
    cache.put("c", frame(40));
    expect(gone).toEqual(["b"]);
    expect(cache.bytes).toBe(80);
    expect([cache.has("a"), cache.has("b"), cache.has("c")]).toEqual([true, false, true]);
  });

  it("keeps what is on the screen, however old", () => {
    const cache = new FrameCache(100);
    cache.put("shown", frame(60));
    cache.pin("pane", "shown");
    cache.put("b", frame(30));
    cache.put("c", frame(30));
    expect([cache.has("shown"), cache.has("b"), cache.has("c")]).toEqual([true, false, true]);
    cache.pin("pane", null);
    cache.put("d", frame(60));
    expect(cache.has("shown")).toBe(false);
  });

  it("counts a frame that comes twice once, and takes one that is larger than all of it", () => {
    const cache = new FrameCache(100);
    cache.put("a", frame(40));
    cache.put("a", frame(50));
    expect(cache.bytes).toBe(50);
    cache.put("huge", frame(500));
    expect([cache.has("a"), cache.has("huge")]).toEqual([false, true]);
  });
});

/** A server whose answers come when the test says so. */
function server(): {
  asked: string[];
  aborted: string[];
  answer: (key: string) => Promise<void>;
  refuse: (key: string) => Promise<void>;
  fetch: (key: string, signal: AbortSignal) => Promise<{ bytes: number }>;
} {
  const open = new Map<string, { resolve: (value: { bytes: number }) => void; reject: (error: Error) => void }>();
  const asked: string[] = [];
  const aborted: string[] = [];
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 10; i++) await Promise.resolve();
  };
  return {
    asked,
    aborted,
    answer: (key) => (open.get(key)?.resolve(frame(1)), settle()),
    refuse: (key) => (open.get(key)?.reject(new Error("no")), settle()),
    fetch: (key, signal) => {
      asked.push(key);
      signal.addEventListener("abort", () => aborted.push(key));
      return new Promise((resolve, reject) => open.set(key, { resolve, reject }));
    },
  };
}

describe("loading frames", () => {
  it("asks once for a frame that two want, and not at all for one it has", async () => {
    const { asked, answer, fetch } = server();
    const store = new FrameStore({ fetch, maxBytes: 100 });
    const both = [store.load("a", "x"), store.load("b", "x")];
    await answer("x");
    expect((await both[0]) === (await both[1])).toBe(true);
    await store.load("a", "x");
    expect(asked).toEqual(["x"]);
  });

  it("keeps a request free for what is looked at now", () => {
    const { asked, fetch } = server();
    const store = new FrameStore({ fetch, maxBytes: 100, concurrency: 3, reserve: 1 });
    store.prefetch("a", ["1", "2", "3", "4"]);
    expect(asked).toEqual(["1", "2"]);
    void store.load("a", "9").catch(() => undefined);
    expect(asked).toEqual(["1", "2", "9"]);
  });

  it("gives up what the reader has scrolled past, unless it is wished for anyway", async () => {
    const { asked, aborted, fetch } = server();
    const store = new FrameStore({ fetch, maxBytes: 100 });
    const past = store.load("a", "1");
    void store.load("a", "2").catch(() => undefined);
    await expect(past).rejects.toMatchObject({ name: "AbortError" });
    expect(aborted).toEqual(["1"]);
    store.prefetch("a", ["2"]);
    void store.load("a", "3").catch(() => undefined);
    expect(aborted).toEqual(["1"]);
    expect(asked).toEqual(["1", "2", "3"]);
  });

  it("cancels wishes that are no longer wished, and goes on with the new ones", () => {
    const { asked, aborted, fetch } = server();
    const store = new FrameStore({ fetch, maxBytes: 100, concurrency: 2, reserve: 0 });
    store.prefetch("a", ["1", "2", "3"]);
    store.prefetch("a", ["2", "7"]);
    expect(aborted).toEqual(["1"]);
    expect(asked).toEqual(["1", "2", "7"]);
  });

  it("serves the wishes of two viewports in turn", () => {
    const { asked, fetch } = server();
    const store = new FrameStore({ fetch, maxBytes: 100, concurrency: 1, reserve: 0 });
    store.prefetch("a", ["a1"]);
    store.prefetch("b", ["b1", "b2"]);
    expect(asked).toEqual(["a1"]);
  });

  it("asks again for a frame that failed only when somebody looks at it", async () => {
    const { asked, refuse, fetch } = server();
    const store = new FrameStore({ fetch, maxBytes: 100 });
    store.prefetch("a", ["1"]);
    await refuse("1");
    store.prefetch("a", ["1"]);
    expect(asked).toEqual(["1"]);
    const looked = store.load("a", "1");
    await refuse("1");
    await expect(looked).rejects.toThrow("no");
    expect(asked).toEqual(["1", "1"]);
  });

  it("forgets everything of a viewport that closes", () => {
    const { aborted, fetch } = server();
    const store = new FrameStore({ fetch, maxBytes: 100 });
    void store.load("a", "1").catch(() => undefined);
    store.prefetch("a", ["2"]);
    store.release("a");
    expect(aborted.sort()).toEqual(["1", "2"]);
  });

  it("tells what leaves the memory", async () => {
    const { answer, fetch } = server();
    const store = new FrameStore({ fetch, maxBytes: 1 });
    const gone: string[] = [];
    store.onEvict = (key) => gone.push(key);
    void store.load("a", "1");
    await answer("1");
    void store.load("a", "2");
    await answer("2");
    expect(gone).toEqual(["1"]);
  });
});

describe("what is fetched ahead", () => {
  it("is near first, twice as far in the direction of travel", () => {
    expect(prefetchOrder(10, 100, 1, 6)).toEqual([11, 12, 9, 13, 14, 8]);
    expect(prefetchOrder(10, 100, -1, 3)).toEqual([9, 8, 11]);
  });

  it("covers the whole stack once where it may, and never the slice itself", () => {
    for (const index of [0, 3, 9]) {
      const order = prefetchOrder(index, 10, 1, 99);
      expect([...order].sort((a, b) => a - b)).toEqual([...Array(10).keys()].filter((i) => i !== index));
    }
    expect(prefetchOrder(0, 1, 1, 9)).toEqual([]);
    expect(prefetchOrder(5, 10, 1, 0)).toEqual([]);
  });
});
