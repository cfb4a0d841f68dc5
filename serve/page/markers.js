/**
 * Which parts of an answer's text are citation markers.
 *
 * Guaranteed: the segments joined are the text; a marker stands only for a citation that has come. A citation belongs
 * to the first `[n]` of its number after the one before it, right after its quote where the answer quotes it; so
 * numbers in brackets that a quote holds by itself stay text. A further `[n]` repeats the last citation of that number.
 */

const MARKER = /\[(\d{1,4})\]/g;

/** `[{text}, {text, citation}, ...]` of an answer and the citations that have come so far, in their order. */
export function segments(text, citations) {
  const { markers, quotes } = anchored(text, citations);
  const taken = [...markers, ...quotes];
  for (const found of text.matchAll(MARKER)) {
    const start = found.index;
    if (taken.some((range) => start >= range.start && start < range.end)) continue;
    const citation = repeated(markers, citations, Number(found[1]), start);
    if (citation) markers.push({ start, end: start + found[0].length, citation });
  }
  markers.sort((one, other) => one.start - other.start);

  const parts = [];
  let reached = 0;
  for (const { start, end, citation } of markers) {
    if (start > reached) parts.push({ text: text.slice(reached, start) });
    parts.push({ text: text.slice(start, end), citation });
    reached = end;
  }
  if (reached < text.length) parts.push({ text: text.slice(reached) });
  return parts;
}

function anchored(text, citations) {
  const markers = [];
  const quotes = [];
  let reached = 0;
  for (const citation of citations) {
    const marker = `[${citation.number}]`;
    const quote = citation.quote
      .split(/[\p{White_Space}\x1c-\x1f]+/u)
      .filter(Boolean)
      .join(" ");
    const quoted = quote ? text.indexOf(`${quote} ${marker}`, reached) : -1;
    const start = quoted >= 0 ? quoted + quote.length + 1 : text.indexOf(marker, reached);
    if (start < 0) continue;
    if (quoted >= 0) quotes.push({ start: quoted, end: quoted + quote.length });
    reached = start + marker.length;
    markers.push({ start, end: reached, citation });
  }
  return { markers, quotes };
}

function repeated(markers, citations, number, start) {
  const before = markers.filter((marker) => marker.citation.number === number && marker.start < start);
  return before.at(-1)?.citation ?? citations.find((citation) => citation.number === number);
}
