/** Links to the picture of all hops. Only the local stack serves this page. */
import { config } from "./config.js";
import { link } from "./dom.js";

/** Returns the children that link to the picture of an order, report or upload. The array is empty on AWS. */
export const traceLink = (id) =>
  config.tracePath
    ? [" ", link(new URL(`${config.tracePath}?id=${encodeURIComponent(id)}`, document.baseURI).href, "Show every hop")]
    : [];
