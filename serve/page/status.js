/** The view of what is served: indices and deployments, asked for again while it is looked at. */

import { element, fill, foreign } from "./dom.js";
import { asFailure, failureBox } from "./failures.js";
import { percent } from "./text.js";

const INTERVAL_MS = 5000;
const STATES = { HEALTHY: "good", UNHEALTHY: "bad", DEPLOY_FAILED: "bad" };

export class StatusView {
  #api;
  #section = document.getElementById("status");
  #shown = "";
  #timer = 0;
  #entered = false;

  constructor(api) {
    this.#api = api;
    document.addEventListener("visibilitychange", () => this.#again(0));
  }

  /** Links to this view have no fields. */
  get fields() {
    return {};
  }

  /** Nothing to take over from a link. */
  show() {}

  /** The view has become visible: keep it up to date from now on. */
  enter() {
    this.#entered = true;
    this.#again(0);
  }

  /** The view has gone: ask no more. */
  leave() {
    this.#entered = false;
    clearTimeout(this.#timer);
  }

  #again(delay) {
    clearTimeout(this.#timer);
    if (this.#entered && !document.hidden) this.#timer = setTimeout(() => this.#refresh(), delay);
  }

  async #refresh() {
    try {
      const [status, indexes] = await Promise.all([this.#api.get("v1/status"), this.#api.get("v1/indexes")]);
      this.#draw(status, indexes.data);
    } catch (error) {
      this.#shown = "";
      fill(this.#section, failureBox(asFailure(error)));
    }
    this.#again(INTERVAL_MS);
  }

  #draw(status, indexes) {
    // What has not changed stays: a selection, a place in the text.
    const told = JSON.stringify([status, indexes]);
    if (told === this.#shown) return;
    this.#shown = told;
    const states = new Map((status.indexes ?? []).map((state) => [state.id, state]));
    fill(
      this.#section,
      table(
        "Indices",
        ["Index", "Snapshot", "Documents", "Chunks", "Coverage", "Embedder"],
        indexes.map((index) => indexRow({ ...index, ...states.get(index.id) })),
      ),
      table("Deployments", ["Deployment", "State", "Replicas"], (status.deployments ?? []).map(deploymentRow)),
    );
  }
}

function indexRow({ id, snapshot, loading, documents, chunks, coverage, embedder, default: chosen }) {
  return [
    [foreign(id), chosen && element("small", {}, "default")],
    [snapshot ?? "none yet", loading && element("span", { class: "state warn aside" }, `loading ${loading}`)],
    [documents?.toLocaleString("en") ?? "–"],
    [chunks?.toLocaleString("en") ?? "–"],
    coverageCell(coverage),
    [foreign(embedder)],
  ];
}

function coverageCell(coverage) {
  if (!coverage) return ["–"];
  const { documents, partitions_ok: ok, partitions_total: total, missing = [] } = coverage;
  const parts = `${ok} of ${total} partitions`;
  const state = element("span", { class: `state ${coverage.degraded ? "bad" : "good"}` }, percent(documents));
  return [state, element("small", {}, missing.length ? `${parts}, missing: ${missing.join(", ")}` : parts)];
}

function deploymentRow({ name, status, replicas, wanted }) {
  const short = wanted !== undefined && replicas < wanted;
  const running = wanted === undefined || wanted === replicas ? String(replicas) : `${replicas} of ${wanted}`;
  const state = element(
    "span",
    { class: `state ${STATES[status] ?? "warn"}` },
    status.toLowerCase().replaceAll("_", " "),
  );
  return [[foreign(name)], [state], short ? [element("span", { class: "state warn" }, running)] : [running]];
}

function table(title, columns, rows) {
  const cell = (content, position) =>
    element(position ? "td" : "th", { scope: position ? null : "row", "data-label": columns[position] }, ...content);
  return element(
    "table",
    {},
    element("caption", {}, title),
    element("thead", {}, element("tr", {}, ...columns.map((name) => element("th", { scope: "col" }, name)))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cell)))),
  );
}
