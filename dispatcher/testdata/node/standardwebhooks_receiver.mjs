// A receiver of signed calls as a user of Standard Webhooks writes one. v1 is
// verified by the official package; v1a, which that does not know, by Node's own
// crypto, from the text of the specification.
//
//   node standardwebhooks_receiver.mjs KEY...
//
// Keys are whsec_ (a shared secret) or whpk_ (a public key). It prints the port
// that it listens on, and then a line of JSON for each call: the webhook-id, how
// many signatures came, and for each key whether one of them is by it. A call that
// no key verifies is answered with 401.

import { createPublicKey, verify } from "node:crypto";
import { createServer } from "node:http";
import { Webhook } from "standardwebhooks";

const tolerance = 5 * 60; // seconds

// verifier returns what throws unless a call is signed by the key.
function verifier(key) {
  if (key.startsWith("whsec_")) {
    const webhook = new Webhook(key);
    return (body, headers) => webhook.verify(body, headers, { jsonParse: false });
  }
  if (!key.startsWith("whpk_")) {
    throw new Error("keys begin with whsec_ or whpk_");
  }
  const x = Buffer.from(key.slice("whpk_".length), "base64").toString("base64url");
  const publicKey = createPublicKey({ key: { kty: "OKP", crv: "Ed25519", x }, format: "jwk" });
  return (body, headers) => {
    const id = headers["webhook-id"];
    const timestamp = headers["webhook-timestamp"];
    if (Math.abs(Date.now() / 1000 - Number(timestamp)) > tolerance) {
      throw new Error("the timestamp is not of now");
    }
    const signed = Buffer.concat([Buffer.from(`${id}.${timestamp}.`), body]);
    const good = headers["webhook-signature"].split(" ").some((one) => {
      const [scheme, signature] = one.split(",");
      return scheme === "v1a" && verify(null, signed, publicKey, Buffer.from(signature, "base64"));
    });
    if (!good) {
      throw new Error("no signature is by this key");
    }
  };
}

function passes(check, body, headers) {
  try {
    check(body, headers);
    return true;
  } catch {
    return false;
  }
}

const checks = process.argv.slice(2).map(verifier);

const server = createServer(async (request, response) => {
  const chunks = await request.toArray();
  const body = Buffer.concat(chunks);
  const verified = checks.map((check) => passes(check, body, request.headers));
  const signatures = (request.headers["webhook-signature"] ?? "").split(" ").length;
  console.log(JSON.stringify({ id: request.headers["webhook-id"], signatures, verified }));
  response.writeHead(verified.includes(true) ? 204 : 401).end();
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
