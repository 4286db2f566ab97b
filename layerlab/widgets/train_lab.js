// TrainLab: menus, buttons, the pictures and the table of the runs.

const SILENCE = 3000; // milliseconds without news of a run, after which it is asked after
let layerlabLabs = 0; // for ids, which belong to the whole page

function render({ model, el }) {
  const id = `layerlab-train-lab-${layerlabLabs++}`;
  const asked = model.get("asked");
  const unheard = new Map(); // by menu: what was chosen and the kernel has not answered yet
  const menus = asked.menus.map(drawMenu);
  const button = (text, onclick) => control("button", { type: "button", onclick }, text);
  const start = button("start", () => enabled(start) && ask({ do: "start" }, "starting …"));
  const hold = button("pause", () => enabled(hold) && ask({ do: hold.textContent, run: live().number }));
  const stop = button("stop", () => enabled(stop) && ask({ do: "stop", run: live().number }));
  const clear = button("remove all", () => enabled(clear) && ask({ do: "clear" }));
  const status = make("span", { role: "status" });
  let chosen = null; // the number of the run that is highlighted
  let newest = 0;
  const epochs = { of: null };
  const ratios = trainRatios();
  const curves = trainCurves({
    moved: (of) => {
      epochs.of = of;
      drawRatios();
    },
  });
  const choose = (number) => {
    chosen = number;
    draw();
  };
  const table = trainTable({ each: asked.each, choose, remove: (run) => ask({ do: "remove", run }) });
  const [errors, endErrors] = showErrors(model);
  const form = make("div", { class: "layerlab-lab-menus", role: "group", "aria-label": "the next run" }, ...menus.map((menu) => menu.node));
  const actions = make("div", { class: "layerlab-lab-actions" }, start, hold, stop, clear, status);
  const pictures = make("div", { class: "layerlab-lab-pictures" }, curves.node, ratios.node);
  const root = make("div", { class: "layerlab-train-lab", role: "group", "aria-label": "training lab" }, form, actions, errors, pictures, table.node);
  el.append(root);

  function drawMenu({ name, label, options, only_for: onlyFor }) {
    const select = control(
      "select",
      { id: `${id}-${name}`, "aria-describedby": `${id}-${name}-why`, onchange: () => pick(name, select.selectedIndex) },
      ...options.map((text) => make("option", {}, text)),
    );
    const why = make("small", { id: `${id}-${name}-why` });
    const node = make("div", {}, make("label", { for: select.id }, label), select, why);
    return { name, select, why, onlyFor, node };
  }

  const enabled = (one) => one.getAttribute("aria-disabled") !== "true";
  let gone = false; // the kernel, with all that was live
  const live = () => (!gone && model.get("going").number ? model.get("going") : null);

  /** All runs, the oldest first. */
  function runs() {
    const going = model.get("going");
    const last = gone ? { ...going, state: "lost with its kernel" } : going;
    return [...model.get("ended"), ...(going.number ? [last] : [])].sort((a, b) => a.number - b.number);
  }

  /** Send a message; without a kernel, what was live is lost. */
  function reach(message) {
    gone = !tell(model, message);
    if (gone) draw();
    return !gone;
  }

  function ask(message, meanwhile = "") {
    if (reach(message) && meanwhile) status.textContent = meanwhile;
  }

  function pick(name, at) {
    if (reach({ do: "choose", name, at })) unheard.set(name, at);
    drawMenus();
  }

  function heardPicks() {
    const picks = model.get("picks");
    for (const [name, at] of unheard) if (picks[name] === at) unheard.delete(name);
    drawMenus();
  }

  /** A menu that does not apply says why; it stays where it is for a setting that it applies to. */
  function drawMenus() {
    const picks = { ...model.get("picks"), ...Object.fromEntries(unheard) };
    for (const { name, select, why, onlyFor } of menus) {
      select.selectedIndex = picks[name];
      const applies = !onlyFor || onlyFor.includes(picks.setting);
      select.disabled = !applies;
      why.textContent = applies ? "" : "this setting freezes nothing";
    }
  }

  function drawRatios() {
    const run = runs().find((one) => one.number === chosen);
    ratios.update(run, run && epochs.of ? epochs.of(run.number) : null);
  }

  /** Buttons that do not apply keep the focus: what is disabled would lose it. */
  function drawButtons(all) {
    const now = live();
    hold.textContent = now?.state === "paused" ? "go on" : "pause";
    const allowed = [[start, !now && !gone], [hold, now], [stop, now], [clear, !gone && all.some((run) => run.number !== now?.number)]];
    for (const [one, may] of allowed) one.setAttribute("aria-disabled", String(!may));
    start.title = now ? `run ${now.number} is ${now.state}: let it end, or stop it, before another starts` : "";
  }

  function say(all) {
    const run = live() ?? all.find((one) => one.number === newest);
    const text = run ? `run ${called(run)}: ${run.state}` : "";
    if (status.textContent !== text) status.textContent = text; // said once, not at every step
  }

  let heardAt = 0;
  function draw() {
    heardAt = performance.now();
    const all = runs();
    const last = Math.max(0, ...all.map((run) => run.number));
    if (last > newest || !all.some((run) => run.number === chosen)) chosen = last;
    newest = last;
    drawButtons(all);
    say(all);
    curves.update(all, chosen);
    drawRatios();
    table.update(all, chosen);
  }

  const refused = () => {
    if (!model.get("error")) return;
    unheard.clear();
    drawMenus();
    say(runs());
  };
  // Nobody tells a page that its kernel was restarted: a run that is silent is asked after.
  const watchdog = setInterval(() => {
    if (live()?.state === "running" && performance.now() - heardAt > SILENCE) reach({ do: "are you there" });
  }, SILENCE);
  const ends = [follow(model, ["picks"], heardPicks), follow(model, ["ended", "going"], draw), follow(model, ["error"], refused)];
  return () => {
    clearInterval(watchdog);
    [...ends, endErrors].forEach((end) => end());
  };
}

export default { render };
