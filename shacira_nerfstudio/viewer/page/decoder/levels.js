// The symbols of one level (codec/FORMAT.md, section 6).

const MAX_SCORE = 47376;

// What one pass over a channel looks at: weights, reaches, thresholds and tables.
class ContextModel {
  constructor(bits, p, hasPrevious, hasPartner, room) {
    const what = bits.what;
    this.weights = Array.from({ length: 6 }, () => within(bits.golomb(1), 0, 63, `a weight of ${what}`));
    this.previousReach = bits.take(2);
    this.partnerReach = bits.take(2);
    demand(hasPrevious || (this.weights[2] === 0 && this.previousReach === 0),
      `${what}: expected nothing of a channel before the first`);
    demand(hasPartner || (this.weights[3] === 0 && this.weights[5] === 0 && this.partnerReach === 0),
      `${what}: expected nothing of partners in a first pass`);
    // For each score how many thresholds it has reached.
    this.steps = new Uint8Array(MAX_SCORE + 1);
    let threshold = 0, t = bits.take(4);
    const numThresholds = t;
    for (; t > 0; t--) {
      threshold = within(threshold + bits.golomb(4) + 1, 1, MAX_SCORE, `a threshold of ${what}`);
      this.steps.fill(numThresholds - t + 1, threshold);
    }
    const numValues = (2 * this.previousReach + 1) * (2 * this.partnerReach + 1);
    this.readTables(bits, p, (numThresholds + 1) * numValues, room);
  }

  readTables(bits, p, numClasses, room) {
    const tables = [];
    this.position = new Int16Array(numClasses).fill(-1);
    for (let number = 0; number < numClasses; number++) {
      if (!bits.take(1)) continue;
      this.position[number] = tables.length;
      tables.push(readTable(bits, p, room.symbols, tables.length ? tables[tables.length - 1] : null));
      room.symbols -= tables[tables.length - 1].roots.length;
    }
    this.tables = tables.length ? new TableSet(tables, p) : null;
  }

  // The class of each entry. symbols [T, d]; partners: whether this is a second pass.
  classes(entries, channel, d, symbols, totals, features, neighbours, partners) {
    const { steps, weights: [w1, w2, w3, w4, w5, w6], previousReach: r, partnerReach: u } = this;
    const { touched, parent, grandparent } = features, classes = new Uint16Array(entries.length);
    const isFlat = w3 === 0 && w4 === 0 && w6 === 0 && r === 0 && u === 0;
    for (let i = 0; i < classes.length; i++) {
      const e = entries[i];
      let score = w1 * touched[e] + w2 * parent[e] + w5 * grandparent[e];
      if (isFlat) { classes[i] = steps[score]; continue; }
      const previous = channel > 0 ? symbols[e * d + channel - 1] : 0;
      const partner = partners ? symbols[(e ^ 1) * d + channel] : 0;
      score += w3 * Math.min(31, totals[e]) + w4 * Math.min(31, Math.abs(partner));
      if (neighbours !== null) score += w6 * neighbours[e];
      const q = Math.max(-r, Math.min(r, previous)), other = Math.max(-u, Math.min(u, partner));
      classes[i] = (steps[score] * (2 * r + 1) + r + q) * (2 * u + 1) + u + other;
    }
    return classes;
  }
}

// Entries that are in the stream, in ascending order: all, even or odd ones.
function codedEntries(touched, isAll, first = 0, step = 1) {
  let count = 0;
  const entries = new Int32Array(Math.ceil(touched.length / step));
  for (let e = first; e < touched.length; e += step) {
    entries[count] = e;
    count += isAll || touched[e] > 0 ? 1 : 0;
  }
  return entries.subarray(0, count);
}

// Symbols [T, d] of a level; parent and grandparent are the levels before it, or null.
function readLevel(payload, level, d, parent, grandparent, what) {
  const bytes = new Bytes(payload, what), p = bytes.u8(8, 16), lanes = bytes.varint(1, 1024);
  const bits = new Bits(bytes.take(bytes.varint()), what);
  const room = { symbols: 2 ** 17 + 128 * bits.data.length };
  const stream = new Stream(bytes.take(bytes.left), lanes, what), size = level.numEntries;
  const slab = level.hasFeatures ? level.walk() : null, zeros = slab ? null : new Uint8Array(size);
  const features = slab ? slab.features(parent, grandparent)
    : { touched: zeros, parent: zeros, grandparent: zeros };
  const isAll = level.isSaturated || !level.occupancy.isStored, all = codedEntries(features.touched, isAll);
  const halves = [0, 1].map((first) => codedEntries(features.touched, isAll, first, 2));
  const symbols = new Int16Array(size * d), totals = new Uint16Array(size);
  for (let channel = 0; channel < d; channel++) {
    const passes = bits.take(1) ? halves : [all];
    passes.forEach((entries, number) => {
      const model = new ContextModel(bits, p, channel > 0, number > 0, room);
      const neighbours = model.weights[5] && level.hasNeighbours
        ? slab.neighbours(magnitudesOf(symbols, halves[0], channel, d, size)) : null;
      const classes = model.classes(entries, channel, d, symbols, totals, features, neighbours, number > 0);
      demand(model.tables || entries.length === 0, `${what}: expected a table for every class that occurs`);
      if (!model.tables) return;
      const values = new Int16Array(entries.length);
      stream.decode(classes, model.position, model.tables, values);
      for (let i = 0; i < values.length; i++) symbols[entries[i] * d + channel] = values[i];
    });
    for (let i = 0; i < all.length; i++) totals[all[i]] += Math.abs(symbols[all[i] * d + channel]);
  }
  bits.end();
  stream.end();
  level.sizes = new Uint8Array(size);
  for (let e = 0; e < size; e++) level.sizes[e] = Math.min(31, totals[e]);
  return symbols;
}

function magnitudesOf(symbols, entries, channel, d, size) {
  const magnitudes = new Uint8Array(size);
  for (let i = 0; i < entries.length; i++) {
    magnitudes[entries[i]] = Math.min(31, Math.abs(symbols[entries[i] * d + channel]));
  }
  return magnitudes;
}
