/** Say something to those who listen to the page rather than look at it. */
export function announce(text) {
  document.getElementById("announcement").textContent = text;
}
