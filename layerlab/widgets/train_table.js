// The table of the runs: what each was started with, what it came to, and what differs from the one above.

let layerlabTables = 0; // for the radio buttons' names, which belong to the whole page

/** Draw it; returns `{node, update(runs, chosen)}`. `choose` and `remove` get the number of a run. */
function trainTable({ each, choose, remove }) {
  const group = `layerlab-lab-${layerlabTables++}`;
  const heads = ["run", "setting", "frozen up to", "head's lr", `images of each ${each}`, "seed"];
  heads.push("test images right", "training loss", "epochs", "a step takes", "state");
  const body = make("tbody");
  const table = make(
    "table",
    { class: "layerlab-lab-table" },
    make("caption", {}, "all runs; what differs from the run above is bold"),
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)), make("td"))),
    body,
  );
  const node = make("div", { class: "layerlab-wide", hidden: true }, table);
  const rows = new Map(); // by number: rows stay, so that none loses the focus

  function build(run) {
    const radio = control("input", { type: "radio", name: group, onchange: () => choose(run.number) });
    const label = make("label", { title: "show it in the pictures" }, radio, runKey(run), ` ${run.number}`);
    const cells = heads.slice(1).map(() => make("td"));
    const drop = control("button", { type: "button", "aria-label": `remove run ${run.number}`, onclick: () => remove(run.number) }, "remove");
    const row = make("tr", {}, make("th", { scope: "row" }, label), ...cells, make("td", {}, drop));
    return { row, radio, label, cells, drop };
  }

  function fill({ row, radio, label, cells, drop }, run, above, chosen) {
    radio.checked = run.number === chosen;
    row.classList.toggle("layerlab-chosen", radio.checked);
    label.replaceChild(runKey(run), label.children[1]);
    const state = run.error ? `failed: ${run.error}` : run.state;
    const step = run.state === "running" || run.state === "paused" ? `, step ${run.step}${run.steps ? ` of ${run.steps}` : ""}` : "";
    const texts = [...run.chosen, ...run.came_to, state + (run.steps === 1 ? "" : step)];
    cells.forEach((cell, i) => {
      const differs = above && i < run.chosen.length && above.chosen[i] !== texts[i];
      cell.replaceChildren(differs ? make("strong", {}, texts[i]) : texts[i]);
    });
    drop.hidden = run.state === "running" || run.state === "paused";
  }

  return {
    node,
    update(runs, chosen) {
      const focused = [...rows].findIndex(([, { row }]) => row.contains(document.activeElement));
      const gone = [...rows.keys()].filter((number) => !runs.some((run) => run.number === number));
      for (const number of gone) {
        rows.get(number).row.remove();
        rows.delete(number);
      }
      runs.forEach((run, i) => {
        if (!rows.has(run.number)) {
          rows.set(run.number, build(run));
          body.append(rows.get(run.number).row);
        }
        fill(rows.get(run.number), run, runs[i - 1], chosen);
      });
      node.hidden = !runs.length;
      if (focused >= 0 && gone.length && !body.contains(document.activeElement)) [...rows.values()].at(Math.min(focused, rows.size - 1))?.radio.focus();
    },
  };
}
