// Which side of the patient each edge of a picture faces: R and L, A and P, H and F (PS3.3 C.7.6.1.1.1).

import { h } from "./dom";

/** A direction in the patient (LPS) shows a letter for each axis that it has at least so much of. */
const LEAST = 0.2;
const LETTERS = [
  ["R", "L"],
  ["A", "P"],
  ["F", "H"],
] as const;

/** The letters of a direction, the strongest first; one that turns no axis much still has its strongest. */
export function letters(direction: readonly number[]): string {
  const parts = direction.map((value, axis) => ({ value, letter: LETTERS[axis]?.[value < 0 ? 0 : 1] ?? "" }));
  parts.sort((one, other) => Math.abs(other.value) - Math.abs(one.value));
  return parts
    .filter(({ value }, place) => place === 0 || Math.abs(value) >= LEAST)
    .map(({ letter }) => letter)
    .join("");
}

/** Letters at the edges of a pane; none where nobody knows how the picture lies. */
export class Sides {
  private readonly marks = (["top", "right", "bottom", "left"] as const).map((edge) =>
    h("span", { class: `side side--${edge}` }),
  );
  readonly root = h("div", { class: "sides" }, ...this.marks);

  show(orientation: readonly number[] | null): void {
    const row = orientation?.slice(0, 3) ?? [];
    const column = orientation?.slice(3, 6) ?? [];
    const back = (direction: number[]): number[] => direction.map((value) => -value);
    [back(column), row, column, back(row)].forEach((direction, edge) => {
      const mark = this.marks[edge];
      if (mark) mark.textContent = letters(direction);
    });
  }
}
