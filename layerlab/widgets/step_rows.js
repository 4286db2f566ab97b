// The rows of a StepView: one a tensor, modules folded, as an ARIA treegrid.

const STRIP = 16; // steps whose symbols stand side by side in a row
const SHOWN_MARKS = { "⚠": "alarm", "❄": "frozen" };
const PARTS_OF_DELTA = ["gradient", "momentum", "weight decay"];

/** A symbol of the alphabet in its colour, and its word; the sentence on hover. */
function symbol(letter, word = letter.word) {
  const sign = make("span", { class: "layerlab-sign", style: `color: ${letter.ink}` }, letter.symbol);
  return make("span", { title: letter.sentence }, sign, word ? ` ${word}` : "");
}

/** Draw the rows; returns `{node, update(overview, step, tensor), reveal(tensor)}`. */
function stepRows({ choose }) {
  const columns = ["tensor", "moved", "‖Δ‖/‖w‖", "why", "steps"];
  const heads = columns.map((title) => make("th", { scope: "col", role: "columnheader" }, title));
  const body = make("tbody", { role: "rowgroup" });
  const table = make(
    "table",
    { role: "treegrid", "aria-label": "what moved in this step", class: "layerlab-rows" },
    make("thead", { role: "rowgroup" }, make("tr", { role: "row" }, ...heads)),
    body,
  );
  const opened = new Set();
  let rows = [];
  let names = "";
  let now = { overview: null, step: 0, tensor: -1 };

  const isVisible = (row) => {
    for (let up = row.parent; up; up = up.parent) if (!opened.has(up)) return false;
    return true;
  };

  function build(overview) {
    names = overview.raw.join("\n");
    rows = layOut(overview.tensors.map((tensor) => tensor[0]));
    opened.clear();
    body.replaceChildren(...rows.map(buildRow));
    if (rows.length) rows[0].node.tabIndex = 0;
  }

  function buildRow(row) {
    row.cells = columns.map((_, i) =>
      make(i ? "td" : "th", i ? { role: "gridcell" } : { role: "rowheader", scope: "row" }),
    );
    row.node = control(
      "tr",
      {
        role: "row",
        tabindex: -1,
        "aria-level": row.level,
        style: `--level: ${row.level - 1}`,
        onclick: () => act(row),
        onkeydown: (event) => onKey(event, row),
      },
      ...row.cells,
    );
    return row.node;
  }

  function act(row) {
    focus(row, false);
    if (row.tensor !== null) return choose(row.tensor === now.tensor ? -1 : row.tensor);
    if (!opened.delete(row)) opened.add(row);
    draw();
  }

  function focus(row, move = true) {
    for (const other of rows) other.node.tabIndex = other === row ? 0 : -1;
    if (move) row.node.focus();
  }

  function onKey(event, row) {
    const visible = rows.filter(isVisible);
    const at = visible.indexOf(row);
    const module = row.tensor === null;
    const moves = {
      ArrowDown: () => visible[at + 1],
      ArrowUp: () => visible[at - 1],
      Home: () => visible[0],
      End: () => visible.at(-1),
      ArrowRight: () => (module && !opened.has(row) ? act(row) : module ? visible[at + 1] : null),
      ArrowLeft: () => (module && opened.has(row) ? act(row) : row.parent),
      Enter: () => act(row),
      " ": () => act(row),
    };
    if (!(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    const next = moves[event.key]();
    if (next) focus(next);
  }

  function draw() {
    const { overview, step } = now;
    const length = Math.min(STRIP, overview.steps.length);
    const from = Math.min(Math.max(step - (STRIP >> 1), overview.first), overview.last + 1 - length);
    const shown = Array.from({ length: length > 1 ? length : 0 }, (_, i) => from + i);
    heads[4].textContent = length > 1 ? `steps ${from}…${from + length - 1}` : "";
    for (const row of rows) {
      row.node.hidden = !isVisible(row);
      if (row.node.hidden) continue;
      if (row.tensor === null) row.node.setAttribute("aria-expanded", opened.has(row));
      else row.node.setAttribute("aria-selected", row.tensor === now.tensor);
      (row.tensor === null ? drawModule : drawTensor)(row, overview, step, shown);
    }
  }

  return {
    node: table,
    update(overview, step, tensor) {
      now = { overview, step, tensor };
      if (overview.raw.join("\n") !== names) build(overview);
      draw();
    },
    /** Open and focus the row of a tensor, or the first one of a module. */
    reveal(name) {
      const { tensors } = now.overview;
      const is = (row, fits) => row.tensor !== null && fits(tensors[row.tensor][0]);
      const row =
        rows.find((one) => is(one, (other) => other === name)) ??
        rows.find((one) => is(one, (other) => other.startsWith(`${name}.`)));
      if (!row) return;
      for (let up = row.parent; up; up = up.parent) opened.add(up);
      draw();
      focus(row);
    },
  };
}

function drawTensor(row, overview, step, shown) {
  const [name, moved, ratio, why, strip] = row.cells;
  const happened = overview.row(step, row.tensor);
  const [, , shape, , type, tied] = overview.tensors[row.tensor];
  const label = make("code", { title: [`${shape} of ${type}`, ...tied].join(", tied to ") }, row.label);
  if (!happened) {
    name.replaceChildren(label);
    why.replaceChildren("not in the model in this step");
    for (const cell of [moved, ratio, strip]) cell.replaceChildren();
    return;
  }
  const { facts } = happened;
  row.node.classList.toggle("layerlab-alarmed", facts.alarmed);
  name.replaceChildren(...marks(facts.marks), label);
  moved.replaceChildren(...bar(facts, happened.ratio, overview.letters));
  ratio.replaceChildren(sized(facts, happened.ratio));
  const lrs = overview.head(step).lrs;
  const several = new Set(Object.values(lrs)).size > 1;
  const asides = several && facts.place ? [`lr ${lrs[facts.place]}`, ...facts.asides] : facts.asides;
  why.replaceChildren(
    symbol(overview.letters[facts.reason]),
    ...parts(happened, overview.letters),
    ...asides.map((said) => make("span", { class: "layerlab-aside" }, said)),
  );
  strip.replaceChildren(
    ...shown.map((one) => {
      const there = overview.row(one, row.tensor);
      const letter = there && overview.letters[there.facts.reason];
      const attributes = { class: one === step ? "layerlab-now" : "" };
      if (!letter) return make("span", attributes, " ");
      return make("span", { ...attributes, title: `step ${one}: ${letter.sentence}` }, symbol(letter, ""));
    }),
  );
}

/** A module's row sums up the tensors below it. */
function drawModule(row, overview, step, shown) {
  const [name, moved, ratio, why, strip] = row.cells;
  const there = row.below.map((tensor) => overview.row(step, tensor)).filter(Boolean);
  const alarmed = there.filter((one) => one.facts.alarmed).length;
  const frozen = there.length > 0 && there.every((one) => one.facts.marks.includes("❄"));
  row.node.classList.toggle("layerlab-alarmed", alarmed > 0);
  name.replaceChildren(
    ...marks((alarmed ? "⚠" : "") + (frozen ? "❄" : "")),
    make("code", {}, row.label),
    ` ${row.below.length} tensors`,
  );
  const moving = there.filter((one) => one.facts.moved && !one.facts.counter);
  const learned = moving.filter((one) => one.facts.parameter); // not running statistics, where there is other
  const sizes = learned.length ? learned : moving;
  const finite = sizes.filter((one) => one.ratio !== Infinity); // what was 0 before has no ratio
  const largest = (finite.length ? finite : sizes).reduce((best, one) => (best && best.ratio >= one.ratio ? best : one), null);
  moved.replaceChildren(...(largest ? bar(largest.facts, largest.ratio, overview.letters) : []));
  ratio.replaceChildren(largest ? (finite.length ? "≤ " : "") + sized(largest.facts, largest.ratio) : "0");
  const counts = new Map();
  for (const { facts } of there) {
    const letter = overview.letters[facts.reason];
    const key = letter.symbol === "○" ? "○" : facts.reason;
    counts.set(key, { letter, count: (counts.get(key)?.count ?? 0) + 1 });
  }
  const said = [...counts].map(([key, { letter, count }]) => {
    const word = key === "○" ? "stayed" : letter.word;
    return make("span", { class: "layerlab-count" }, `${count} `, symbol(letter, word));
  });
  why.replaceChildren(...said);
  strip.replaceChildren(...shown.map((one) => usual(row, overview, one, step)));
}

/** What happened to most of a module's parameters in a step; to its buffers, where only they moved. */
function usual(row, overview, one, step) {
  const there = row.below.map((tensor) => overview.row(one, tensor)).filter(Boolean);
  const learned = there.filter(({ facts }) => facts.parameter);
  const counts = new Map();
  const moved = there.filter(({ facts }) => facts.moved);
  const still = !learned.some(({ facts }) => facts.moved);
  for (const { facts } of still && moved.length ? moved : learned.length ? learned : there)
    counts.set(facts.reason, (counts.get(facts.reason) ?? 0) + 1);
  const most = [...counts].sort(([, a], [, b]) => b - a);
  const attributes = { class: one === step ? "layerlab-now" : "" };
  if (!most.length) return make("span", attributes, " ");
  const said = most.map(([reason, count]) => `${count} ${overview.letters[reason].word}`).join(", ");
  return make("span", { ...attributes, title: `step ${one}: ${said}` }, symbol(overview.letters[most[0][0]], ""));
}

function marks(signs) {
  return [...signs].map((sign) => {
    const word = SHOWN_MARKS[sign];
    return make("span", { class: `layerlab-${word}`, role: "img", "aria-label": word, title: word }, sign);
  });
}

function bar(facts, ratio, letters) {
  if (!facts.moved || facts.counter || Number.isNaN(ratio)) return [];
  const fill = ratio > 0 ? Math.min(Math.max(1 + Math.log10(ratio) / 6, 0), 1) : 0;
  const length = `${Math.max(100 * fill, 2)}%`;
  return [
    make(
      "span",
      { class: "layerlab-bar", "aria-hidden": "true" },
      make("span", { style: `width: ${length}; color: ${letters[facts.reason].ink}` }),
    ),
  ];
}

function sized(facts, ratio) {
  if (!facts.moved) return "0";
  if (facts.counter) return `by ${short(ratio)}`;
  return ratio === Infinity ? "inf (was 0)" : short(ratio);
}

/** The shares of Δ's parts, the largest first. */
function sharesOf(shares) {
  const there = shares.map((share, i) => [PARTS_OF_DELTA[i], share]).filter(([, share]) => share);
  return there.sort(([, a], [, b]) => b - a);
}

function percent(share) {
  return share < 1 ? "<1%" : `${share}%`;
}

/** The shares of Δ's parts, where more than one takes part. */
function parts({ facts, shares }, letters) {
  const there = sharesOf(shares);
  if (there.length < 2) return [];
  const said = there.map(([name, share]) => symbol({ ...letters[name], word: "" }, `${percent(share)} `));
  const sentence = `shares of Δ's parts: ${there.map(([name, share]) => `${name} ${percent(share)}`).join(", ")}`;
  return [make("span", { class: "layerlab-aside", title: sentence }, facts.sampled ? "~" : "", ...said)];
}
