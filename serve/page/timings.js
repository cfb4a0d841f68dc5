/**
 * Where the time of a request went, as a bar of its stages.
 *
 * Guaranteed: the parts add up to the total, or, where the server's stages overlap, to their own sum; a stage is never
 * drawn beside the stages that it consists of. The time to the first word is a point in time, not a stage.
 */

import { element } from "./dom.js";

const PARTS = new Map([
  ["retrieve", ["embed", "statistics", "candidates", "merge", "rows"]],
  ["generate", ["prompt", "select", "judge"]],
]);
const ORDER = [
  "condense",
  "embed",
  "statistics",
  "candidates",
  "merge",
  "rows",
  "retrieve",
  "rerank",
  "prompt",
  "select",
  "judge",
  "generate",
];
const NEGLIGIBLE_MS = 0.05;

/** `{total, firstToken, parts: [{name, ms}]}` of a reply's timings, in milliseconds and in the order of the work. */
export function stages(timings) {
  const { total, first_token: firstToken = null, ...named } = timings;
  const place = (name) => (ORDER.includes(name) ? ORDER.indexOf(name) : ORDER.indexOf("rerank") + 0.5);
  const parts = Object.keys(named)
    .sort((one, other) => place(one) - place(other))
    .map((name) => ({ name, ms: named[name] - sum((PARTS.get(name) ?? []).map((part) => named[part] ?? 0)) }))
    .filter(({ name, ms }) => ms > NEGLIGIBLE_MS || !PARTS.has(name))
    .map(({ name, ms }) => ({ name: ms < named[name] ? `${name}, rest` : name, ms }));
  const known = sum(parts.map((part) => part.ms));
  const whole = total ?? known;
  if (whole - known > NEGLIGIBLE_MS) parts.push({ name: "other", ms: whole - known });
  return { total: whole, firstToken, parts };
}

/** Milliseconds as they are shown: to a tenth below ten, else whole. */
export function milliseconds(ms) {
  return `${ms < 10 ? ms.toFixed(1) : Math.round(ms).toLocaleString("en")} ms`;
}

/** The bar of a reply's timings with its legend; null when there are none. */
export function timingBar(timings) {
  if (!timings || !Object.keys(timings).length) return null;
  const { total, firstToken, parts } = stages(timings);
  const bar = element("div", { class: "bar", "aria-hidden": "true" });
  for (const { name, ms } of parts) {
    const drawn = element("span", { class: `stage ${colour(name)}` });
    drawn.style.flexGrow = String(ms);
    bar.append(drawn);
  }
  const drawnMs = Math.max(total, sum(parts.map((part) => part.ms)));
  if (firstToken !== null && drawnMs > 0) {
    const point = element("span", { class: "first-token" });
    point.style.insetInlineStart = `${Math.min(100, (100 * firstToken) / drawnMs)}%`;
    bar.append(point);
  }
  const legend = element("ul", { class: "legend" });
  legend.append(entry("total", total, "total"));
  if (firstToken !== null) legend.append(entry("first word", firstToken, "first"));
  for (const { name, ms } of parts) legend.append(entry(name, ms, colour(name)));
  return element("figure", { class: "timing", "aria-label": "Time by stage" }, bar, legend);
}

function entry(name, ms, kind) {
  const swatch = element("i", { class: `swatch ${kind}`, "aria-hidden": "true" });
  return element("li", {}, swatch, name, " ", element("b", {}, milliseconds(ms)));
}

function colour(name) {
  const stage = name.replace(/, rest$/, "");
  return ORDER.includes(stage) ? `stage-${stage}` : "stage-other";
}

function sum(numbers) {
  return numbers.reduce((total, number) => total + number, 0);
}
