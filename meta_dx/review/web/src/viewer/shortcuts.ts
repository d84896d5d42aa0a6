// The keys of the viewer.

import { goToForm } from "../app/forms";
import type { Shortcut } from "./keys";
import type { Viewer } from "./viewer";

const STEP = 40; // CSS pixels that an arrow moves the picture

type Row = readonly [group: Shortcut["group"], keys: readonly string[], label: string, does: string, run: () => void];

export function shortcutsOf(viewer: Viewer): Shortcut[] {
  const pane = () => viewer.active;
  const rows: Row[] = [
    ["Slices", ["ArrowDown"], "↓", "next slice", () => pane().step(1)],
    ["Slices", ["ArrowUp"], "↑", "previous slice", () => pane().step(-1)],
    ["Slices", ["PageDown"], "PgDn", "10 slices on", () => pane().step(10)],
    ["Slices", ["PageUp"], "PgUp", "10 slices back", () => pane().step(-10)],
    ["Slices", ["Home"], "Home", "first slice", () => pane().go(0)],
    ["Slices", ["End"], "End", "last slice", () => pane().go(pane().count - 1)],
    ["Slices", [" "], "Space", "cine: play, pause", () => viewer.cine.toggle()],
    ["Slices", ["]"], "]", "cine faster", () => viewer.cine.shift(1)],
    ["Slices", ["["], "[", "cine slower", () => viewer.cine.shift(-1)],
    ["Picture", [..."123456789"], "1 – 9", "window presets", () => undefined],
    ["Picture", ["i"], "I", "invert", () => pane().toggleInvert()],
    ["Picture", ["+", "="], "+", "zoom in", () => pane().zoom(1.2)],
    ["Picture", ["-"], "−", "zoom out", () => pane().zoom(1 / 1.2)],
    ["Picture", ["Shift+ArrowLeft"], "Shift ←→↑↓", "move the picture", () => pane().pan(-STEP, 0)],
    ["Picture", ["Shift+ArrowRight"], "", "", () => pane().pan(STEP, 0)],
    ["Picture", ["Shift+ArrowUp"], "", "", () => pane().pan(0, -STEP)],
    ["Picture", ["Shift+ArrowDown"], "", "", () => pane().pan(0, STEP)],
    ["Picture", ["r"], "R", "reset window, zoom and position", () => pane().reset()],
    ["Tools", ["w"], "W", "window", () => viewer.setMode("window")],
    ["Tools", ["z"], "Z", "zoom", () => viewer.setMode("zoom")],
    ["Tools", ["p"], "P", "pan", () => viewer.setMode("pan")],
    ["Tools", ["l"], "L", "length, kept for you alone", () => viewer.setMode("length")],
    ["Tools", ["m"], "M", "length by keyboard: arrows, Enter, Esc", () => viewer.measure()],
    ["Tools", ["Delete", "Backspace"], "Del", "remove the last length on this slice", () => pane().removeLength()],
    ["Tools", ["Shift+Delete", "Shift+Backspace"], "Shift Del", "remove all lengths of this series", () => pane().removeLengths()],
    ["Series and studies", ["ArrowRight"], "→", "next series", () => viewer.stepSeries(1)],
    ["Series and studies", ["ArrowLeft"], "←", "previous series", () => viewer.stepSeries(-1)],
    ["Series and studies", ["c"], "C", "earlier study beside it", () => void viewer.toggleCompare()],
    ["Series and studies", ["k"], "K", "link scrolling as the slices lie", () => viewer.toggleLink()],
    ["Series and studies", ["x"], "X", "other viewport", () => viewer.swap()],
    ["Series and studies", ["s"], "S", "list of series", () => viewer.toggleList()],
    ["Page", ["o"], "O", "your opinion or decision", () => goToForm()],
    ["Page", ["f"], "F", "full screen", () => viewer.toggleFull()],
    ["Page", ["?"], "?", "this sheet", () => viewer.help()],
  ];
  const found = rows.map(([group, keys, label, does, run]) => ({ group, keys, label, does, run }));
  // Each digit chooses its own preset; the sheet shows them as one line.
  const digits = [..."123456789"].map((digit) => ({
    group: "Picture" as const,
    keys: [digit],
    label: "",
    does: "",
    run: () => viewer.preset(Number(digit)),
  }));
  return [...digits, ...found];
}
