// What the keys do: one table that both the keyboard and the sheet of shortcuts read.

export interface Shortcut {
  /** `KeyboardEvent.key` values, with "Shift+" before it where it matters. */
  keys: readonly string[];
  /** As the sheet and the tooltips print it. */
  label: string;
  does: string;
  group: "Slices" | "Picture" | "Tools" | "Series and studies" | "Page";
  run: () => void;
}

/** Whether a key press belongs to what has the focus (a field, a list, an open dialog) and not to the page. */
export function isTyping(target: EventTarget | null): boolean {
  if (!(target instanceof Element)) return false;
  if (target.closest("dialog[open]") !== null) return true;
  const field = target.closest("input, select, textarea, [contenteditable]");
  if (field === null) return false;
  return !(field instanceof HTMLInputElement && field.type === "range" && field.classList.contains("pane__slider"));
}

function press(event: KeyboardEvent): string {
  const name = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  return event.shiftKey && event.key.length > 1 ? `Shift+${name}` : name;
}

/** Whether the slider of a viewport moves by itself: to the left and right as every slider does. */
function slides(event: KeyboardEvent): boolean {
  const sideways = event.key === "ArrowLeft" || event.key === "ArrowRight";
  return sideways && event.target instanceof Element && event.target.classList.contains("pane__slider");
}

/** Runs the shortcut of a key press, if any and if nothing else claims the key; says whether it did. */
export function dispatch(event: KeyboardEvent, shortcuts: readonly Shortcut[]): boolean {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return false;
  if (isTyping(event.target) || slides(event)) return false;
  const pressed = press(event);
  const activates = event.key === "Enter" || event.key === " ";
  if (activates && event.target instanceof Element && event.target.closest("button, a, summary, label") !== null) return false;
  const found = shortcuts.find((shortcut) => shortcut.keys.includes(pressed));
  if (found === undefined) return false;
  event.preventDefault();
  found.run();
  return true;
}
