// Requests of scripts go through here: every answer says whether the session is open, and for how long.

/** Seconds until the session ends if nobody uses it; on every answer to somebody who is signed in. */
export const LEFT = "X-Session-Expires-In";

export function csrfToken(): string {
  return document.querySelector<HTMLMetaElement>('meta[name="csrf-token"]')?.content ?? "";
}

export class SignedOutError extends Error {}

/** Lets the page hear what an answer says about the session: `session:open` with the seconds left, or `session:lost`. */
export function hear(status: number, seconds: string | null): void {
  if (status === 401) document.dispatchEvent(new CustomEvent("session:lost"));
  else if (seconds !== null) document.dispatchEvent(new CustomEvent("session:open", { detail: Number(seconds) }));
}

/** Asks the server as `fetch` does; throws a SignedOutError where it answers to nobody any more. */
export async function ask(url: string, init: RequestInit & { headers?: Record<string, string> } = {}): Promise<Response> {
  const token: Record<string, string> = init.method === "POST" ? { "X-CSRF-Token": csrfToken() } : {};
  const answer = await fetch(url, { ...init, headers: { ...token, ...init.headers }, credentials: "same-origin" });
  const status = answer.redirected ? 401 : answer.status;
  hear(status, answer.headers.get(LEFT));
  if (status === 401) throw new SignedOutError("you are signed out");
  return answer;
}
