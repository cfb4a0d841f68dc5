/**
 * Spans and characters of text that comes from documents.
 *
 * Spans are counted in Unicode code points, as Python counts; strings of this language are UTF-16, where a character
 * beyond U+FFFF is two units.
 */

const CONTROL = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g;
const OVERRIDE = /[\u202d\u202e]/g;

/**
 * `text` with what cannot be seen made visible: control characters as their pictures (U+2400 and on), and overrides of
 * the writing direction, which would show other text than there is, as U+FFFD. Every offset stays what it was.
 */
export function legible(text) {
  return text
    .replace(CONTROL, (character) =>
      character === "\u007f" ? "\u2421" : String.fromCharCode(0x2400 + character.charCodeAt(0)),
    )
    .replace(OVERRIDE, "\ufffd");
}

/** The UTF-16 offset of a code point of `text`; its length where the text is shorter. */
export function offsetOf(text, point) {
  let offset = 0;
  for (let passed = 0; passed < point && offset < text.length; passed += 1) {
    offset += text.codePointAt(offset) > 0xffff ? 2 : 1;
  }
  return offset;
}

/** `text` cut at two code points: what is before, between and after. */
export function cut(text, start, end) {
  const from = offsetOf(text, Math.max(0, start));
  const to = Math.max(from, offsetOf(text, Math.max(0, end)));
  return [text.slice(0, from), text.slice(from, to), text.slice(to)];
}

/** The address of a source, where it is one that a browser may follow: http or https. */
export function webAddress(source) {
  try {
    const address = new URL(source);
    return ["http:", "https:"].includes(address.protocol) ? address.href : null;
  } catch {
    return null;
  }
}

/** A share as a percentage that never rounds to the whole: 99.96 % is not 100 %. */
export function percent(share) {
  const rounded = Math.round(share * 1000) / 10;
  return `${rounded === 100 && share < 1 ? 99.9 : rounded} %`;
}

/** A number of things: "1 document", "1,204 documents". */
export function count(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}
