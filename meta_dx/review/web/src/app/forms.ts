// Form controls that plain HTML lacks: ranks that exclude each other, a confidence that starts unset.

/**
 * Ranked diagnoses: rows of radio buttons, one group a rank. A disease has one rank at most, and a click on a chosen
 * button takes it back (nothing needs to be chosen).
 */
function prepareRanks(table: HTMLElement): void {
  table.addEventListener("change", (event) => {
    const chosen = event.target;
    if (!(chosen instanceof HTMLInputElement) || chosen.type !== "radio") return;
    const row = chosen.closest("tr, [data-rank-row]");
    for (const other of row?.querySelectorAll<HTMLInputElement>('input[type="radio"]:checked') ?? []) {
      if (other !== chosen) other.checked = false;
    }
  });
  const release = (input: HTMLInputElement): void => {
    input.checked = false;
    input.dispatchEvent(new Event("input", { bubbles: true }));
  };
  table.addEventListener("pointerdown", (event) => {
    const label = event.target instanceof Element ? event.target.closest("label") : null;
    const input = label?.querySelector<HTMLInputElement>('input[type="radio"]:checked') ?? null;
    if (input === null) return;
    // After the click: a browser gives a radio button its mark back when the click is prevented.
    label?.addEventListener("click", (click) => (click.preventDefault(), window.setTimeout(() => release(input))), { once: true });
  });
  table.addEventListener("keydown", (event) => {
    const input = event.target;
    if ((event.key === "Delete" || event.key === "Backspace") && input instanceof HTMLInputElement && input.checked) release(input);
  });
}

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

/** Buttons with data-open="#id" open that dialog; buttons with data-close close their own. */
function onClick(event: MouseEvent): void {
  const button = event.target instanceof Element ? event.target.closest<HTMLElement>("[data-open], [data-close]") : null;
  if (button === null) return;
  if (button.dataset.open !== undefined) document.querySelector<HTMLDialogElement>(button.dataset.open)?.showModal();
  else button.closest("dialog")?.close();
}

const done = new WeakSet<Element>();

export function prepareForms(root: ParentNode): void {
  const each = (selector: string, prepare: (element: HTMLElement) => void): void => {
    for (const element of root.querySelectorAll<HTMLElement>(selector)) {
      if (!done.has(element)) prepare(element);
      done.add(element);
    }
  };
  each("[data-ranks]", prepareRanks);
  each("[data-confidence]", prepareConfidence);
}

export function setUpForms(): void {
  document.addEventListener("click", onClick);
}
