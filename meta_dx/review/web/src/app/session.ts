// A session ends: said some minutes before, and plainly when it has happened.

const WARN_MS = 3 * 60 * 1000;

let timer = 0;

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

function fill(title: string, text: string, ...buttons: HTMLElement[]): void {
  const box = dialog();
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
  fill(
    "You are signed out",
    "Your session has ended. Sign in again to go on; a draft that was saved is kept.",
    button("Sign in", true, () => window.location.assign(loginAddress(login, window.location))),
  );
}

async function renew(): Promise<void> {
  const address = meta("session-renew-url");
  if (address === null) return;
  try {
    const answer = await fetch(address, { method: "POST", credentials: "same-origin", headers: { "X-CSRF-Token": meta("csrf-token") ?? "" } });
    if (!answer.ok || answer.redirected) return lost();
    dialog().close();
    schedule(answer.headers.get("X-Session-Expires-In"));
  } catch {
    // Without the server nothing can be renewed; the dialog stays.
  }
}

/** Milliseconds until the warning, from the seconds that are left. */
export function warnAfter(seconds: number): number {
  return Math.max(0, seconds * 1000 - WARN_MS);
}

/** Takes the seconds that a session has left (a header of any answer, or the page's meta tag). */
function schedule(seconds: string | null): void {
  const left = Number(seconds);
  if (seconds === null || !Number.isFinite(left) || left <= 0) return;
  window.clearTimeout(timer);
  const end = Date.now() + left * 1000;
  const watch = (): void => {
    const rest = end - Date.now();
    if (rest <= 0) return lost();
    fill("Your session ends soon", `You will be signed out in about ${Math.max(1, Math.round(rest / 60_000))} min.`, button("Stay signed in", true, () => void renew()));
    timer = window.setTimeout(lost, rest);
  };
  timer = window.setTimeout(watch, Math.min(warnAfter(left), 2 ** 31 - 1));
}

export function setUpSession(): void {
  schedule(meta("session-expires-in"));
  document.addEventListener("session:lost", lost);
  document.addEventListener("htmx:afterRequest", (event) => {
    const { xhr } = (event as CustomEvent<{ xhr?: XMLHttpRequest }>).detail;
    if (xhr === undefined) return;
    if (xhr.status === 401) lost();
    else schedule(xhr.getResponseHeader("X-Session-Expires-In"));
  });
}
