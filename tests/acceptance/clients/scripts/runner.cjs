"use strict";
// Runs one task of a script and prints its result as JSON on the last line.
const fs = require("node:fs");
const path = require("node:path");

/** Run the task that the command line names, with its arguments. */
async function main(tasks) {
  const [name, argument] = process.argv.slice(2);
  const result = await tasks[name](JSON.parse(argument));
  fs.writeSync(1, `\n${JSON.stringify(result ?? null)}\n`);
  process.exit(0); // kept-alive connections would keep the process running for some seconds
}

/** Open the gate that a picture waits for. */
function open(gate) {
  fs.writeFileSync(path.join(process.env.GATES, gate), "");
}

/** The error of a rejected promise as JSON; a promise that succeeds is an error of the test. */
async function caught(promise) {
  try {
    await promise;
  } catch (error) {
    const { name, message, status, body, requestId, timeoutType, isUserTimeout, fieldErrors } = error;
    return { name, message, status, body, requestId, timeoutType, isUserTimeout, fieldErrors };
  }
  throw new Error("it should have failed");
}

module.exports = { main, open, caught };
