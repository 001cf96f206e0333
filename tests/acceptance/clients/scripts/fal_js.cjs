"use strict";
// What users of @fal-ai/client do, with the service under another name by `requestMiddleware`: BASE is where the queue form lives.
const { fal } = require("@fal-ai/client");
const { main, open, caught } = require("./runner.cjs");

fal.config({
  requestMiddleware: async (request) => ({
    ...request,
    url: request.url.replace("https://queue.fal.run/", process.env.BASE),
  }),
});

const UNKNOWN = "01936b6e-0000-7000-8000-000000000000";

/** Submit, and wait until it runs. */
async function started(app, input) {
  const { request_id: requestId } = await fal.queue.submit(app, { input });
  while ((await fal.queue.status(app, { requestId })).status !== "IN_PROGRESS");
  return requestId;
}

main({
  /** Everything in one call; the gate is opened at the first line of log. */
  async subscribe({ app, input, gate, ...options }) {
    const updates = [];
    let id;
    const { data, requestId } = await fal.subscribe(app, {
      input,
      logs: true,
      pollInterval: 50,
      onEnqueue: (enqueued) => (id = enqueued),
      onQueueUpdate(update) {
        if (updates.at(-1)?.status !== update.status) updates.push(structuredClone(update));
        if (gate && update.status === "IN_PROGRESS" && update.logs.length) open(gate);
      },
      ...options,
    });
    return { id, updates, data, requestId };
  },

  /** The same step by step. */
  async steps({ app, input, gate, webhookUrl }) {
    const enqueued = await fal.queue.submit(app, { input, webhookUrl, priority: "low", hint: "a-runner" });
    const requestId = enqueued.request_id;
    const early = await caught(fal.queue.result(app, { requestId }));
    open(gate);
    const last = await fal.queue.subscribeToStatus(app, { requestId, logs: true, pollInterval: 50 });
    const bare = await fal.queue.status(app, { requestId });
    return { enqueued, early, last, bare, result: await fal.queue.result(app, { requestId }) };
  },

  /** The stream of states, as it comes. */
  async stream({ app, input, gate }) {
    const { request_id: requestId } = await fal.queue.submit(app, { input });
    const stream = await fal.queue.streamStatus(app, { requestId, logs: true });
    const events = [];
    for await (const event of stream) {
      events.push(event);
      if (event.status === "IN_PROGRESS" && events.some(({ logs }) => logs?.length)) open(gate);
    }
    return { requestId, events, done: await stream.done(), id: stream.requestId };
  },

  /** One runs, and two wait: where each stands, and what cancelling one does. */
  async waiting({ app, gate }) {
    const first = await started(app, { picture: "first", gate });
    const second = await fal.queue.submit(app, { input: { picture: "second" } });
    const third = await fal.queue.submit(app, { input: { picture: "third" } });
    const places = [];
    for (const { request_id: requestId } of [second, third]) places.push(await fal.queue.status(app, { requestId }));
    await fal.queue.cancel(app, { requestId: third.request_id });
    const cancelled = await fal.queue.status(app, { requestId: third.request_id });
    const error = await caught(fal.queue.result(app, { requestId: third.request_id }));
    open(gate);
    await fal.queue.subscribeToStatus(app, { requestId: first, pollInterval: 50 });
    return { places, cancelled, error };
  },

  /** Cancel what runs, then what has ended, then what never was. */
  async cancelling({ app, gate }) {
    const requestId = await started(app, { picture: "a cat", gate });
    await fal.queue.cancel(app, { requestId });
    await fal.queue.subscribeToStatus(app, { requestId, pollInterval: 50 });
    return {
      requestId,
      error: await caught(fal.queue.result(app, { requestId })),
      again: await caught(fal.queue.cancel(app, { requestId })),
      unknown: await caught(fal.queue.cancel(app, { requestId: UNKNOWN })),
    };
  },

  /** What an error looks like. */
  failing: ({ app, input, ...options }) => caught(fal.subscribe(app, { input, pollInterval: 50, ...options })),

  /** What becomes of a request that never was. */
  async unknown({ app }) {
    const stream = await fal.queue.streamStatus(app, { requestId: UNKNOWN });
    return Promise.all([
      caught(stream.done()),
      caught(fal.queue.status(app, { requestId: UNKNOWN })),
      caught(fal.queue.result(app, { requestId: UNKNOWN })),
    ]);
  },

  /** A request that has to start soon, where another one is running. */
  async tooLate({ app, gate }) {
    await started(app, { picture: "first", gate });
    const error = await caught(fal.subscribe(app, { input: { picture: "late" }, startTimeout: 1.05, pollInterval: 50 }));
    open(gate);
    return error;
  },

  /** A caller who waits for a moment, and cancels. */
  async impatient({ app, gate, mode }) {
    let requestId;
    const error = await caught(
      fal.subscribe(app, {
        input: { picture: "a cat", gate },
        mode,
        pollInterval: 50,
        timeout: 500,
        onEnqueue: (enqueued) => (requestId = enqueued),
      }),
    );
    await fal.queue.subscribeToStatus(app, { requestId, pollInterval: 50 });
    return { requestId, error, result: await caught(fal.queue.result(app, { requestId })) };
  },
});
