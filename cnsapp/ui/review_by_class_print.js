// A button that prints the page; the file that is offered then has the sheet's name.
const BUTTONS = new WeakMap();

export default function ({ data, parentElement }) {
  let button = BUTTONS.get(parentElement);
  if (!button) {
    button = document.createElement("button");
    button.type = "button";
    button.textContent = "Print this page";
    parentElement.append(button);
    BUTTONS.set(parentElement, button);
  }
  button.onclick = () => {
    const title = document.title;
    addEventListener("afterprint", () => (document.title = title), { once: true });
    document.title = data.title;
    print();
  };
  return () => {
    button.remove();
    BUTTONS.delete(parentElement);
  };
}
