// htmx as this application wants it: nothing is evaluated, nothing of a page is kept in the browser's storage,
// every request carries the token against forged requests.

import htmx from "htmx.org";
import { csrfToken } from "./ask";

interface ConfigRequest {
  headers: Record<string, string>;
  verb: string;
}

export function setUpHtmx(): void {
  Object.assign(htmx.config, {
    allowEval: false,
    allowScriptTags: false,
    includeIndicatorStyles: false,
    selfRequestsOnly: true,
    // Pages of patients do not lie in the browser's storage: going back asks the server again.
    historyCacheSize: 0,
    refreshOnHistoryMiss: true,
    // A form that was refused comes back with its faults.
    responseHandling: [
      { code: "204", swap: false },
      { code: "[23]..", swap: true },
      { code: "(409|422|429)", swap: true },
      { code: "[45]..", swap: false, error: true },
    ],
  });
  document.addEventListener("htmx:configRequest", (event) => {
    const { headers } = (event as CustomEvent<ConfigRequest>).detail;
    headers["X-CSRF-Token"] = csrfToken();
  });
}

/** Runs `enhance` on the page and on whatever htmx brings later. */
export function onContent(enhance: (root: ParentNode) => void): void {
  enhance(document);
  htmx.onLoad((element) => enhance(element as ParentNode));
}
