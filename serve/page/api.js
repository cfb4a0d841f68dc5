/**
 * The server's calls, as the page needs them.
 *
 * Guaranteed: whatever goes wrong is thrown as a Failure that says what to do, or as the browser's AbortError when the
 * caller has aborted; a refused key is told to `refused` too.
 */

import { eventsOf } from "./events.js";
import { brokenOff, failureOf, unreachable } from "./failures.js";

export class Api {
  #key;
  #refused;

  constructor(key, refused) {
    this.#key = key;
    this.#refused = refused;
  }

  /** The JSON of a GET. */
  async get(path) {
    return (await this.#fetch(path, {})).json();
  }

  /** The JSON that answers a POST of `body`. */
  async post(path, body, signal) {
    return (await this.#fetch(path, posted(body, signal))).json();
  }

  /** The objects of the stream that answers a POST of `body`, as they come, up to its `[DONE]`. */
  async *stream(path, body, signal) {
    const response = await this.#fetch(path, posted(body, signal));
    const requestId = response.headers.get("x-request-id");
    try {
      for await (const data of eventsOf(response.body)) {
        if (data === "[DONE]") return;
        const event = JSON.parse(data);
        if (event.error) throw brokenOff(event.error.message, requestId);
        yield event;
      }
    } catch (error) {
      // A connection that is lost in the middle is a TypeError of the body's reader.
      throw error instanceof TypeError ? brokenOff("The connection was lost.", requestId) : error;
    }
    throw brokenOff("The server closed the connection before the end.", requestId);
  }

  async #fetch(path, request) {
    const headers = { ...request.headers, ...(this.#key.value && { authorization: `Bearer ${this.#key.value}` }) };
    const response = await fetch(path, { ...request, headers }).catch((error) => {
      throw error.name === "AbortError" ? error : unreachable();
    });
    if (response.ok) return response;
    const failure = await failureOf(response);
    if (failure.status === 401) this.#refused(failure);
    throw failure;
  }
}

function posted(body, signal) {
  return { method: "POST", body: JSON.stringify(body), signal, headers: { "content-type": "application/json" } };
}
