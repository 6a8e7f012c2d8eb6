/** What the server says of this stage, in the page's meta tags. */
const said = (name) => document.querySelector(`meta[name="cafe-${name}"]`).content;

export const config = {
  cognitoEndpoint: said("cognito-endpoint"),
  clientId: said("client-id"),
  uploadsUrl: said("uploads-url"),
  stage: said("stage"),
  version: said("version"),
};
