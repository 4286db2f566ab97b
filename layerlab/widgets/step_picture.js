// The pictures of a StepView: before, after, Δ, its parts, the gradient and the optimizer's state.

const BLUE = [0, 114, 178]; // negative
const VERMILLION = [213, 94, 0]; // positive
const FAINTEST = 0.15; // share of full colour of the smallest number above zero: white is zero, exactly
const WRITTEN = { rows: 12, columns: 6 }; // values are written into the cells up to this size
const CELL = { width: 50, height: 22 }; // pixels of a cell with its value in it: seven characters
const SIDE = 220; // pixels that a larger picture takes along its longer side

/** Draw one grid of numbers; `point(cell)` is called with the cell under the pointer, or null. */
function drawPicture(title, values, pictures, scale, said, point) {
  const { rows, columns } = pictures;
  const written = rows <= WRITTEN.rows && columns <= WRITTEN.columns;
  const width = written ? CELL.width * columns : Math.max(Math.min(SIDE, 20 * columns), 20);
  const height = written ? CELL.height * rows : Math.max(Math.min((width / columns) * rows, SIDE), Math.min(20, SIDE));
  const sharp = written ? 2 : 1;
  const canvas = control("canvas", {
    tabindex: 0,
    role: "img",
    width: written ? sharp * width : columns,
    height: written ? sharp * height : rows,
    style: `width: ${width}px; height: ${height}px`,
    "data-cells": `${columns} ${rows}`,
    "aria-label": `${title}, ${rows} by ${columns} cells, ${said}; arrow keys read single values below`,
  });
  const pen = canvas.getContext("2d");
  if (written) writeCells(pen, values, pictures, scale, sharp);
  else pen.putImageData(new ImageData(coloured(values, scale), columns, rows), 0, 0);
  const frame = make("span", { class: "layerlab-cell", hidden: true });
  const mark = (cell) => {
    frame.hidden = cell === null;
    if (cell === null) return;
    const [down, across] = [Math.floor(cell / columns), cell % columns];
    frame.style.cssText =
      `left: ${(across / columns) * width}px; top: ${(down / rows) * height}px; ` +
      `width: ${Math.max(width / columns, 3)}px; height: ${Math.max(height / rows, 3)}px`;
  };
  listen(canvas, rows, columns, point);
  const caption = make("figcaption", {}, make("strong", {}, title), make("span", {}, said));
  const node = make("figure", {}, caption, make("div", { class: "layerlab-canvas" }, canvas, frame));
  return { node, mark };
}

function listen(canvas, rows, columns, point) {
  let at = null;
  const go = (cell) => point((at = cell));
  canvas.addEventListener("pointermove", (event) => {
    const box = canvas.getBoundingClientRect();
    const across = Math.floor(((event.clientX - box.left) / box.width) * columns);
    const down = Math.floor(((event.clientY - box.top) / box.height) * rows);
    if (across >= 0 && across < columns && down >= 0 && down < rows) go(down * columns + across);
  });
  canvas.addEventListener("pointerleave", () => go(null));
  canvas.addEventListener("focus", () => go(at ?? 0));
  canvas.addEventListener("blur", () => go(null));
  canvas.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns }[event.key];
    if (by === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    const next = (at ?? 0) + by;
    if (next >= 0 && next < rows * columns) go(next);
  });
}

/** RGB of one number, as in the figures of layerlab: white is zero, grey is NaN or inf. */
function colour(value, scale) {
  if (!Number.isFinite(value)) return [191, 191, 191];
  if (value === 0) return [255, 255, 255];
  const share = FAINTEST + (1 - FAINTEST) * Math.min(scale > 0 ? Math.abs(value) / scale : 0, 1);
  return (value < 0 ? BLUE : VERMILLION).map((end) => Math.round(255 - share * (255 - end)));
}

function coloured(values, scale) {
  const pixels = new Uint8ClampedArray(4 * values.length);
  values.forEach((value, i) => pixels.set([...colour(value, scale), 255], 4 * i));
  return pixels;
}

