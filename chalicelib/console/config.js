/** Reads the settings of the deployed stage from the meta tags of the page. */
const meta = (name) => document.querySelector(`meta[name="cafe-${name}"]`).content;

export const config = {
  cognitoEndpoint: meta("cognito-endpoint"),
  clientId: meta("client-id"),
  uploadsUrl: meta("uploads-url"),
  stage: meta("stage"),
  version: meta("version"),
  tracePath: meta("trace-path"),
};
