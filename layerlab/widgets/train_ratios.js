// How much each layer moved in one step: a bar a layer, on the log scale of all pictures.

/** Draw the bars; returns `{node, update(run, epoch)}`: of the newest step watched up to that epoch. */
function trainRatios() {
  const title = make("p", { class: "layerlab-lab-title" });
  const body = make("tbody");
  const table = make(
    "table",
    { "aria-label": "how far a step moved each layer" },
    make("thead", {}, make("tr", {}, ...["layer", "moved", "‖Δ‖/‖w‖"].map((head) => make("th", { scope: "col" }, head)))),
    body,
  );
  const legend = make("p", { class: "layerlab-notes" }, "bar: on a log scale, empty at 1e-6, full at 1; ❄ frozen");
  const node = make("section", { class: "layerlab-lab-ratios", "aria-label": "how far a step moved each layer" }, title, table, legend);

  function row([name, ratio, frozen]) {
    const lock = frozen ? make("span", { role: "img", "aria-label": "frozen", title: "frozen" }, "❄") : null;
    const fill = ratio > 0 ? Math.min(Math.max(1 + Math.log10(ratio) / 6, 0.02), 1) : 0;
    const inside = make("span", { style: `width: ${100 * fill}%` });
    const bar = ratio === null || ratio > 0 ? make("span", { class: "layerlab-bar", "aria-hidden": "true" }, inside) : null;
    const size = ratio === null ? "was 0" : short(ratio);
    return make("tr", {}, make("th", { scope: "row" }, lock, make("code", {}, name)), make("td", {}, bar), make("td", {}, size));
  }

  return {
    node,
    update(run, epoch) {
      const look = run?.ratios.findLast((one) => epoch == null || one.epoch <= epoch);
      node.hidden = !look;
      if (!look) return;
      body.style.color = run.ink;
      title.textContent = `how far a step moves each layer: run ${called(run)}, epoch ${look.epoch}, lr ${look.lr}`;
      body.replaceChildren(...look.layers.map(row));
    },
  };
}
