// What the small components share; it stands before each of them in one script.

function node(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

// A number that this browser keeps between visits, such as an opacity.
function recall(key, start) {
  try {
    return Number(localStorage.getItem(key) ?? start);
  } catch {
    return start;
  }
}

function keep(key, value) {
  try {
    localStorage.setItem(key, String(value));
  } catch {
    // a browser that keeps nothing
  }
}
