/**
 * Which words of a text are words of the query, to mark them.
 *
 * Guaranteed: the parts joined are the text. Not guaranteed: that these are the words the server matched by: it has an
 * analyser of its own for each language, this is an aid to the eye. Endings of English words and its most common words
 * are passed over; Chinese and its neighbours match by pairs of characters.
 */

const SCRIPT = "\\p{Script=Han}\\p{Script=Hiragana}\\p{Script=Katakana}\\p{Script=Hangul}";
const RUNS = new RegExp(`[${SCRIPT}]+|(?:(?![${SCRIPT}])[\\p{L}\\p{N}\\p{M}])+`, "gu");
const PAIRED = new RegExp(`^[${SCRIPT}]`, "u");
const COMMON = new Set(
  `a an and are as at be by can do does for from how i in is it of on or that the this to was what when where which who
   why will with`.split(/\s+/),
);

/** `[{text, marked}, ...]` of a text and a query. */
export function markWords(text, query) {
  const wanted = new Set(tokens(query).map((token) => token.key));
  const parts = [];
  let reached = 0;
  const add = (end, marked) => {
    if (end <= reached) return;
    const last = parts.at(-1);
    if (last?.marked === marked) last.text += text.slice(reached, end);
    else parts.push({ text: text.slice(reached, end), marked });
    reached = end;
  };
  for (const { key, start, end } of tokens(text)) {
    if (!wanted.has(key)) continue;
    add(start, false);
    add(end, true);
  }
  add(text.length, false);
  return parts;
}

function tokens(text) {
  return [...text.matchAll(RUNS)].flatMap(({ 0: run, index }) => {
    if (PAIRED.test(run)) return pairs(run, index);
    const key = stem(run.toLowerCase());
    return COMMON.has(run.toLowerCase()) ? [] : [{ key, start: index, end: index + run.length }];
  });
}

function pairs(run, index) {
  const starts = [];
  let offset = 0;
  for (const character of run) {
    starts.push(offset);
    offset += character.length;
  }
  starts.push(offset);
  const width = Math.min(2, starts.length - 1);
  return starts.slice(0, -width).map((start, position) => {
    const end = starts[position + width];
    return { key: run.slice(start, end), start: index + start, end: index + end };
  });
}

function stem(word) {
  const shorter = word.replace(/(?:ies|y)$/, "i").replace(/(?:ing|ed|es|e|s)$/, "");
  return shorter.length >= 3 ? shorter : word;
}
