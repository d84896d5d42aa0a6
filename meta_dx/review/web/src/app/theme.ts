// Dark or light: the reader's choice, else the system's. The choice lies in a cookie, so that the server can write it
// into the page (`<html data-theme>`) and nothing flashes.

const KEY = "theme";
const YEAR = 31_536_000;

export type Theme = "dark" | "light";

/** The theme of a header of cookies. */
export function themeOf(cookies: string): Theme | null {
  const found = /(?:^|;\s*)theme=(dark|light)(?:;|$)/.exec(cookies);
  return (found?.[1] as Theme | undefined) ?? null;
}

function shown(): Theme {
  const set = document.documentElement.dataset.theme;
  if (set === "dark" || set === "light") return set;
  return window.matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
}

export function setUpTheme(): void {
  const theme = themeOf(document.cookie);
  if (theme !== null) document.documentElement.dataset.theme = theme;
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-theme-toggle]") : null;
    if (button === null) return;
    const next: Theme = shown() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    document.cookie = `${KEY}=${next}; path=/; max-age=${YEAR}; samesite=strict`;
  });
}
