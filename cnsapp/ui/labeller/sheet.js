// The sheet of all keys, on ? or H.

function buildSheet(s) {
  const single = isSingle(s);
  const groups = {
    Label: [
      ["class key", single ? "label this image, show the next" : "label the selected images, or the one with the frame"],
      ["two keys", "of classes that have two: first the system, then the organ; Esc takes the first back"],
      ["/", "find a class by a part of its name"],
      ["A", single ? "accept the suggestion (also Enter)" : "accept the suggestions of the selected images"],
      ["S", "skip"],
      ["X", "unsure"],
      ["Del", "remove the label"],
    ],
    "Take back": [
      ["U", "undo your last action, as often as you like (also Ctrl Z)"],
      ["Shift U", "redo what you undid (also Ctrl Shift Z, Ctrl Y)"],
      ["Shift H", "history of the image: who said what; restore an earlier label"],
    ],
    Note: [
      ["N", "write a note"],
      ["M", "put tags on, take tags off"],
    ],
    [single ? "Move" : "Choose images"]: single
      ? [["← →", "previous, next image; while zoomed with ↑ ↓: move over the picture"], ["Home", "back to the first image"], ["PgUp PgDn", "previous, next image, also while zoomed"]]
      : [
          ["← → ↑ ↓", "move the frame; with Shift: select"],
          ["PgUp PgDn", "a screenful up, down; in the large picture: previous, next image"],
          ["Home", "first image"],
          ["End", "last image"],
          ["Space", "select or unselect the framed image"],
          ["Ctrl A", "select all on this page"],
          ["I", "invert the selection"],
          ["Esc", "select none"],
          ["click", "select one image"],
          ["Shift click", "select up to here"],
          ["Ctrl click", "add or remove one (⌘ on a Mac, long press on a tablet)"],
          ["drag", "select a box"],
        ],
    "Look closely": [
      ...(single ? [] : [["Enter", "large picture (also double click)"]]),
      ["+ −", single ? "closer, farther" : "larger, smaller pictures; in the large picture: closer, farther"],
      ["Z", "pixel for pixel, and back to the whole picture"],
      ["R", "brightness, contrast and channels as stored"],
      ["? H", "this sheet"],
    ],
    ...(s.data.review ? { "Beside the large picture": [
      [".", "saliency map: lay it over the picture, and off again"],
      [",", "evidence for the prediction, or for its label"],
      [";", "the labelled images that look most alike, large"],
      ["Shift X", "exclude the image, or take it back in"],
    ] } : {}),
  };
  s.ui.sheet.setAttribute("tabindex", "-1");
  const close = el("button", "tool", { type: "button", text: "Close", onclick: () => s.ui.sheet.close() });
  s.ui.sheet.replaceChildren(el("h3", "", { text: "Keys" }), el("div", "groups", {}, ...Object.entries(groups).map(keyGroup)), close);
}

function keyGroup([title, rows]) {
  const body = el("dl", "");
  for (const [key, what] of rows) body.append(el("dt", "", {}, el("kbd", "", { text: key })), el("dd", "", { text: what }));
  return el("section", "", {}, el("h4", "", { text: title }), body);
}
