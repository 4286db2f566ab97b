// StepView: the step slider, the alarms, the rows, and a closer look at one tensor.

const LEGEND = "bar: ‖Δ‖/‖w‖ on a log scale, empty at 1e-6, full at 1; click a row to look inside";
const PACE = 600; // milliseconds a step while playing

function render({ model, el }) {
  let overview = readOverview(model.get("overview"), model.get("tensors"));
  let timer = null;
  const near = closeups((step) => tell(model, { more: step }));
  const newest = () => overview.count - 1;
  const shown = () => (model.get("step") < 0 ? newest() : model.get("step"));
  const chosen = () => overview.raw.indexOf(model.get("tensor"));
  const go = (step) => {
    model.set("step", step >= newest() ? -1 : Math.max(step, 0));
    model.save_changes();
  };
  const choose = (tensor) => {
    model.set("tensor", tensor < 0 ? "" : overview.raw[tensor]);
    model.save_changes();
  };

  const play = control("button", { type: "button", class: "layerlab-play", onclick: () => (timer ? stop() : start()) });
  const slider = control("input", {
    type: "range",
    min: 0,
    step: 1,
    "aria-label": "step",
    oninput: () => {
      stop();
      go(slider.valueAsNumber);
    },
  });
  const ticks = make("div", { class: "layerlab-ticks", "aria-hidden": "true" });
  const title = make("p", { class: "layerlab-title", role: "status" });
  const alarms = make("div", { class: "layerlab-alarms" });
  const rows = stepRows({ choose });
  const closer = make("section", { class: "layerlab-closer", "aria-label": "a closer look", hidden: true });
  const [errors, endErrors] = showErrors(model);
  const steps = make("div", { class: "layerlab-steps" }, play, make("div", {}, slider, ticks));
  const legend = make("p", { class: "layerlab-notes" }, LEGEND);
  const wide = make("div", { class: "layerlab-wide" }, rows.node);
  el.classList.add("layerlab-step-view");
  el.append(steps, title, alarms, wide, legend, closer, errors);

  function start() {
    if (shown() >= newest()) go(0);
    timer = setInterval(() => {
      go(shown() + 1);
      if (shown() >= newest()) stop();
    }, PACE);
    sayPlay();
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    sayPlay();
  }
  function sayPlay() {
    play.textContent = timer ? "❚❚" : "▶";
    play.setAttribute("aria-label", timer ? "pause" : "play the steps");
    play.title = play.getAttribute("aria-label");
  }

  function drawAlarms(step, head) {
    const warns = head ? head.warns.map((i) => overview.warns[i]) : [];
    alarms.replaceChildren(...warns.map((warn) => drawWarn(warn, rows.reveal)));
    if (!head?.alarms && overview.alarms.length) {
      const first = overview.alarms[0][0];
      const there = control("button", { type: "button", onclick: () => go(first) }, `step ${first}`);
      alarms.append(make("p", {}, "⚠ first alarm of this run: ", there));
    }
  }

  function drawTicks() {
    const percent = (step) => (100 * step) / Math.max(newest(), 1);
    const marked = overview.alarms.flatMap(([first, last]) => [
      make("span", { style: `left: ${percent(first)}%` }, "⚠"),
      first === last ? null : make("i", { style: `left: ${percent(first)}%; width: ${percent(last - first)}%` }),
    ]);
    ticks.replaceChildren(...marked.filter(Boolean));
  }

  function draw() {
    const step = shown();
    slider.max = Math.max(newest(), 0);
    slider.value = Math.max(step, 0);
    slider.disabled = play.disabled = overview.count < 2;
    steps.hidden = overview.count < 2;
    const head = overview.head(step);
    title.replaceChildren(...titled(overview, step, head, model.get("recording")));
    drawAlarms(step, head);
    wide.hidden = !head;
    if (head) rows.update(overview, step, chosen());
    legend.hidden = !head;
    drawCloser(closer, overview, near, step, chosen());
    const name = model.get("tensor");
    if (!name || model.get("closeup").tensor !== name) return;
    const there = overview.steps.map((_, i) => overview.first + i).filter((one) => overview.row(one, chosen()));
    near.askFor(step, model.get("recording") ? there.filter((one) => one === step) : there);
  }

  const redraw = () => {
    overview = readOverview(model.get("overview"), model.get("tensors"));
    drawTicks();
    draw();
  };
  sayPlay();
  const received = () => {
    near.add(model.get("closeup"));
    draw();
  };
  const ends = [
    follow(model, ["overview"], redraw),
    follow(model, ["closeup"], received),
    follow(model, ["step", "tensor", "recording"], draw),
  ];
  return () => {
    stop();
    endErrors();
    ends.forEach((end) => end());
  };
}

