import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Autosave, type SaveState } from "../src/app/autosave";

interface Asked {
  init: RequestInit & { headers: Record<string, string> };
  answer: (status: number, body?: string) => Promise<void>;
  fail: () => Promise<void>;
}

const asked: Asked[] = [];
let heard: [SaveState, string][] = [];
let kept: string[] = [];
let typed: string | null = "";
let saver: Autosave;

const settle = async (): Promise<void> => {
  for (let i = 0; i < 10; i++) await Promise.resolve();
};
const sent = (): string[] => asked.map(({ init }) => (init.body as URLSearchParams).get("text") ?? "");
const states = (): SaveState[] => heard.map(([state]) => state);
const type = (text: string): void => {
  typed = text;
  saver.changed();
};
const last = (): Asked => asked.at(-1) as Asked;

beforeEach(() => {
  vi.useFakeTimers();
  asked.length = 0;
  [heard, kept, typed] = [[], [], ""];
  vi.stubGlobal("document", {
    querySelector: () => ({ content: "number" }),
    dispatchEvent: (event: CustomEvent<number>) => heard.push([event.type as SaveState, String(event.detail ?? "")]),
  });
  vi.stubGlobal("fetch", (_url: string, init: Asked["init"]) => {
    return new Promise<Response>((resolve, reject) => {
      const answer = (status: number, body = ""): Promise<void> => {
        resolve(new Response(status === 204 ? null : body, { status }));
        return settle();
      };
      const fail = (): Promise<void> => {
        reject(new TypeError("unreachable"));
        return settle();
      };
      asked.push({ init, answer, fail });
    });
  });
  const pack = () => (typed === null ? null : { fields: new URLSearchParams({ text: typed }), kept: ((text) => () => kept.push(text))(typed) });
  const told = (state: SaveState, words: string): void => void heard.push([state, words]);
  saver = new Autosave({ url: "/draft", delay: 800, outlives: true, pack, told });
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

describe("saving by itself", () => {
  it("sends what is there a moment after the last change, with the number of the session", async () => {
    type("a");
    vi.advanceTimersByTime(700);
    type("ab");
    vi.advanceTimersByTime(799);
    expect(asked).toEqual([]);
    vi.advanceTimersByTime(1);
    expect(sent()).toEqual(["ab"]);
    expect(last().init.headers["X-CSRF-Token"]).toBe("number");
    await last().answer(204);
    expect(states()).toEqual(["dirty", "dirty", "saving", "saved"]);
    expect(kept).toEqual(["ab"]);
    vi.advanceTimersByTime(60_000);
    expect(asked.length).toBe(1);
  });

  it("has one request on its way, and sends what changed meanwhile after it", async () => {
    type("a");
    vi.advanceTimersByTime(800);
    type("ab");
    vi.advanceTimersByTime(5000);
    expect(sent()).toEqual(["a"]);
    await last().answer(204);
    expect(saver.state).toBe("dirty");
    expect(kept).toEqual(["a"]);
    vi.advanceTimersByTime(800);
    expect(sent()).toEqual(["a", "ab"]);
    await last().answer(204);
    expect(saver.state).toBe("saved");
  });

  it("tries again when no answer came or the server failed, until it has it", async () => {
    type("a");
    vi.advanceTimersByTime(800);
    await last().fail();
    vi.advanceTimersByTime(5000);
    await last().answer(500);
    expect(saver.state).toBe("failed");
    vi.advanceTimersByTime(5000);
    await last().answer(204);
    expect(sent()).toEqual(["a", "a", "a"]);
    expect(saver.state).toBe("saved");
  });

  it("tells what the server refuses, and sends it again only when it has changed", async () => {
    type("a");
    vi.advanceTimersByTime(800);
    await last().answer(400, "Too many.");
    expect(heard.at(-1)).toEqual(["refused", "Too many."]);
    vi.advanceTimersByTime(60_000);
    expect(asked.length).toBe(1);
    type("b");
    vi.advanceTimersByTime(800);
    expect(sent()).toEqual(["a", "b"]);
  });

  it("says that the session has ended, and goes on trying", async () => {
    type("a");
    vi.advanceTimersByTime(800);
    await last().answer(401);
    expect(states()).toContain("session:lost");
    vi.advanceTimersByTime(5000);
    expect(asked.length).toBe(2);
  });

  it("sends nothing of what was sent in another way", async () => {
    type("a");
    saver.settled();
    vi.advanceTimersByTime(60_000);
    expect(asked).toEqual([]);
    type("b");
    vi.advanceTimersByTime(800);
    saver.settled();
    await last().fail();
    vi.advanceTimersByTime(60_000);
    expect([asked.length, saver.state]).toEqual([1, "clean"]);
  });

  it("sends at once what is not kept when the page is left, by a request that outlives it", () => {
    saver.leave();
    expect(asked).toEqual([]);
    type("a");
    saver.leave();
    expect(sent()).toEqual(["a"]);
    expect(last().init.keepalive).toBe(true);
    type("ab");
    saver.leave();
    expect(sent()).toEqual(["a", "ab"]);
  });

  it("asks no browser to keep a request alive that is too large for it", () => {
    type("x".repeat(70_000));
    saver.leave();
    expect(last().init.keepalive).toBe(false);
  });

  it("needs no request where nothing differs", () => {
    type("a");
    typed = null;
    vi.advanceTimersByTime(800);
    expect(asked).toEqual([]);
    expect(saver.state).toBe("saved");
  });
});
