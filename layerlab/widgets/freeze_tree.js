// A tree of switches. What it shows is what the kernel says; a click only asks.

const SYMBOLS = { true: "✓", false: "", mixed: "–" };

export default {
  render({ model, el }) {
    const view = Math.random().toString(36).slice(2); // answers go to every view of the widget
    const asked = new Map(); // from a row's name to what was asked for last, until it is answered
    let sent = 0;
    let nodes = new Map(); // from a row's name to its parts
    let active = null; // the name of the one row that Tab reaches

    const tree = make("ul", { class: "layerlab-freeze-tree", role: "tree", "aria-label": "freeze layers" });
    const legend = make("p", { class: "layerlab-freeze-legend" });
    legend.append("✓ frozen   – in part   click, or press Space");
    const [error, endErrors] = showErrors(model);
    el.append(make("div", { class: "layerlab-freeze" }, tree, legend, error));

    const rows = () => model.get("rows");
    const row = (name) => rows().find((one) => one.name === name);
    const isOpen = (name) => model.get("unfolded").includes(name);
    const shown = () => rows().filter((one) => ancestors(one.name).every(isOpen));

    function ancestors(name) {
      const parts = name.split(".");
      return parts.slice(1).map((_, index) => parts.slice(0, index + 1).join("."));
    }

    function build() {
      const had = tree.contains(document.activeElement);
      nodes = new Map();
      tree.replaceChildren(...rows().map(item));
      if (!row(active)) active = rows()[0]?.name ?? null;
      if (had && active !== null) nodes.get(active).item.focus();
    }

    function item({ name, label, level, fold }) {
      const triangle = make("span", { class: "layerlab-freeze-fold", "aria-hidden": "true" });
      const box = make("span", { class: "layerlab-freeze-box", "aria-hidden": "true" });
      const flake = make("span", { class: "layerlab-freeze-flake", "aria-hidden": "true" });
      const size = make("span", { class: "layerlab-freeze-size" });
      const note = make("span", { class: "layerlab-freeze-note" });
      const text = make("code", {}, label);
      const node = control("li", { role: "treeitem", "aria-level": level, title: name });
      node.style.setProperty("--level", level);
      node.append(triangle, box, flake, text, " ", size, " ", note); // spaces: the label must read the same
      node.addEventListener("keydown", (event) => press(event, name));
      node.addEventListener("focus", () => activate(name));
      if (fold) triangle.addEventListener("click", () => unfold(name, !isOpen(name)));
      for (const part of [box, flake, text, size]) part.addEventListener("click", () => flip(name));
      nodes.set(name, { item: node, triangle, box, flake, size, note });
      return node;
    }

    function update() {
      const names = rows().map((one) => `${one.level}${one.fold}${one.name}`);
      if (names.join("\n") !== tree.dataset.names) {
        tree.dataset.names = names.join("\n");
        build();
      }
      for (const one of rows()) {
        const { item, triangle, box, flake, size, note } = nodes.get(one.name);
        item.setAttribute("aria-checked", one.checked);
        item.setAttribute("aria-label", [one.name, one.size, one.note].filter(Boolean).join(", "));
        item.setAttribute("aria-busy", String(asked.has(one.name)));
        if (one.fold) item.setAttribute("aria-expanded", String(isOpen(one.name)));
        item.hidden = !ancestors(one.name).every(isOpen);
        item.tabIndex = one.name === active ? 0 : -1;
        triangle.textContent = one.fold ? (isOpen(one.name) ? "▾" : "▸") : "";
        box.textContent = SYMBOLS[one.checked];
        flake.textContent = one.checked === "true" ? "❄" : "";
        size.textContent = one.size;
        note.textContent = one.note;
      }
      const order = shown();
      if (active !== null && !order.some((one) => one.name === active)) {
        activate(ancestors(active).find((name) => !isOpen(name)) ?? order[0]?.name ?? null);
      }
    }

    function activate(name) {
      active = name;
      for (const [other, { item }] of nodes) item.tabIndex = other === name ? 0 : -1;
    }

    function go(name) {
      if (name === undefined) return;
      activate(name);
      nodes.get(name).item.focus();
    }

    function unfold(name, open) {
      const others = model.get("unfolded").filter((one) => one !== name);
      model.set("unfolded", open ? [...others, name] : others);
      model.save_changes();
    }

    function flip(name) {
      const on = !(asked.has(name) ? asked.get(name).on : row(name).checked === "true");
      const number = `${view}-${++sent}`;
      if (!tell(model, { kind: "flip", name, on, number })) return;
      asked.set(name, { on, number });
      nodes.get(name).item.setAttribute("aria-busy", "true");
    }

    function answer(message) {
      if (message?.kind !== "answered") return;
      for (const [name, { number }] of asked) if (number === message.number) asked.delete(name);
      update();
    }

    function press(event, name) {
      if (event.ctrlKey || event.altKey || event.metaKey) return;
      const order = shown();
      const index = order.findIndex((one) => one.name === name);
      const { fold } = order[index];
      const keys = {
        ArrowDown: () => go(order[index + 1]?.name),
        ArrowUp: () => go(order[index - 1]?.name),
        Home: () => go(order[0].name),
        End: () => go(order[order.length - 1].name),
        ArrowRight: () => fold && (isOpen(name) ? go(order[index + 1].name) : unfold(name, true)),
        ArrowLeft: () => (fold && isOpen(name) ? unfold(name, false) : go(ancestors(name).pop())),
        " ": () => flip(name),
        Enter: () => flip(name),
      };
      if (!(event.key in keys)) return;
      event.preventDefault();
      event.stopPropagation();
      keys[event.key]();
    }

    model.on("msg:custom", answer);
    const end = follow(model, ["rows", "unfolded"], update);
    return () => {
      end();
      endErrors();
      model.off("msg:custom", answer);
    };
  },
};
