/**
 * Server-sent events, parsed as they come.
 *
 * Guaranteed: the same events however the bytes are cut into pieces. Names, ids and retry times of events are not
 * read: a stream of answers has none.
 */

/** Collects text and gives the data of every event that is complete. */
export class EventParser {
  #rest = "";
  #data = [];

  /** The data of the events that end in what has come so far. */
  push(text) {
    const events = [];
    // A carriage return at the end may be half of a line's end.
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop();
    for (const line of lines) {
      if (line === "" && this.#data.length) events.push(this.#data.splice(0).join("\n"));
      else if (line.startsWith("data:")) this.#data.push(line.slice(line[5] === " " ? 6 : 5));
    }
    return events;
  }
}

/**
 * The data of each event of a response's body; leaving the loop early cancels the request.
 */
export async function* eventsOf(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  const parser = new EventParser();
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield* parser.push(value);
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}
