// A small field over the pictures, for a moment: find a class, write a note, put on tags.

function openPopup(s, className, label, ...children) {
  closePopup(s);
  const root = el("div", `popup ${className}`, { role: "dialog", "aria-label": label }, ...children);
  root.addEventListener("keydown", (e) => {
    if (e.key === "Escape" && !e.isComposing) e.preventDefault(), closePopup(s);
    e.stopPropagation(); // what is typed here means nothing to the page around us
  });
  const stop = new AbortController();
  const away = (e) => !e.composedPath().includes(root) && closePopup(s, false);
  document.addEventListener("pointerdown", away, { signal: stop.signal, capture: true });
  s.popup = { root, stop, name: className };
  (s.big && s.big.open ? s.big : s.ui.stage).append(root);
  return root;
}

function closePopup(s, back = true) {
  if (!s.popup) return;
  const { root, stop } = s.popup;
  s.popup = null;
  stop.abort();
  root.remove();
  if (back) takeKeyboard(s);
}

// A field with a list under it, of which the arrows choose: {root, input, list, fill}.
// `optionsFor(text)` returns [{key, text, node, pick}]; Enter picks the marked one, or `other(text)`.
function comboBox(label, placeholder, optionsFor, other = () => {}) {
  const id = `list-${randomId()}`;
  const input = el("input", "", {
    type: "text", role: "combobox", "aria-label": label, "aria-expanded": "true", "aria-autocomplete": "list",
    "aria-controls": id, placeholder, autocomplete: "off", autocapitalize: "off", spellcheck: "false",
  });
  const list = el("div", "options", { role: "listbox", id, "aria-label": label });
  const box = { input, list, options: [], at: -1, root: el("div", "combo", {}, input, list) };
  const mark = (to) => {
    box.at = box.options.length ? (to + box.options.length) % box.options.length : -1;
    box.options.forEach((o, i) => o.node.setAttribute("aria-selected", String(i === box.at)));
    const marked = box.options[box.at];
    if (marked) input.setAttribute("aria-activedescendant", marked.node.id), marked.node.scrollIntoView({ block: "nearest" });
    else input.removeAttribute("aria-activedescendant");
  };
  box.fill = () => {
    const { options, first = 0, more = "" } = optionsFor(input.value);
    box.options = options;
    options.forEach(({ node, pick }, i) => {
      node.id = `${id}-${i}`;
      node.setAttribute("role", "option");
      node.addEventListener("pointerdown", (e) => e.preventDefault());
      node.addEventListener("click", pick);
    });
    list.replaceChildren(...options.map((o) => o.node));
    if (more) list.append(el("p", "", { text: more }));
    mark(first);
  };
  input.addEventListener("input", box.fill);
  input.addEventListener("keydown", (e) => {
    const step = { ArrowDown: 1, ArrowUp: -1, PageDown: 8, PageUp: -8 }[e.key];
    if (step && box.options.length) {
      const far = Math.abs(step) > 1;
      mark(far ? Math.max(0, Math.min(box.options.length - 1, box.at + step)) : box.at < 0 && step < 0 ? -1 : box.at + step);
    } else if (e.key === "Enter" && !e.isComposing) {
      if (box.options[box.at]) box.options[box.at].pick();
      else other(input.value);
    } else return;
    e.preventDefault();
  });
  return box;
}