function titled(overview, step, head, recording) {
  const running = recording ? [make("span", { class: "layerlab-aside" }, "recording")] : [];
  if (!overview.count) return ["no step recorded yet: call step() of a watched optimizer inside the with block", ...running];
  if (!head) return [`step ${step} is not in this page: the running kernel sends it`];
  const lrs = new Set(Object.values(head.lrs));
  const lr = lrs.size === 1 ? `, lr ${[...lrs][0]}` : "";
  const failed = head.completed ? "" : "step() raised before it finished; ";
  const note = head.note ? [make("span", { class: "layerlab-aside" }, `not replayed: ${head.note}`)] : [];
  const moved = `${failed}${head.moved} of ${head.total} tensor${head.total === 1 ? "" : "s"} moved`;
  const of = overview.count > 1 ? ` of 0…${overview.count - 1}` : "";
  return [make("strong", {}, `step ${step}`), `${of}, ${head.optimizer}${lr}: ${moved} `, ...note, ...running];
}

function drawWarn(warn, reveal) {
  const alarm = warn.level === "alarm";
  const names = warn.names.slice(0, 3).flatMap((name, i) => [
    i ? ", " : "",
    control("button", { type: "button", onclick: () => reveal(name), title: "show its row" }, make("code", {}, name)),
  ]);
  if (warn.names.length > 3) names.push(` … and ${warn.names.length - 3} more`);
  const sign = make("span", { class: "layerlab-alarm", role: "img", "aria-label": warn.level }, alarm ? "⚠" : "!");
  const what = make(alarm ? "strong" : "span", {}, ` ${warn.what}`);
  const cure = warn.cure ? ["cure:", make("pre", {}, warn.cure)] : [];
  const why = make(
    "details",
    { open: alarm },
    control("summary", {}, cure.length ? "why, and the cure" : "why"),
    make("p", {}, warn.cause),
    ...cure,
  );
  const line = make("p", {}, sign, " ", ...names, what, ` (${warn.when})`);
  return make("div", { class: `layerlab-${warn.level}-box` }, line, why);
}

/** What there is to know of one tensor in one step: facts, numbers, pictures. */
function drawCloser(node, overview, near, step, tensor) {
  node.hidden = tensor < 0;
  if (tensor < 0) return node.replaceChildren();
  const [name, kind, shape, dtype, type] = overview.tensors[tensor];
  const happened = overview.row(step, tensor);
  const heading = make("p", { class: "layerlab-title" }, make("strong", {}, make("code", {}, name)), `: ${kind} ${shape}, ${dtype}, of ${type}; step ${step}`);
  if (!happened) return node.replaceChildren(heading, make("p", {}, "not in the model in this step"));
  const { facts } = happened;
  const letter = overview.letters[facts.reason];
  const lr = facts.place ? [["lr", overview.head(step).lrs[facts.place]]] : [];
  const here = near.find(overview.raw[tensor], step);
  const said = [...facts.said, ...lr, ...Object.entries(here?.numbers ?? {})];
  const list = make("dl", {}, ...said.map(([word, value]) => make("div", {}, make("dt", {}, word), make("dd", {}, value))));
  const why = make("p", {}, symbol(letter, letter.sentence), ...mostly(happened, overview.letters));
  const found = [heading, why, list];
  if (!here) found.push(make("p", { "aria-busy": "true" }, "the running kernel sends the values of this step …"));
  else if (here.pictures.steps?.includes(step)) found.push(stepPictures(here.pictures, step, here.scale, overview.letters));
  else found.push(make("p", {}, notKept(here.why_not, step)));
  node.replaceChildren(...found);
}

/** Where another part of Δ is larger than the one that the reason names. */
function mostly({ facts, shares }, letters) {
  const [largest] = sharesOf(shares);
  if (!largest || largest[0] === facts.reason) return [];
  return ["; most of Δ is ", symbol(letters[largest[0]]), ` (${percent(largest[1])})`];
}

function notKept(why, step) {
  if (why && why !== "values not kept") return `no picture: ${why}`;
  return `the values of this step were not kept: watch(…, keep=[${step}]) keeps them whole`;
}

export default { render };
