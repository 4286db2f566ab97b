// Text with a button that copies it.

const SELECTED = "selected: press Ctrl+C (⌘C) to copy";

export default {
  render({ model, el }) {
    // It takes the focus, so that Ctrl+C after a selection is its own and not the notebook's.
    const text = control("pre", { class: "layerlab-copy-text", tabindex: "0", "aria-label": "code" });
    const button = control("button", { type: "button", class: "layerlab-copy-button", onclick: copy });
    const said = make("span", { class: "layerlab-copy-said", role: "status" });
    const root = make("div", { class: "layerlab-copy" }, text, make("div", {}, button, said));

    async function copy() {
      const wanted = model.get("text");
      try {
        await navigator.clipboard.writeText(wanted); // not there at all on a page that is not secure
        say(wanted, "copied");
      } catch {
        text.focus();
        getSelection().selectAllChildren(text);
        say(wanted, SELECTED);
      }
    }

    /** Say what was done, unless the text is another by now. */
    function say(wanted, words) {
      if (wanted === model.get("text")) said.textContent = words;
    }

    const ends = [
      follow(model, ["text"], () => {
        text.textContent = model.get("text");
        said.textContent = "";
        root.hidden = !model.get("text");
      }),
      follow(model, ["label"], () => (button.textContent = model.get("label"))),
    ];
    el.append(root);
    return () => ends.forEach((end) => end());
  },
};
