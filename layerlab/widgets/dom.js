// What the scripts of all widgets share. Plain functions: see front_end in drawn.py.

/** Make an element: attributes as they stand in HTML, `on…` as listeners, children as nodes or text. */
function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
}

/**
 * Make an element that keeps its own keys: JupyterLab takes arrows and letters away from any other. But for
 * Shift+Enter, with which a notebook runs a cell: here it does nothing, rather than press a button.
 */
function control(tag, attributes = {}, ...children) {
  const node = make(tag, { "data-lm-suppress-shortcuts": "true", ...attributes }, ...children);
  node.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey)) event.preventDefault();
  });
  return node;
}

/** Call `react` at once and whenever one of these traits changes; returns what ends it. */
function follow(model, traits, react) {
  for (const trait of traits) model.on(`change:${trait}`, react);
  react();
  return () => traits.forEach((trait) => model.off(`change:${trait}`, react));
}

/** A place that says what went wrong in the kernel; returns the node and what ends it. */
function showErrors(model) {
  const node = make("p", { class: "layerlab-error", role: "alert", hidden: true });
  const end = follow(model, ["error"], () => {
    node.textContent = model.get("error") ? `⚠ ${model.get("error")}` : "";
    node.hidden = !model.get("error");
  });
  return [node, end];
}

const turns = new WeakMap(); // from a view's model to its name, and the number of its next message

/**
 * Send a message to the kernel; without one, say so where errors are said. Returns whether it went. The kernel
 * may get messages in another order: it hears them by their number.
 */
function tell(model, message) {
  if (!turns.has(model)) turns.set(model, { view: Math.random().toString(36).slice(2), next: 0 });
  const turn = turns.get(model);
  try {
    model.send({ ...message, turn: [turn.view, turn.next] });
    turn.next += 1;
    return true;
  } catch {
    model.set("error", "the kernel of this output is gone: run its cell again");
    return false;
  }
}

/** A number as it is shown: `digits` significant figures, no exponent between 0.001 and 10000. */
function short(value, digits = 2) {
  if (value === 0) return "0";
  if (!Number.isFinite(value)) return Number.isNaN(value) ? "nan" : value > 0 ? "inf" : "-inf";
  const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
  const power = Number(exponent);
  if (power >= -3 && power < 4)
    return String(Number(Number(value.toExponential(digits - 1)).toFixed(Math.max(0, digits - 1 - power))));
  return `${Number(mantissa)}e${power < 0 ? "-" : "+"}${String(Math.abs(power)).padStart(2, "0")}`;
}
