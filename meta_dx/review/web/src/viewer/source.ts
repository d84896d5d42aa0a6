// Where pictures come from: the description of a case and its frames. Knows nothing of Cornerstone, so that a page can
// ask for both while the large script is still on its way.

import { ask, SignedOutError } from "../app/ask";
import { type Frame, parseFrame } from "./frame";
import { type Length, parseLengths } from "./lengths";
import { FrameStore } from "./store";
import { parseStudies, type Series, type Study } from "./study";

/** Bytes of frames held in memory: a CT of 1,000 slices at 512². */
export const CACHE_BYTES = 512 * 1024 * 1024;

/** An answer of the server that is no frame. */
export class FrameError extends Error {
  constructor(
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

async function fetched(url: string, accept: string, signal?: AbortSignal): Promise<Response> {
  let answer: Response;
  try {
    answer = await ask(url, { headers: { Accept: accept }, signal: signal ?? null });
  } catch (error) {
    if (signal?.aborted === true) throw error;
    if (error instanceof SignedOutError) throw new FrameError(401, error.message);
    throw new FrameError(0, "the server cannot be reached");
  }
  if (!answer.ok) throw new FrameError(answer.status, `the server answered ${answer.status}`);
  return answer;
}

export const store = new FrameStore<Frame>({
  fetch: async (url, signal) => {
    const answer = await fetched(url, "application/octet-stream", signal);
    return parseFrame(answer.headers, await answer.arrayBuffer());
  },
  maxBytes: CACHE_BYTES,
});

export async function fetchStudies(url: string): Promise<Study[]> {
  return parseStudies(await (await fetched(url, "application/json")).json());
}

/** The reader's own lengths on a case. */
export async function fetchLengths(url: string): Promise<Length[]> {
  return parseLengths(await (await fetched(url, "application/json")).json());
}

/** The slice that a series opens at. */
export function firstSlice(series: Series): number {
  return Math.floor((series.frames.length - 1) / 2);
}

/** Asks for a case's description and, as soon as it is there, for the first picture that will be shown. */
export function headStart(url: string): Promise<Study[]> {
  const studies = fetchStudies(url);
  void studies.then(
    (found) => {
      const series = found.flatMap((study) => study.series)[0];
      const frame = series?.frames[firstSlice(series)];
      // A failure shows when the viewer asks again.
      if (frame !== undefined) store.prefetch("head start", [frame.url]);
    },
    () => undefined,
  );
  return studies;
}
