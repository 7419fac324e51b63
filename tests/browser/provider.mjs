// An OpenID provider for browser tests: the certified `oidc-provider`, whose pages take any name with any password.
// What stands behind the first dot of a name are the roles: `ada.boss` has the role `boss`.
// What it is to be stands in the environment, as JSON. It says "ready" once it listens.
import { createServer } from "node:http";
import Provider from "oidc-provider";

const { port, client_id, client_secret, redirect_uris } = JSON.parse(process.env.PROVIDER);
const issuer = `http://127.0.0.1:${port}`;

const provider = new Provider(issuer, {
  clients: [{ client_id, client_secret, redirect_uris, response_types: ["code"], grant_types: ["authorization_code"] }],
  cookies: { keys: ["for tests alone"] },
  claims: { openid: ["sub", "roles"], profile: ["name"] },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id, name: id, roles: id.split(".").slice(1) }) }),
  // What the client asks for is granted: nobody is asked for consent.
  loadExistingGrant: async (ctx) => {
    const grant = new provider.Grant({ clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId });
    grant.addOIDCScope("openid profile");
    await grant.save();
    return grant;
  },
});

createServer(provider.callback()).listen(port, "127.0.0.1", () => console.log("ready"));
