// The two pictures of all runs, one above the other: share of test images right, and training loss.

const WIDE = 640;
const HIGH = 360;
const LEFT = 54; // texts keep their size where the picture is narrower: room for them
const RIGHT = 470; // behind it, the names of the lines
const RIGHT_BOX = { top: 24, bottom: 196 };
const LOSS_BOX = { top: 238, bottom: 324 };
const LINE = 18; // as much stands between two names at least
const DASHES = ["none", "7 4", "2 3", "10 3 2 3", "5 2 2 2 2 2"];
const MARKS = ["M-4-4 4 4M-4 4 4-4", "M-4-4H4V4H-4Z", "M0-5 5 0 0 5-5 0Z", "M-5-4H5L0 5Z", "M-5 0H5M0-5V5"];

function drawn(tag, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

/** The line and the mark of a run, as a key. */
function runKey(run) {
  const line = drawn("path", { d: "M0 8H34", "stroke-dasharray": DASHES[run.again % DASHES.length] });
  const mark = drawn("path", { d: MARKS[run.mark], transform: "translate(17 8)", class: "layerlab-mark" });
  return drawn("svg", { class: "layerlab-key", width: 34, height: 16, "aria-hidden": "true", style: `color: ${run.ink}` }, line, mark);
}

const inPercent = (share) => `${(100 * share).toFixed(1)} %`;
const called = (run) => `${run.number} ${run.name}`;

/** A text of the picture, by its middle line; `side` is where the place lies: left, center or right of it. */
function textAt(x, y, text, side, kind = "", ink = "") {
  const place = `left: ${(100 * x) / WIDE}%; top: ${(100 * y) / HIGH}%`;
  return make("span", { class: `layerlab-${side} ${kind}`, style: ink ? `${place}; color: ${ink}` : place }, text);
}

/** Of each run the epochs as places on the axis: epochs where they are alike in all runs, steps else. */
function placed(runs) {
  const begun = runs.filter((run) => run.steps);
  const alike = new Set(begun.map((run) => run.steps)).size < 2;
  const width = (run) => (alike ? 1 : (run.steps ?? 1));
  const longest = Math.max(1, ...runs.map((run) => run.until * width(run)));
  const lines = runs.map((run) => {
    const points = run.loss.map((loss, i) => ({ x: (i + 1) * width(run), epoch: i + 1, loss, right: run.right[i] }));
    return { run, points };
  });
  const stops = [...new Set(lines.flatMap(({ points }) => points.map(({ x }) => x)))].sort((a, b) => a - b);
  return { lines, longest, stops, unit: alike ? "epoch" : "step" };
}

/** Round steps for an axis: at most five of them. */
function ticks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

/** An axis for losses, from 0 at its bottom to 1 at its top: by powers of ten where they fall by many. */
function lossScale(losses) {
  const [low, high] = [Math.min(...losses.filter((one) => one > 0)), Math.max(...losses)];
  if (!(high > 0)) return { title: "training loss", at: (loss) => loss, ticks: ticks(0, 1) };
  if (high / low < 50) return { title: "training loss", at: (loss) => loss / (1.05 * high), ticks: ticks(0, 1.05 * high) };
  const [bottom, top] = [Math.floor(Math.log10(low)), Math.log10(high) + 0.1];
  const every = Math.ceil((top - bottom) / 5);
  const powers = Array.from({ length: Math.floor((top - bottom) / every) + 1 }, (_, i) => 10 ** (bottom + i * every));
  const at = (loss) => Math.max(0, (Math.log10(loss) - bottom) / (top - bottom));
  return { title: "training loss (log scale)", at, ticks: powers };
}

/** Draw the pictures; returns `{node, update(runs, chosen)}`; `moved(run, epoch)` tells where the pointer is. */
function trainCurves({ moved }) {
  const picture = drawn("svg", { viewBox: `0 0 ${WIDE} ${HIGH}`, "aria-hidden": "true" });
  const texts = make("div", { "aria-hidden": "true" }); // not in the SVG: they keep their size
  const plot = control(
    "div",
    {
      class: "layerlab-lab-plot",
      role: "slider",
      tabindex: 0,
      onkeydown: onKey,
      onpointermove: onPointer,
      onpointerleave: () => byPointer && seek(null),
    },
    picture,
    texts,
  );
  const caption = make("figcaption", {});
  const node = make("figure", { class: "layerlab-lab-curves" }, plot, caption);
  let now = placed([]);
  let chosen = null;
  let at = null; // where the reader points, or null
  let byPointer = false; // or by key: then it stays when the pointer goes by

  function seek(place, pointed = false) {
    [at, byPointer] = [place, pointed];
    draw();
    moved(place === null ? null : (run) => pointAt(now.lines.find((line) => line.run.number === run)?.points ?? [])?.epoch);
  }

  function onPointer(event) {
    const box = picture.getBoundingClientRect();
    const x = ((event.clientX - box.left) * WIDE) / box.width;
    const place = ((x - LEFT) / (RIGHT - LEFT)) * now.longest;
    const near = now.stops.reduce((best, one) => (Math.abs(one - place) < Math.abs(best - place) ? one : best), now.stops[0]);
    if (near !== undefined && near !== at) seek(near, true);
  }

  function onKey(event) {
    const stops = now.stops;
    const here = at === null ? stops.length - 1 : stops.indexOf(at);
    const to = {
      ArrowRight: here + 1,
      ArrowUp: here + 1,
      ArrowLeft: here - 1,
      ArrowDown: here - 1,
      PageUp: here + 5,
      PageDown: here - 5,
      Home: 0,
      End: stops.length - 1,
      Escape: null,
    }[event.key];
    if (to === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    event.stopPropagation();
    if (stops.length) seek(to === null ? null : stops[Math.min(Math.max(to, 0), stops.length - 1)]);
  }

  const pointAt = (points) => points.findLast(({ x }) => at === null || x <= at);

  /** One run in words, at the place pointed at or at its end. */
  function inWords({ run, points }) {
    const here = pointAt(points);
    if (!here) return `${called(run)}: –`;
    const measured = points.findLast(({ x, right }) => x <= here.x && right !== null);
    const right = !measured ? "not measured yet" : `${inPercent(measured.right)} right${measured === here ? "" : ` (epoch ${measured.epoch})`}`;
    return `${called(run)}: ${right}, loss ${here.loss === null ? "not finite" : short(here.loss)}`;
  }

  function draw() {
    const { lines, longest, stops, unit } = now;
    const x = (place) => LEFT + ((RIGHT - LEFT) * place) / longest;
    const shares = lines.flatMap(({ points }) => points.map(({ right }) => right)).filter((right) => right !== null);
    const low = shares.length ? Math.max(0, Math.floor(Math.min(...shares) * 10 - 0.2) / 10) : 0;
    const loss = lossScale(lines.flatMap(({ points }) => points.map((point) => point.loss)).filter((one) => one !== null));
    const rightAt = (share) => RIGHT_BOX.bottom - ((RIGHT_BOX.bottom - RIGHT_BOX.top) * (share - low)) / (1 - low || 1);
    const lossAt = (value) => LOSS_BOX.bottom - (LOSS_BOX.bottom - LOSS_BOX.top) * loss.at(value);
    const wholes = ticks(0, longest).filter(Number.isInteger);
    const shareTicks = ticks(low, 1).map((share) => [rightAt(share), `${Math.round(100 * share)} %`]);
    const lossTicks = loss.ticks.map((one) => [lossAt(one), short(one)]);
    const parts = [...shareTicks, ...lossTicks].map(([y]) => drawn("path", { class: "layerlab-grid", d: `M${LEFT} ${y}H${RIGHT}` }));
    texts.replaceChildren(
      textAt(LEFT, RIGHT_BOX.top - 13, "test images right", "left", "layerlab-lab-title"),
      textAt(LEFT, LOSS_BOX.top - 13, loss.title, "left", "layerlab-lab-title"),
      ...[...shareTicks, ...lossTicks].map(([y, text]) => textAt(LEFT - 6, y, text, "right")),
      ...wholes.map((one) => textAt(x(one), LOSS_BOX.bottom + 12, String(one), "center")),
      textAt(RIGHT, LOSS_BOX.bottom + 28, unit === "epoch" ? "epochs" : "steps of the optimizer", "right"),
      ...names(lines, x, rightAt, parts),
    );
    if (at !== null) parts.push(drawn("path", { class: "layerlab-cursor", d: `M${x(at)} ${RIGHT_BOX.top}V${LOSS_BOX.bottom}` }));
    const ordered = [...lines].sort((a, b) => (a.run.number === chosen) - (b.run.number === chosen));
    for (const line of ordered) parts.push(curve(line, x, rightAt, lossAt));
    picture.replaceChildren(...parts);
    say(stops, unit);
  }

  function curve({ run, points }, x, rightAt, lossAt) {
    const dash = { "stroke-dasharray": DASHES[run.again % DASHES.length] };
    const measured = points.filter(({ right }) => right !== null).map((point) => [x(point.x), rightAt(point.right)]);
    const lost = points.filter((point) => point.loss !== null).map((point) => [x(point.x), lossAt(point.loss)]);
    const path = (these) => drawn("path", { ...dash, d: these.map((one, i) => `${i ? "L" : "M"}${one[0].toFixed(1)} ${one[1].toFixed(1)}`).join("") });
    const mark = ([a, b]) => drawn("path", { class: "layerlab-mark", d: MARKS[run.mark], transform: `translate(${a} ${b})` });
    const kind = `layerlab-curve${run.number === chosen ? " layerlab-chosen" : ""}`;
    return drawn("g", { class: kind, style: `color: ${run.ink}` }, path(measured), path(lost), ...measured.map(mark), ...lost.slice(-1).map(mark));
  }

  /** The name of each line, at the right edge: pushed apart where two would meet, and led to from its end. */
  function names(lines, x, rightAt, parts) {
    const ends = lines.flatMap(({ run, points }) => {
      const last = points.findLast(({ right }) => right !== null);
      return last ? [{ run, x: x(last.x), end: rightAt(last.right), y: rightAt(last.right) }] : [];
    });
    ends.sort((a, b) => a.y - b.y);
    ends.forEach((end, i) => (end.y = Math.max(end.y, i ? ends[i - 1].y + LINE : 0)));
    ends.reverse().forEach((end, i) => (end.y = Math.min(end.y, i ? ends[i - 1].y - LINE : RIGHT_BOX.bottom + 6)));
    return ends.map(({ run, x, end, y }) => {
      const lead = `M${(x + 7).toFixed(1)} ${end.toFixed(1)}L${RIGHT + 7} ${y.toFixed(1)}`;
      if (RIGHT - x > 8) parts.push(drawn("path", { class: "layerlab-lead", d: lead, style: `color: ${run.ink}` }));
      const kind = run.number === chosen ? "layerlab-name layerlab-chosen" : "layerlab-name";
      return textAt(RIGHT + 9, y, called(run), "left", kind, run.ink);
    });
  }

  function say(stops, unit) {
    const shown = now.lines.filter(({ points }) => points.length);
    const here = at ?? stops.at(-1) ?? 0;
    const words = shown.map(inWords);
    const when = at === null ? "Now" : `After ${unit} ${here}`;
    caption.textContent = words.length ? `${when}: ${words.join("; ")}.` : "Nothing to draw yet.";
    plot.setAttribute("aria-label", `curves, by ${unit}`);
    plot.setAttribute("aria-valuemin", stops[0] ?? 0);
    plot.setAttribute("aria-valuemax", stops.at(-1) ?? 0);
    plot.setAttribute("aria-valuenow", here);
    plot.setAttribute("aria-valuetext", words.length ? `${unit} ${here}: ${words.join("; ")}` : "no run yet");
  }

  return {
    node,
    update(runs, highlighted) {
      now = placed(runs);
      chosen = highlighted;
      if (at !== null && !now.stops.includes(at)) at = null;
      draw();
    },
  };
}
