// What every part is drawn with: elements, buttons, numbers, and the addresses of pictures.

function el(tag, className, props = {}, ...children) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(props)) {
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const number = (n) => Number(n || 0).toLocaleString("en-US");
const images = (n) => (n === 1 ? "1 image" : `${number(n)} images`);
const thumbUrl = (row) => `/img/thumb/${row.id}?v=${row.version}`;
const viewUrl = (row) => `/img/view/${row.id}?v=${row.version}`;
const baseName = (name) => name.split("/").pop();

// A button that leaves the keyboard where it was, so that keys go on labelling after a click.
function button(name, key, title, onclick) {
  const node = el("button", "tool", { type: "button", title, onclick }, el("span", "", { text: name }));
  if (key) node.append(el("kbd", "", { text: key }));
  node.addEventListener("pointerdown", (e) => e.preventDefault());
  return node;
}
