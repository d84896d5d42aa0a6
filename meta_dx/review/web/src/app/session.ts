// A session ends: said some minutes before, and plainly when it has happened. How long it stays open every answer to a
// script says (ask.ts); what other windows have asked for only the server knows, so it is asked before anything is said.

import { ask, hear, LEFT } from "./ask";

const WARN_MS = 3 * 60 * 1000;
const RETRY_MS = 10_000;
const WARNED_MS = 30_000; // how soon a warning goes away when another window has kept the session open
const LATE_MS = 1000; // a session of which the server has told whole seconds has ended by then

let timer = 0;
/** The end that was warned of: nobody is told of it twice. */
let warned = 0;

function dialog(): HTMLDialogElement {
  const found = document.querySelector<HTMLDialogElement>("dialog[data-session]");
  if (found !== null) return found;
  const made = document.createElement("dialog");
  made.className = "dialog dialog--small";
  made.dataset.session = "";
  made.setAttribute("aria-labelledby", "session-title");
  document.body.append(made);
  return made;
}

function fill(kind: "warning" | "lost", title: string, text: string, ...buttons: HTMLElement[]): void {
  const box = dialog();
  box.dataset.session = kind;
  const heading = document.createElement("h2");
  heading.id = "session-title";
  heading.textContent = title;
  const words = document.createElement("p");
  words.textContent = text;
  const foot = document.createElement("footer");
  foot.className = "dialog__foot";
  foot.append(...buttons);
  box.replaceChildren(heading, words, foot);
  if (!box.open) box.showModal();
}

function button(text: string, primary: boolean, run: () => void): HTMLButtonElement {
  const made = document.createElement("button");
  made.type = "button";
  made.className = primary ? "button button--primary" : "button";
  made.textContent = text;
  made.addEventListener("click", run);
  return made;
}

/** Where to sign in again; the page that is open comes back afterwards. */
export function loginAddress(login: string, here: Location): string {
  return `${login}?next=${encodeURIComponent(here.pathname + here.search)}`;
}

function meta(name: string): string | null {
  return document.querySelector<HTMLMetaElement>(`meta[name="${name}"]`)?.content ?? null;
}

function lost(): void {
  const login = meta("login-url") ?? "/sign-in";
  window.clearTimeout(timer);
  fill(
    "lost",
    "You are signed out",
    "Your session has ended. Sign in again to go on; a draft that was saved is kept.",
    button("Sign in", true, () => window.location.assign(loginAddress(login, window.location))),
  );
}

function address(): string {
  return meta("session-renew-url") ?? "/session";
}

async function renew(): Promise<void> {
  try {
    const answer = await ask(address(), { method: "POST" });
    if (answer.ok) dialog().close();
    else if (answer.status < 500) lost(); // the session that is open began after this page: in another window
  } catch {
    // Without the server nothing can be renewed; the dialog stays, or says by now that there is nothing to renew.
  }
}

function wait(delay: number): void {
  window.clearTimeout(timer);
  timer = window.setTimeout(() => void look(), delay);
}

/** Asks the server how long the session stays open, which does not keep it open; the answer is heard like any other. */
async function look(): Promise<void> {
  wait(RETRY_MS); // where no answer comes, or none that tells
  await ask(address()).catch(() => undefined);
}

/** Milliseconds until the warning, from the seconds that are left. */
export function warnAfter(seconds: number): number {
  return Math.max(0, seconds * 1000 - WARN_MS);
}

/** Takes the seconds that a session has left. */
function open(seconds: number): void {
  if (!Number.isFinite(seconds) || seconds <= 0) return;
  const delay = warnAfter(seconds);
  if (delay > 0) {
    document.querySelector<HTMLDialogElement>("dialog[data-session=warning]")?.close();
    return wait(delay);
  }
  wait(Math.min(seconds * 1000 + LATE_MS, WARNED_MS));
  const end = Date.now() + seconds * 1000;
  if (end < warned + RETRY_MS || document.querySelector("dialog[data-session=lost][open]") !== null) return;
  warned = end;
  fill(
    "warning",
    "Your session ends soon",
    `You will be signed out in about ${Math.max(1, Math.round(seconds / 60))} min.`,
    button("Stay signed in", true, () => void renew()),
  );
}

export function setUpSession(): void {
  document.addEventListener("session:lost", lost);
  document.addEventListener("session:open", (event) => open((event as CustomEvent<number>).detail));
  document.addEventListener("htmx:afterRequest", (event) => {
    const { xhr } = (event as CustomEvent<{ xhr?: XMLHttpRequest }>).detail;
    if (xhr !== undefined) hear(xhr.status, xhr.getResponseHeader(LEFT));
  });
  hear(200, meta("session-expires-in"));
}
