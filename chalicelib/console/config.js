/** Reads the settings of the deployed stage from the meta tags of the page. */
import { h } from "./dom.js";

const meta = (name) => document.querySelector(`meta[name="cafe-${name}"]`).content;

export const config = {
  cognitoEndpoint: meta("cognito-endpoint"),
  clientId: meta("client-id"),
  uploadsUrl: meta("uploads-url"),
  stage: meta("stage"),
  version: meta("version"),
};

/** Links to the picture of all hops, which only the local stack has. */
export const traceLink = (id) => {
  const href = `${meta("trace")}?id=${encodeURIComponent(id)}`;
  return meta("trace") && h("a.trace", { href, target: "_blank" }, "Show every hop");
};
