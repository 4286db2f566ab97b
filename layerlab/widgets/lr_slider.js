// A learning rate on a log scale. It sends what the learner does, never what it was told to show.

export default {
  render({ model, el }) {
    const view = Math.random().toString(36).slice(2); // answers go to every view of the widget
    let sent = 0;
    let waiting = null; // the number of the last move, until the kernel has answered it

    const label = make("span", { class: "layerlab-lr-label", "aria-hidden": "true" });
    const slider = control("input", { type: "range", step: "1", class: "layerlab-lr-range", oninput: move });
    const said = make("span", { class: "layerlab-lr-said", "aria-hidden": "true" });
    const [error, endErrors] = showErrors(model);
    el.append(make("div", { class: "layerlab-lr" }, label, slider, said), error);

    function move() {
      const number = `${view}-${++sent}`;
      if (!tell(model, { kind: "moved", to: Number(slider.value), number })) return update();
      waiting = number;
      say(String(Number((10 ** (slider.value / 10)).toPrecision(5))));
    }

    function answer(message) {
      if (message?.kind !== "answered" || message.number !== waiting) return;
      waiting = null;
      update();
    }

    function say(text) {
      said.textContent = text;
      slider.setAttribute("aria-valuetext", text);
    }

    function update() {
      label.textContent = model.get("label");
      slider.setAttribute("aria-label", model.get("label"));
      slider.title = model.get("hint");
      slider.disabled = model.get("disabled");
      [slider.min, slider.max] = model.get("ends");
      if (waiting !== null) return; // the learner's hand is ahead of the kernel
      slider.value = model.get("position");
      say(model.get("said"));
    }

    model.on("msg:custom", answer);
    const end = follow(model, ["label", "hint", "disabled", "ends", "position", "said"], update);
    return () => {
      end();
      endErrors();
      model.off("msg:custom", answer);
    };
  },
};
