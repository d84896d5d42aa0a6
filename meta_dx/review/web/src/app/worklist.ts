// The worklist by keyboard: j/k move, Enter opens, n goes to the next unread case, / to the search.

import { isTyping } from "../viewer/keys";

const ROWS = "[data-worklist] tr[data-href]";

function rows(): HTMLTableRowElement[] {
  return [...document.querySelectorAll<HTMLTableRowElement>(ROWS)];
}

function current(): number {
  return rows().findIndex((row) => row.getAttribute("aria-selected") === "true");
}

function select(index: number): void {
  const all = rows();
  const row = all[index];
  if (row === undefined) return;
  for (const other of all) {
    other.setAttribute("aria-selected", String(other === row));
    other.tabIndex = other === row ? 0 : -1;
  }
  row.focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

function page(rel: "next" | "prev"): void {
  document.querySelector<HTMLAnchorElement>(`.pagination a[rel="${rel}"]`)?.click();
}

function open(row: HTMLTableRowElement | undefined): void {
  const href = row?.dataset.href;
  if (href) window.location.assign(href);
}

function listActions(event: KeyboardEvent): Record<string, () => void> {
  const all = rows();
  const at = current();
  const down = (): void => (at + 1 < all.length ? select(at + 1) : page("next"));
  const up = (): void => (at > 0 ? select(at - 1) : at < 0 ? select(0) : page("prev"));
  const actions = { j: down, k: up, "/": () => document.querySelector<HTMLInputElement>("input[type='search']")?.focus() };
  const onControl = event.target instanceof Element && event.target.closest("a, button") !== null;
  return onControl ? actions : { ...actions, ArrowDown: down, ArrowUp: up, Enter: () => open(all[at]) };
}

function onKey(event: KeyboardEvent): void {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
  const actions = document.querySelector("[data-worklist]") === null ? {} : listActions(event);
  // The server knows the whole list: the next unread case is its answer, not a row of this page.
  const all: Record<string, () => void> = {
    ...actions,
    n: () => document.querySelector<HTMLAnchorElement>("a[data-next], a[href='/next']")?.click(),
  };
  const run = all[event.key];
  if (run === undefined) return;
  event.preventDefault();
  run();
}

function onClick(event: MouseEvent): void {
  if (!(event.target instanceof Element) || event.target.closest("a, button, input, select, label") !== null) return;
  const row = event.target.closest<HTMLTableRowElement>(ROWS);
  if (row === null || window.getSelection()?.isCollapsed === false) return;
  if (event.metaKey || event.ctrlKey) window.open(row.dataset.href, "_blank", "noopener");
  else open(row);
}

/** Gives the rows of a worklist one place in the order of the Tab key. */
export function prepareWorklist(root: ParentNode): void {
  const inside = root instanceof Element && root.closest("[data-worklist]") !== null;
  if (!inside && root.querySelector("[data-worklist]") === null) return;
  const all = rows();
  const at = Math.max(0, current());
  all.forEach((row, i) => {
    row.tabIndex = i === at ? 0 : -1;
    row.setAttribute("aria-selected", String(row.getAttribute("aria-selected") === "true"));
  });
}

export function setUpWorklist(): void {
  document.addEventListener("keydown", onKey);
  document.addEventListener("click", onClick);
  document.addEventListener("focusin", (event) => {
    const row = event.target instanceof Element ? event.target.closest<HTMLTableRowElement>(ROWS) : null;
    if (row === event.target && row !== null) select(rows().indexOf(row));
  });
  // The viewer's script is large: it comes while the list is read, so that a case opens with it in the cache.
  if (document.querySelector("[data-worklist]") !== null) {
    const warm = (): void => void import("../viewer/viewer");
    if ("requestIdleCallback" in window) window.requestIdleCallback(warm, { timeout: 4000 });
    else globalThis.setTimeout(warm, 1500);
  }
}
