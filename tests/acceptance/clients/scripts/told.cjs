"use strict";
// How a script tells its test what came out of a task: JSON, on the last line.
const fs = require("node:fs");
const path = require("node:path");

/** Run the task that the command line names, with its arguments. */
async function main(tasks) {
  const [name, argument] = process.argv.slice(2);
  const told = await tasks[name](JSON.parse(argument));
  fs.writeSync(1, `\n${JSON.stringify(told ?? null)}\n`);
  process.exit(0); // kept connections would hold the process for some seconds
}

/** Let the picture be finished that waits for this gate. */
function open(gate) {
  fs.writeFileSync(path.join(process.env.GATES, gate), "");
}

/** The error that a promise ends with, in words that JSON can carry; anything else is a mistake of the test. */
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
