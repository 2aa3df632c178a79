// Where one was in a grid: frame, selection and scroll place of each page, for when one comes back.

const PLACE = "cnsapp.place.";
const NEAR = 12; // images behind the frame that it may move on to, where its own is not there any more

const placeKey = (s) => `${PLACE}${s.data.mode} ${location.pathname}${location.search}`;

// Keeps it under the address that these images were shown at: the page may be leaving it already.
function rememberPlace(s) {
  if (isSingle(s) || !s.images.length || !s.placeKey) return;
  const place = {
    near: s.images.slice(s.focus, s.focus + NEAR).map((row) => row.id),
    selected: s.used ? [] : [...s.selected],
    scroll: s.scrolledTo || 0,
  };
  try { sessionStorage.setItem(s.placeKey, JSON.stringify(place)); } catch (error) { /* not remembered */ }
}

// Other images have come: put frame and selection where they were, if one has been here before.
function recallPlace(s) {
  s.placeKey = placeKey(s);
  s.placeDue = null;
  let place = null;
  try { place = JSON.parse(sessionStorage.getItem(s.placeKey) || "null"); } catch (error) { /* none */ }
  const found = place ? place.near.find((id) => s.at.has(id)) : undefined;
  if (found === undefined) return;
  s.focus = s.anchor = s.at.get(found);
  s.selected = new Set(place.selected.filter((id) => s.at.has(id)));
  s.placeDue = place.scroll;
}

// After the component has its height.
function showPlace(s) {
  if (s.placeDue === null || s.placeDue === undefined || !s.images[s.focus]) return;
  s.ui.scroller.scrollTop = s.placeDue;
  s.cells.get(s.images[s.focus].id).root.scrollIntoView({ block: "nearest" });
  s.placeDue = null;
}
