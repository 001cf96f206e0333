"use strict";
// What users of @fal-ai/serverless-client wrote, in the versions that speak the gateway form; PACKAGE says which.
const fal = require(process.env.PACKAGE);
const { main, open, caught } = require("./runner.cjs");

main({
  /** Submit, look at each update, open the gate when it runs, read the result: in one call. */
  async subscribe({ app, path, input, gate, config }) {
    if (config) fal.config(config);
    const updates = [];
    let id;
    const result = await fal.subscribe(app, {
      path,
      input,
      logs: true,
      pollInterval: 50,
      onEnqueue: (requestId) => (id = requestId),
      onQueueUpdate(update) {
        if (updates.at(-1)?.status !== update.status) updates.push(update);
        if (gate && update.status === "IN_PROGRESS") open(gate);
      },
    });
    return { id, updates, result };
  },

  /** The same as above, step by step. */
  async steps({ app, path, input, gate, webhookUrl }) {
    const { request_id: requestId } = await fal.queue.submit(app, { path, input, webhookUrl });
    const early = gate && (await caught(fal.queue.result(app, { requestId })));
    const status = await fal.queue.status(app, { requestId, logs: false });
    if (gate) open(gate);
    let last;
    do last = await fal.queue.status(app, { requestId, logs: true });
    while (last.status !== "COMPLETED");
    return { requestId, early, status, last, result: await fal.queue.result(app, { requestId }) };
  },

  /** What an error looks like. */
  failing: ({ app, path, input }) => caught(fal.subscribe(app, { path, input, pollInterval: 50 })),

  /** What an unknown request looks like. */
  unknown: ({ app, requestId }) => caught(fal.queue.status(app, { requestId })),

  /** The service under a name that is not `{id}.{host}`. */
  async elsewhere({ app, path, input, base }) {
    fal.config({
      requestMiddleware: async (request) => ({ ...request, url: request.url.replace(/^https:\/\/[^/]+/, base) }),
    });
    return fal.subscribe(app, { path, input, pollInterval: 50 });
  },
});
