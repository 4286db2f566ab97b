// Tick boxes by module, an answer that is locked in, and what became of it beside each box.

const LOCK = { locked: "locked in", running: "running …", scored: "checked" };
const HINTS = {
  locked: "Your answer stands. Now run the cells that follow.",
  running: "Your answer stands. The step runs …",
};
let layerlabPredictions = 0; // for ids, which belong to the whole page

export default {
  render({ model, el }) {
    const id = `layerlab-predict-${layerlabPredictions++}`;
    const asked = model.get("asked");
    const boxes = []; // by position: what is drawn of each tensor
    const unheard = new Map(); // by position: ticks that the kernel has not answered yet
    const groups = asked.groups.map((group, index) => drawGroup(group, `${id}-group${index}`));
    const lock = control("button", { type: "button", class: "layerlab-predict-lock", onclick: lockIn });
    const back = control("button", { type: "button", onclick: takeBack });
    const said = make("span", { role: "status" });
    const lesson = make("p", { class: "layerlab-predict-lesson" });
    const [error, endErrors] = showErrors(model);
    const root = make(
      "div",
      { class: "layerlab-predict", role: "group", "aria-labelledby": id },
      make("p", { id, class: "layerlab-predict-question" }, asked.question),
      make("div", { class: "layerlab-predict-list" }, ...groups.map((group) => group.node)),
      make("div", { class: "layerlab-predict-actions" }, lock, back, said),
      lesson,
      error,
    );
    el.append(root);

    /** A module's boxes, folded unless they are all there is. */
    function drawGroup({ name, items }, groupId) {
      const members = items.map((item) => drawBox(item, `${groupId}-why${item.at}`));
      const inside = make("div", { id: groupId, role: "group", "aria-label": name || asked.question });
      inside.append(...members.map((box) => box.node));
      const group = { members, inside, opened: true };
      if (asked.groups.length === 1 || items.length === 1) return { ...group, node: inside };
      inside.hidden = true;
      group.count = make("span", { class: "layerlab-predict-count" });
      group.fold = control(
        "button",
        {
          ...{ type: "button", class: "layerlab-predict-fold", "aria-expanded": "false" },
          ...{ "aria-controls": groupId, onclick: () => open(group, inside.hidden) },
        },
        make("code", {}, name),
      );
      const every = (what, label, on) =>
        control(
          "button",
          {
            ...{ type: "button", class: "layerlab-predict-every", "aria-label": label },
            onclick: () => tick(members.map((box) => box.at), on),
          },
          what,
        );
      group.buttons = [
        every("tick all", `tick all of ${name}`, true),
        every("tick none", `tick none of ${name}`, false),
      ];
      const head = make("div", { class: "layerlab-predict-head" }, group.fold, group.count, ...group.buttons);
      group.node = make("div", { class: "layerlab-predict-group" }, head, inside);
      return group;
    }

    function drawBox({ at, name, tied }, whyId) {
      const input = control("input", {
        ...{ type: "checkbox", "aria-describedby": whyId },
        onchange: () => tick([at], input.checked),
      });
      const why = make("span", { id: whyId, class: "layerlab-predict-why" });
      const tiedTo = tied ? [" (tied: ", make("code", {}, tied), ")"] : [];
      const label = make("label", {}, input, make("code", {}, name), ...tiedTo);
      boxes[at] = { at, input, why, node: make("div", { class: "layerlab-predict-box" }, label, why) };
      return boxes[at];
    }

    function open(group, wanted) {
      group.inside.hidden = !wanted;
      group.fold.setAttribute("aria-expanded", String(wanted));
    }

    /** Messages, not a trait: ipywidgets holds a trait's changes back, and a cell run next would be first. */
    function tick(positions, on) {
      if (tell(model, { do: "tick", at: positions, on })) for (const at of positions) unheard.set(at, on);
      update();
    }

    function lockIn() {
      if (model.get("stage") !== "open" || !tell(model, { do: "lock" })) return;
      for (const box of boxes) box.input.disabled = true; // at once: a later tick would come too late
    }

    function takeBack() {
      tell(model, { do: model.get("stage") === "scored" ? "again" : "unlock" });
    }

    /** ✓, or what happened instead, with its symbol and why. */
    function mark(why, found) {
      why.className = `layerlab-predict-why ${found && found.right ? "right" : "wrong"}`;
      if (!found) why.replaceChildren();
      else if (found.right) why.replaceChildren("✓ right");
      else {
        const symbol = make("span", { style: `color:${found.ink}`, "aria-hidden": "true" }, found.symbol);
        why.replaceChildren("✗ ", symbol, ` ${found.why}`);
      }
    }

    function countIn({ members, count }, ticks, marks) {
      const ticked = members.filter((box) => ticks.has(box.at)).length;
      const wrong = members.filter((box) => marks[box.at] && !marks[box.at].right).length;
      const scored = !marks.length ? "" : wrong ? `; ${wrong} wrong ✗` : "; all right ✓";
      count.textContent = `${ticked} of ${members.length} ticked${scored}`;
    }

    /** What is ticked: as the kernel knows it, but for what is on its way there. */
    function ticked() {
      const ticks = new Set(model.get("ticks"));
      for (const [at, on] of unheard) on ? ticks.add(at) : ticks.delete(at);
      return ticks;
    }

    function hear() {
      const ticks = new Set(model.get("ticks"));
      for (const [at, on] of unheard) if (ticks.has(at) === on || model.get("stage") !== "open") unheard.delete(at);
      update();
    }

    function update() {
      const stage = model.get("stage");
      const ticks = ticked();
      const verdict = model.get("verdict");
      const marks = verdict.marks ?? [];
      for (const { at, input, why } of boxes) {
        input.checked = ticks.has(at);
        input.disabled = stage !== "open";
        mark(why, marks[at]);
      }
      for (const group of groups.filter((one) => one.fold)) {
        countIn(group, ticks, marks);
        for (const button of group.buttons) button.disabled = stage !== "open";
      }
      // It keeps the focus: what is disabled would lose it.
      lock.setAttribute("aria-disabled", String(stage !== "open"));
      lock.textContent = LOCK[stage] ?? (asked.runs ? "lock in and run" : "lock in");
      const hadFocus = document.activeElement === back;
      back.hidden = stage === "open" || stage === "running";
      back.textContent = stage === "scored" ? "try again" : "change my mind";
      if (hadFocus && back.hidden) lock.focus();
      said.textContent = verdict.said ?? HINTS[stage] ?? "";
      lesson.textContent = verdict.lesson ?? "";
    }

    /** A new verdict opens the modules that hold a wrong answer. */
    function openWrong() {
      const marks = model.get("verdict").marks ?? [];
      for (const group of groups.filter((one) => one.fold))
        if (group.members.some((box) => marks[box.at] && !marks[box.at].right)) open(group, true);
    }

    const ends = [follow(model, ["ticks", "stage", "verdict"], hear), follow(model, ["verdict"], openWrong)];
    return () => [...ends, endErrors].forEach((end) => end());
  },
};