function writeCells(pen, values, { columns }, scale, sharp) {
  pen.scale(sharp, sharp);
  pen.font = "11px monospace";
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  values.forEach((value, i) => {
    const [x, y] = [CELL.width * (i % columns), CELL.height * Math.floor(i / columns)];
    const rgb = colour(value, scale);
    pen.fillStyle = `rgb(${rgb})`;
    pen.fillRect(x, y, CELL.width, CELL.height);
    pen.fillStyle = 0.299 * rgb[0] + 0.587 * rgb[1] + 0.114 * rgb[2] < 140 ? "white" : "black";
    pen.fillText(inFewSigns(value), x + CELL.width / 2, y + CELL.height / 2);
  });
}

/** At most seven characters, which fit into a cell: `0.043`, `-3.7e-4`. */
function inFewSigns(value) {
  const said = short(value);
  if (!said.includes("e") && said.length <= 7) return said;
  const written = [1, 0].map((digits) => value.toExponential(digits).replace("e+", "e").replace(".0e", "e"));
  return written.find((one) => one.length <= 7) ?? written[1];
}

/** All pictures of one tensor in one step; `scaleOf(name)` says what full colour means. Returns the node. */
function stepPictures(pictures, step, scaleOf, letters) {
  const numbers = Object.fromEntries(
    pictures.channels.map((name) => [name, readPicture(pictures, name, step)]).filter(([, values]) => values),
  );
  const scales = Object.fromEntries(pictures.channels.map((name) => [name, scaleOf(name)]));
  const parts = Object.keys(numbers).filter((name) => name.endsWith(" part of Δ"));
  const ofDelta = Math.max(scales["Δ"], ...parts.map((name) => scales[name]));
  const others = Object.keys(numbers).filter((name) => !["before", "after", "Δ", ...parts].includes(name));
  const status = make("p", { class: "layerlab-value", role: "status" });
  const hint = "point at a cell, or reach a picture with Tab and use the arrow keys, to read its values";
  status.textContent = hint;
  const drawn = [];
  const point = (cell) => {
    for (const one of drawn) one.mark(cell);
    if (cell === null) status.textContent = hint;
    else {
      const said = Object.entries(numbers).map(([name, values]) => `${name} ${short(values[cell], 5)}`);
      status.textContent = `element ${elementAt(pictures, step, cell)}: ${said.join(", ")}`;
    }
  };
  const draw = (name, scale, said, title = name) => {
    const odd = numbers[name].filter((value) => !Number.isFinite(value)).length;
    const words = `${said}${odd ? `; ${odd} NaN or inf in grey` : ""}`;
    drawn.push(drawPicture(title, numbers[name], pictures, scale, words, point));
    return drawn.at(-1).node;
  };
  const isZero = (name) => numbers[name].every((value) => value === 0);
  const moved = pictures.moved[pictures.steps.indexOf(step)];
  const of = `${moved} of ${pictures.total} element${pictures.total === 1 ? "" : "s"} moved`;
  const over = pictures.count > 1 ? " in all steps" : ""; // one scale: a slide shows what changes
  const both = `scale ±${short(scales.before)}, one for both${over}`;
  const delta = moved ? `${of}, scale ±${short(ofDelta)}${over}` : "did not move: 0 everywhere";
  const rows = [[draw("before", scales.before, both), draw("after", scales.before, both), draw("Δ", ofDelta, delta)]];
  const there = parts.filter((name) => !isZero(name));
  if (moved && there.length) {
    const zero = parts.filter(isZero).map((name) => name.replace(" of Δ", ""));
    const sum = make("p", {}, "Δ = ", ...there.flatMap((name, i) => [i ? " + " : "", named(name, letters)]));
    if (zero.length) sum.append(` (${zero.join(", ")}: 0)`);
    const shown = there.length > 1 ? there : [];
    rows.push([sum, ...shown.map((name) => draw(name, ofDelta, `scale ±${short(ofDelta)}, as Δ`))]);
  }
  if (others.length)
    rows.push(others.map((name) => draw(name, scales[name], isZero(name) ? "0 everywhere" : `scale ±${short(scales[name])}${over}`)));
  const notes = [...pictures.notes, "blue is negative, white exactly 0, orange positive"];
  return make(
    "div",
    { class: "layerlab-pictures" },
    ...rows.map((row) => make("div", {}, ...row)),
    status,
    make("p", { class: "layerlab-notes" }, notes.join("; ")),
  );
}

function named(name, letters) {
  const letter = letters[name.replace(" part of Δ", "")];
  return symbol(letter, name.replace(" of Δ", ""));
}
