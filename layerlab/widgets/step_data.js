// What StepView was sent, read back: see overview.py and closeup.py.

const ABSENT = 0xffff;
const NOT_MEASURED = 255;
const LITTLE = 254; // a share of less than one per cent
const KEPT_BYTES = 2 * 1024 * 1024; // of one tensor's pictures; more are not asked for
const FLAT = 20; // as many tensors are shown without folding

/** Wrap an overview: `row(step, tensor)` gives what happened to a tensor, or null. */
function readOverview(sent, described) {
  const tensors = described.length;
  const cells = tensors * sent.steps.length;
  const row = (step, tensor) => {
    const at = (step - sent.first) * tensors + tensor;
    if (step < sent.first || at >= cells || tensor < 0) return null;
    const number = sent.rows.getUint16(2 * at, true);
    if (number === ABSENT) return null;
    const shares = [0, 1, 2].map((part) => sent.rows.getUint8(6 * cells + 3 * at + part));
    if (shares[0] === NOT_MEASURED) shares.length = 0;
    return {
      facts: sent.facts[number],
      ratio: sent.rows.getFloat32(2 * cells + 4 * at, true),
      shares: shares.map((share) => (share === LITTLE ? 0.5 : share)),
    };
  };
  const head = (step) => sent.steps[step - sent.first] ?? null;
  const last = sent.first + sent.steps.length - 1;
  const raw = described.map((tensor) => tensor[6] ?? tensor[0]);
  return { ...sent, tensors: described, last, row, head, raw };
}

/** Group names into rows: modules that hold several tensors become rows of their own. */
function layOut(names) {
  if (names.length <= FLAT)
    return names.map((name, tensor) => ({ label: name, level: 1, tensor, below: [tensor], parent: null }));
  const root = { children: new Map(), below: [] };
  names.forEach((name, tensor) => {
    let node = root;
    for (const part of name.split(".")) {
      if (!node.children.has(part)) node.children.set(part, { children: new Map(), below: [] });
      node = node.children.get(part);
      node.below.push(tensor);
    }
    node.tensor = tensor;
  });
  const rows = [];
  const add = (node, label, level, parent) => {
    while (node.children.size === 1 && node.tensor === undefined) {
      const [[part, only]] = node.children;
      [node, label] = [only, `${label}.${part}`];
    }
    const row = { label, level, tensor: node.tensor ?? null, below: node.below, parent };
    rows.push(row);
    for (const [part, child] of node.children) add(child, part, level + 1, row);
  };
  for (const [part, child] of root.children) add(child, part, 1, null);
  return rows;
}

/** Read the numbers of one picture: a Float32Array, or null where the step has none. */
function readPicture(pictures, channel, step) {
  const at = pictures.steps.indexOf(step);
  const place = pictures.channels.indexOf(channel);
  if (at < 0 || place < 0 || !pictures.present[place][at]) return null;
  const count = pictures.rows * pictures.columns;
  const start = (place * pictures.steps.length + at) * count;
  const scale = pictures.scales[place] || 1;
  const read =
    pictures.bytes === 4
      ? (i) => pictures.cells.getFloat32(4 * (start + i), true)
      : (i) => scale * half(pictures.cells.getUint16(2 * (start + i), true));
  return Float64Array.from({ length: count }, (_, i) => read(i));
}

/** float16 to number (Float16Array is not in every browser yet). */
function half(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -24 * fraction);
}

/** Which element a cell shows, written as an index: `[2, 0, 1]`. */
function elementAt(pictures, step, cell) {
  const count = pictures.rows * pictures.columns;
  const shared = pictures.elements.byteLength === 4 * count;
  const at = shared ? cell : pictures.steps.indexOf(step) * count + cell;
  let left = pictures.elements.getUint32(4 * at, true);
  const index = [];
  for (const size of [...pictures.shape].reverse()) {
    index.unshift(left % size);
    left = Math.floor(left / size);
  }
  return `[${index.join(", ")}]`;
}

/** What was sent of one tensor, in pieces: keeps them, finds a step in them, and asks for what is missing. */
function closeups(ask) {
  let [tensor, pieces, bytes, waiting] = [null, [], 0, false];
  const has = (step) => pieces.some((piece) => step in piece.numbers);
  return {
    add(piece) {
      if (piece.tensor !== tensor) [tensor, pieces, bytes] = [piece.tensor, [], 0];
      waiting = false;
      if (!piece.tensor || pieces.includes(piece)) return;
      pieces.push(piece);
      bytes += piece.pictures.cells?.byteLength ?? 0;
    },
    /** Numbers and pictures of a step; colours are scaled alike in all pieces. */
    find(name, step) {
      const piece = name === tensor && pieces.find((one) => step in one.numbers);
      if (!piece) return null;
      const scale = (channel) =>
        Math.max(...pieces.map(({ pictures }) => pictures.scales?.[pictures.channels.indexOf(channel)] ?? 0));
      const count = pieces.reduce((sum, { pictures }) => sum + (pictures.steps?.length ?? 0), 0);
      return { ...piece, pictures: { ...piece.pictures, count }, numbers: piece.numbers[step], scale };
    },
    /** Ask for the step that is shown, or else for the nearest that is missing. */
    askFor(step, steps) {
      if (waiting || bytes > KEPT_BYTES) return;
      const missing = steps.filter((one) => !has(one));
      if (!missing.length) return;
      waiting = true;
      ask(missing.reduce((best, one) => (Math.abs(one - step) < Math.abs(best - step) ? one : best)));
    },
  };
}
