// A length measured by the keyboard.

import { h } from "./dom";
import type { Pane } from "./pane";
import { clamp } from "./window";

/** Puts a cross into the pane: arrows move it (Shift: in large steps), Enter sets both ends, Escape leaves. */
export function ruler(pane: Pane): void {
  const box = pane.image;
  box.parentElement?.querySelector(".ruler")?.remove();
  const at = { x: Math.round(box.clientWidth / 2), y: Math.round(box.clientHeight / 2) };
  let from: readonly [number, number] | null = null;
  const cross = h("button", { type: "button", class: "ruler", "aria-label": "Cross: arrows move it, Enter sets the first end" });
  const place = (): void => {
    cross.style.left = `${at.x}px`;
    cross.style.top = `${at.y}px`;
  };
  // Losing the focus removes the cross.
  const leave = (): void => pane.root.focus();
  const moves: Record<string, readonly [number, number]> = {
    ArrowLeft: [-1, 0],
    ArrowRight: [1, 0],
    ArrowUp: [0, -1],
    ArrowDown: [0, 1],
  };
  cross.addEventListener("keydown", (event) => {
    const move = moves[event.key];
    if (move !== undefined) {
      const step = event.shiftKey ? 20 : 1;
      at.x = clamp(at.x + move[0] * step, 0, box.clientWidth);
      at.y = clamp(at.y + move[1] * step, 0, box.clientHeight);
      place();
    } else if (event.key === "Enter" && from === null) {
      from = [at.x, at.y];
      cross.classList.add("ruler--second");
      cross.setAttribute("aria-label", "Cross: arrows move it, Enter sets the second end");
    } else if (event.key === "Enter" && from !== null) {
      pane.addLength(from, [at.x, at.y]);
      leave();
    } else if (event.key === "Escape") {
      leave();
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  });
  cross.addEventListener("blur", () => cross.remove());
  place();
  box.parentElement?.append(cross);
  cross.focus();
}
