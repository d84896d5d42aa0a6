// Dark or light: the reader's choice of this browser, else the system's.

const KEY = "theme";

export type Theme = "dark" | "light";

function stored(): Theme | null {
  const value = window.localStorage.getItem(KEY);
  return value === "dark" || value === "light" ? value : null;
}

function shown(): Theme {
  const set = document.documentElement.dataset.theme;
  if (set === "dark" || set === "light") return set;
  return window.matchMedia("(prefers-color-scheme: light)").matches ? "light" : "dark";
}

export function setUpTheme(): void {
  const theme = stored();
  if (theme !== null) document.documentElement.dataset.theme = theme;
  document.addEventListener("click", (event) => {
    const button = event.target instanceof Element ? event.target.closest("[data-theme-toggle]") : null;
    if (button === null) return;
    const next: Theme = shown() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    window.localStorage.setItem(KEY, next);
  });
}
