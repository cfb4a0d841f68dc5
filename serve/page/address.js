/**
 * The state of the page in the fragment of its address, so that a link shows what its sender saw.
 *
 * Guaranteed: a key in the fragment is taken out of the address at once and never written into it.
 */

/** The fields of a fragment such as `#tab=search&q=...`; a plus sign means itself. */
export function parse(fragment) {
  const fields = {};
  for (const part of fragment.replace(/^#/, "").split("&").filter(Boolean)) {
    const [name, ...value] = part.split("=");
    fields[decoded(name)] = decoded(value.join("="));
  }
  return fields;
}

/** The fragment of fields, those without a value left out. */
export function format(fields) {
  const parts = Object.entries(fields).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  return parts.map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`).join("&");
}

/** The fields of the address; `takeKey` is called with its key, which is removed. */
export function read(takeKey) {
  const { key, ...fields } = parse(location.hash);
  if (key !== undefined) {
    history.replaceState(null, "", address(fields));
    takeKey(key);
  }
  return fields;
}

/** Show fields in the address, in place of those there. */
export function replace(fields) {
  history.replaceState(null, "", address(fields));
}

/** Show fields in the address such that "back" leads to those there now. */
export function push(fields) {
  if (`#${format(fields)}` !== location.hash) history.pushState(null, "", address(fields));
}

function address(fields) {
  const fragment = format(fields);
  return location.pathname + location.search + (fragment && `#${fragment}`);
}

function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}
