/** What can go wrong between the page and the server, each with what the user can do about it. */

import { element } from "./dom.js";

const ADVICE = {
  400: "Correct it, then try again.",
  401: "Enter another key.",
  403: "Choose another index or model, or ask whoever gave you the key for more rights.",
  404: "Reload the page: what is served may have changed.",
  408: "Try again; a smaller number of results or a narrower filter takes less time.",
  413: "Shorten the text, then try again.",
  429: "Wait a moment, then try again.",
  503: "Try again in a moment; Status shows what does not answer.",
};

const TITLES = {
  400: "The server cannot use this request",
  401: "The key was not accepted",
  403: "This key may not do that",
  404: "Not found",
  408: "It took too long",
  413: "Too large",
  429: "The server is full",
  503: "Not available now",
};

/** An error that the server answered with, or that kept it from answering. */
export class Failure extends Error {
  constructor(title, message, { advice, status = 0, param = null, retry = true, requestId = null } = {}) {
    super(message);
    Object.assign(this, { title, advice, status, param, retry, requestId });
  }
}

/** The failure that a response with a status of 400 or more tells of. */
export async function failureOf(response) {
  const error = await response.json().then(
    (body) => body?.error,
    () => null,
  );
  const wait = Number(response.headers.get("retry-after"));
  return new Failure(
    TITLES[response.status] ?? `The server answered ${response.status}`,
    error?.message ?? response.statusText,
    {
      advice:
        wait > 0
          ? `Try again in ${wait === 1 ? "a second" : `${wait} seconds`}.`
          : (ADVICE[response.status] ?? "Try again."),
      status: response.status,
      param: error?.param,
      retry: response.headers.get("x-should-retry") !== "false",
      requestId: response.headers.get("x-request-id"),
    },
  );
}

/** The failure of a stream that an error ended after its start. */
export function brokenOff(message, requestId) {
  const advice = "What came before it is shown, but is not the whole answer. Ask again.";
  return new Failure("The answer broke off", message, { advice, requestId });
}

/** The failure of a request that no server answered. */
export function unreachable() {
  const advice = "Check the connection and that the server runs, then try again.";
  return new Failure("The server cannot be reached", "", { advice });
}

/** The failure of a server that answers, but serves no index or no model so far. */
export function notThere(index, model) {
  const missing = [!index && "no index to search", !model && "no model to ask"].filter(Boolean).join(" and ");
  const advice = "The server may still be starting: see Status, and try again.";
  return new Failure("Not everything is there yet", `There is ${missing}.`, { advice });
}

/** Any error as a failure; what is not foreseen is one of the page itself. */
export function asFailure(error) {
  if (error instanceof Failure) return error;
  return new Failure("The page cannot read what the server sent", error.message, { advice: "Reload the page." });
}

/** A box that says what went wrong, in the server's words, and what to do; `again` is called by its button. */
export function failureBox(failure, again = null) {
  return element(
    "div",
    { class: "notice bad", role: "alert" },
    element("strong", {}, failure.title),
    failure.message && element("p", { class: "said" }, failure.message),
    failure.param && element("p", {}, "Field: ", element("code", {}, failure.param)),
    element("p", {}, failure.advice),
    again && failure.retry && element("button", { type: "button", class: "quiet", onclick: again }, "Try again"),
    failure.requestId && element("small", {}, `Request ${failure.requestId}`),
  );
}
