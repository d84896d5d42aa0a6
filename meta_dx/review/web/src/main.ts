// Every page loads this; a page with a viewer loads that one in addition.

import "./review.css";
import { prepareDrafts, setUpGuard } from "./app/drafts";
import { prepareForms } from "./app/forms";
import { onContent, setUpHtmx } from "./app/htmx";
import { setUpSession } from "./app/session";
import { setUpTheme } from "./app/theme";
import { toast } from "./app/toast";
import { headStart } from "./viewer/source";
import { prepareWorklist, setUpWorklist } from "./app/worklist";

const mounted = new WeakSet<Element>();

async function mountViewers(root: ParentNode): Promise<void> {
  const places = [...root.querySelectorAll<HTMLElement>("[data-viewer]")].filter((place) => !mounted.has(place));
  if (places.length === 0) return;
  performance.mark("viewer:asked");
  const asked = places.map((place) => {
    mounted.add(place);
    return headStart(place.dataset.images ?? "");
  });
  const { mount } = await import("./viewer/viewer");
  places.forEach((place, i) => void mount(place, asked[i]));
}

function start(): void {
  setUpTheme();
  setUpHtmx();
  setUpSession();
  setUpGuard();
  setUpWorklist();
  onContent((root) => {
    void mountViewers(root);
    prepareWorklist(root);
    prepareDrafts(root);
    prepareForms(root);
  });
  document.addEventListener("htmx:sendError", () => toast("The server cannot be reached.", "danger", "network"));
  document.addEventListener("htmx:responseError", (event) => {
    const status = (event as CustomEvent<{ xhr: XMLHttpRequest }>).detail.xhr.status;
    if (status !== 401) toast(`That did not work: the server answered ${status}.`, "danger", "response");
  });
}

start();
