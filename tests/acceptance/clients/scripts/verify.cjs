"use strict";
// A receiver's ways to verify a webhook in JavaScript, each with the library that people take for it.
const crypto = require("node:crypto");
const sodium = require("libsodium-wrappers");
const fetch = require("node-fetch");
const { Webhook } = require("standardwebhooks");
const { main } = require("./runner.cjs");

const JWKS_URL = process.env.JWKS_URL; // in the guide it is fal's own; the rest of this function is as it stands there

// From "fal.ai Webhooks: A Complete Guide", October 2025: what receivers of fal's webhooks have copied.
async function verifyWebhookSignature(requestId, userId, timestamp, signatureHex, body) {
  await sodium.ready; // 1. Validate timestamp
  const timestampInt = parseInt(timestamp, 10);
  const currentTime = Math.floor(Date.now() / 1000);
  if (Math.abs(currentTime - timestampInt) > 300) {
    return false;
  }
  // 2. Construct the message
  const messageParts = [requestId, userId, timestamp, crypto.createHash("sha256").update(body).digest("hex")];
  const messageToVerify = messageParts.join("\n");
  const messageBytes = Buffer.from(messageToVerify, "utf-8");
  const signatureBytes = Buffer.from(signatureHex, "hex");
  // 3. Fetch public keys
  const response = await fetch(JWKS_URL);
  const jwks = await response.json();
  // 4. Verify signature
  for (const keyInfo of jwks.keys) {
    const publicKeyB64Url = keyInfo.x;
    const publicKeyBytes = Buffer.from(publicKeyB64Url, "base64url");
    if (sodium.crypto_sign_verify_detached(signatureBytes, messageBytes, publicKeyBytes)) {
      return true;
    }
  }
  return false;
}

function guide({ headers, body }) {
  const [id, user, time, signature] = ["request-id", "user-id", "timestamp", "signature"].map(
    (name) => headers[`x-fal-webhook-${name}`],
  );
  return verifyWebhookSignature(id, user, time, signature, Buffer.from(body, "base64"));
}

// node:crypto, with the keys as JSON Web Keys: one outcome for each entry of the set. The Ed25519 form of Standard Webhooks.
async function builtIn({ headers, body }) {
  const { keys } = await (await fetch(JWKS_URL)).json();
  const prefix = Buffer.from(`${headers["webhook-id"]}.${headers["webhook-timestamp"]}.`);
  const message = Buffer.concat([prefix, Buffer.from(body, "base64")]);
  const signatures = headers["webhook-signature"].split(" ").filter((word) => word.startsWith("v1a,"));
  return keys.map((jwk) => {
    const key = crypto.createPublicKey({ key: jwk, format: "jwk" });
    return signatures.some((word) => crypto.verify(null, message, key, Buffer.from(word.slice(4), "base64")));
  });
}

// The library of Standard Webhooks itself; it throws where the signature is not good.
async function library({ headers, body, secret }) {
  return new Webhook(secret).verify(Buffer.from(body, "base64").toString(), headers);
}

async function refused(task) {
  try {
    return (await task) === false;
  } catch (error) {
    return error.constructor.name === "WebhookVerificationError";
  }
}

main({
  guide,
  builtIn,
  library,
  guideRefuses: (webhook) => refused(guide(webhook)),
  libraryRefuses: (webhook) => refused(library(webhook)),
});
