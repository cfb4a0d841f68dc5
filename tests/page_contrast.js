// Evaluates to a line for every visible text, and every edge of a field, whose contrast is too low.
(() => {
  const channels = (colour) => colour.match(/[\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
  const behind = (element) => {
    if (!element) return [255, 255, 255];
    const own = channels(getComputedStyle(element).backgroundColor);
    return own[3] === undefined || own[3] === 1 ? own.slice(0, 3) : over(own, behind(element.parentElement));
  };
  const luminance = (colour) => {
    const linear = colour
      .map((value) => value / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const contrast = (colour, ground) => {
    const [high, low] = [luminance(over(channels(colour), ground)), luminance(ground)].sort((a, b) => b - a);
    return (high + 0.05) / (low + 0.05);
  };
  const visible = (element) => element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  const low = [];
  const check = (what, colour, ground, least) => {
    const found = contrast(colour, ground);
    if (found < least) low.push(`${what}: ${found.toFixed(2)} < ${least}`);
  };
  let texts = 0;
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const text = walker.currentNode.data.trim();
    if (!text || !visible(element) || element.closest(".unseen")) continue;
    const style = getComputedStyle(element);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    check(
      `${element.className || element.tagName} "${text.slice(0, 30)}"`,
      style.color,
      behind(element),
      large ? 3 : 4.5,
    );
    texts += 1;
  }
  for (const field of document.querySelectorAll("input, textarea, select")) {
    if (!visible(field)) continue;
    const placeholder = getComputedStyle(field, "::placeholder").color;
    if (field.placeholder) check(`placeholder of ${field.id}`, placeholder, behind(field), 4.5);
    const edge = getComputedStyle(field).borderTopColor;
    if (field.type !== "checkbox" && !field.disabled)
      check(`edge of ${field.id}`, edge, behind(field.parentElement), 3);
  }
  if (texts < 3) low.push(`only ${texts} texts were found`);
  return low;
})();
