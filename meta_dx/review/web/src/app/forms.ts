// A form control that plain HTML lacks: a confidence that starts unset. And the way to the form of a case.

/** A slider whose value counts only once it has been moved: it writes into the hidden field that is sent. */
function prepareConfidence(box: HTMLElement): void {
  const range = box.querySelector<HTMLInputElement>('input[type="range"]');
  const field = box.querySelector<HTMLInputElement>('input[type="hidden"]');
  const output = box.querySelector("output");
  if (range === null || field === null) return;
  const say = (set: boolean): void => {
    box.dataset.set = String(set);
    if (set) field.value = range.value;
    if (output !== null) output.textContent = set ? `${range.value} %` : "not set";
    range.setAttribute("aria-valuetext", set ? `${range.value} percent` : "not set");
    range.style.setProperty("--share", `${set ? range.value : 0}%`);
  };
  if (field.value !== "") range.value = field.value;
  say(field.value !== "");
  range.addEventListener("input", () => say(true));
  // A click on the place where the thumb already stands is a choice too.
  range.addEventListener("pointerup", () => {
    if (box.dataset.set === "true") return;
    say(true);
    field.dispatchEvent(new Event("input", { bubbles: true }));
  });
}

/** Gives the focus to the form of a case: to what is chosen among its first controls, else to the first. */
export function goToForm(): void {
  const form = document.querySelector<HTMLFormElement>("form#blind, form#decision");
  const first = form?.querySelector<HTMLInputElement>("input:not([type='hidden'])");
  const chosen = first?.type === "radio" ? form?.querySelector<HTMLInputElement>(`input[name="${first.name}"]:checked`) : null;
  (chosen ?? first)?.focus();
}

const done = new WeakSet<Element>();

export function prepareForms(root: ParentNode): void {
  for (const element of root.querySelectorAll<HTMLElement>("[data-confidence]")) {
    if (!done.has(element)) prepareConfidence(element);
    done.add(element);
  }
}
