// The sheet of shortcuts.

import { h } from "./dom";
import type { Shortcut } from "./keys";

const MOUSE = [
  ["Left drag", "the tool that is chosen"],
  ["Middle drag", "move the picture"],
  ["Right drag", "zoom"],
  ["Wheel", "slices; with Ctrl zoom"],
] as const;

function group(name: string, rows: readonly (readonly [string, string])[]): HTMLElement {
  const list = h("dl", { class: "shortcuts__list" });
  for (const [keys, does] of rows) {
    list.append(h("div", {}, h("dt", {}, ...keys.split(" ").map((key) => h("kbd", {}, key.replace("␣", " ")))), h("dd", {}, does)));
  }
  return h("section", {}, h("h3", {}, name), list);
}

/** Opens (or closes) the sheet. */
export function toggleSheet(shortcuts: readonly Shortcut[]): void {
  const open = document.querySelector<HTMLDialogElement>("dialog.shortcuts");
  if (open !== null) return open.close();
  const listed = shortcuts.filter((shortcut) => shortcut.label !== "");
  const names = [...new Set(listed.map((shortcut) => shortcut.group))];
  const close = h("button", { type: "button", class: "button button--quiet", "aria-label": "Close" }, "Close");
  const dialog = h(
    "dialog",
    { class: "dialog shortcuts", "aria-labelledby": "shortcuts-title" },
    h("header", { class: "dialog__head" }, h("h2", { id: "shortcuts-title" }, "Keyboard and mouse"), close),
    h(
      "div",
      { class: "shortcuts__groups" },
      ...names.map((name) =>
        group(
          name,
          listed.filter((shortcut) => shortcut.group === name).map((shortcut) => [shortcut.label, shortcut.does] as const),
        ),
      ),
      group("Mouse", MOUSE.map(([keys, does]) => [keys.replace(" ", "␣"), does] as const)),
    ),
  );
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("keydown", (event) => {
    if (event.key === "?") dialog.close();
  });
  document.body.append(dialog);
  dialog.showModal();
}
