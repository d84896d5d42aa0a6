// Short messages in a corner; failures stay until they are closed.

export type Tone = "info" | "ok" | "warn" | "danger";

function region(): HTMLElement {
  const found = document.querySelector<HTMLElement>(".toasts");
  if (found !== null) return found;
  // Every page has its own, from the beginning: what comes together with its region is not read out.
  const made = document.createElement("div");
  made.className = "toasts";
  document.body.append(made);
  return made;
}

export function toast(text: string, tone: Tone = "info", key?: string): void {
  if (key !== undefined) document.querySelector(`.toast[data-key="${key}"]`)?.remove();
  const item = document.createElement("div");
  item.className = `toast toast--${tone}`;
  if (key !== undefined) item.dataset.key = key;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "toast__close";
  close.setAttribute("aria-label", "Close");
  close.textContent = "×";
  close.addEventListener("click", () => item.remove());
  item.append(text, close);
  region().append(item);
  if (tone === "info" || tone === "ok") window.setTimeout(() => item.remove(), 5000);
}
