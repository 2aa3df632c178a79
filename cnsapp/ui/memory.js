// Keeps one word in this browser's own store, and hands it back when the page has none.
const ASKED = new WeakSet();

export default function ({ data, parentElement, setStateValue }) {
  const place = `cnsapp.${data.name}`;
  try {
    if (data.forget) {
      localStorage.removeItem(place);
      setStateValue("kept", "");
    } else if (data.value) {
      localStorage.setItem(place, data.value);
    } else if (!ASKED.has(parentElement)) {
      ASKED.add(parentElement);
      const kept = localStorage.getItem(place);
      if (kept) setStateValue("kept", kept);
    }
  } catch {
    // a browser that keeps nothing: the address still does
  }
}
