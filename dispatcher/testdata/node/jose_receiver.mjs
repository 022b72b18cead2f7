// A callback whose calls are encrypted by JWE, as a user of the package jose writes
// one.
//
//   node jose_receiver.mjs JWK
//
// The JWK is the shared key, or the receiver's private one. It prints the port that
// it listens on, and then a line of JSON for each call: the protected header without
// the key that is new in each call, and the text that was encrypted. A call that
// can't be decrypted is answered with 400.

import { webcrypto } from "node:crypto";
import { createServer } from "node:http";
import { compactDecrypt, importJWK } from "jose";

globalThis.crypto ??= webcrypto; // which jose needs, and Node.js 18 hides

const jwk = JSON.parse(process.argv[2]);
const algorithm = jwk.kty === "oct" ? "dir" : "ECDH-ES+A256KW";
const key = await importJWK(jwk, algorithm);

const server = createServer(async (request, response) => {
  const body = Buffer.concat(await request.toArray()).toString("ascii");
  try {
    if (request.headers["content-type"] !== "application/jose") {
      throw new Error(`the content type is ${request.headers["content-type"]}`);
    }
    const { plaintext, protectedHeader } = await compactDecrypt(body, key, {
      keyManagementAlgorithms: [algorithm],
      contentEncryptionAlgorithms: ["A256GCM"],
    });
    const { alg, enc, cty, kid } = protectedHeader;
    console.log(JSON.stringify({ alg, enc, cty, kid, text: new TextDecoder().decode(plaintext) }));
    response.writeHead(204).end();
  } catch (error) {
    console.error(error);
    response.writeHead(400).end();
  }
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
