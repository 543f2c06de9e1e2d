// A second decoder of .shacira files, in JavaScript and without packages, written from FORMAT.md.
//
//   node independent_decoder.mjs FILE          prints the SHA-256 of the decoded symbols
//   node independent_decoder.mjs --all FILE    prints one JSON object with a digest of every part
//
// Exit status 0, or 1 and one line on stderr for a file that FORMAT.md says to refuse.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";

class Refusal extends Error {}
const refuse = (why) => { throw new Refusal(why); };
const demand = (holds, why) => { if (!holds) refuse(why); };
const within = (value, low, high, what) => {
  demand(value >= low && value <= high, `${what} is ${value}, not ${low} to ${high}`);
  return value;
};

// ---- bytes, bits, checksums

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = 0xffffffff;
  for (const byte of bytes) crc = CRC_TABLE[(crc ^ byte) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

class Bytes {
  constructor(data, what) { this.data = data; this.at = 0; this.what = what; }
  take(count) {
    demand(count <= this.data.length - this.at, `${this.what} ends too early`);
    this.at += count;
    return this.data.subarray(this.at - count, this.at);
  }
  rest() { return this.take(this.data.length - this.at); }
  u8(low = 0, high = 255) { return within(this.take(1)[0], low, high, `a byte of ${this.what}`); }
  u32() { const [a, b, c, d] = this.take(4); return a + 256 * (b + 256 * (c + 256 * d)); }
  f32() {
    const raw = this.take(4);
    const value = new DataView(raw.buffer, raw.byteOffset, 4).getFloat32(0, true);
    demand(Number.isFinite(value), `a number of ${this.what} is not finite`);
    return value;
  }
  varint(low = 0, high = 2 ** 32 - 1) {
    let value = 0, scale = 1;
    for (let i = 0; i < 5; i++, scale *= 128) {
      const byte = this.u8();
      value += (byte & 127) * scale;
      if (byte < 128) {
        demand(byte > 0 || i === 0, `a number of ${this.what} is not in its shortest form`);
        return within(value, low, high, `a number of ${this.what}`);
      }
    }
    return refuse(`a number of ${this.what} has more than 5 bytes`);
  }
  end() { demand(this.at === this.data.length, `${this.what} is too long`); }
}

class Bits {
  constructor(data, what) { this.data = data; this.at = 0; this.what = what; }
  bit() {
    const byte = this.data[this.at >> 3];
    demand(byte !== undefined, `the bits of ${this.what} end too early`);
    return (byte >> (7 - (this.at++ & 7))) & 1;
  }
  take(count) {
    let value = 0;
    while (count-- > 0) value = 2 * value + this.bit();
    return value;
  }
  golomb(k) {
    let zeros = 0;
    while (!this.bit()) demand(++zeros <= 32, `a Golomb code of ${this.what} is too long`);
    return 2 ** (zeros + k) + this.take(zeros + k) - 2 ** k;
  }
  signed(k) {
    const u = this.golomb(k);
    return u % 2 ? -(u + 1) / 2 : u / 2;
  }
  end() {
    demand(8 * this.data.length - this.at < 8, `the bits of ${this.what} are too many`);
    while (this.at < 8 * this.data.length) demand(!this.bit(), `${this.what} is filled with ones`);
  }
}

// ---- section 2: the coder

class Stream {
  constructor(data, lanes, what) {
    const bytes = new Bytes(data, what);
    this.what = what;
    this.states = data.length ? Float64Array.from({ length: lanes }, () => bytes.u32()) : [];
    for (const x of this.states) demand(x >= 65536, `${what} begins in an impossible state`);
    const words = bytes.rest();
    demand(words.length % 2 === 0, `${what} ends within a word`);
    this.words = words;
    this.at = this.lane = 0;
  }
  begin() { this.lane = 0; }
  // `find` gives the index of a symbol from a slot, `freq` and `start` what belongs to the index.
  next(p, find, freq, start) {
    demand(this.states.length > 0, `${this.what} has symbols but no bytes`);
    const size = 2 ** p, old = this.states[this.lane], slot = old % size;
    const index = find(slot);
    let x = freq(index) * Math.floor(old / size) + slot - start(index);
    if (x < 65536) {
      demand(this.at + 2 <= this.words.length, `${this.what} runs out of words`);
      x = 65536 * x + this.words[this.at] + 256 * this.words[this.at + 1];
      this.at += 2;
    }
    this.states[this.lane] = x;
    this.lane = (this.lane + 1) % this.states.length;
    return index;
  }
  symbol(table) {
    if (table.freqs.length === 1) return table.minimum;
    const find = (slot) => table.slots[slot];
    return table.minimum + this.next(table.p, find, (i) => table.freqs[i], (i) => table.starts[i]);
  }
  occupied(f) {
    const free = 65536 - f;
    return this.next(16, (slot) => +(slot >= free), (i) => (i ? f : free), (i) => (i ? free : 0));
  }
  end() {
    for (const x of this.states) demand(x === 65536, `${this.what} does not end where it began`);
    demand(this.at === this.words.length, `${this.what} has words left`);
  }
}

// ---- sections 3 and 4: tables and arrays

function readSqrtFreq(bits, expected) {
  const u = bits.golomb(Math.max(0, 32 - Math.clz32(expected) - 2));
  return u > 2 * expected ? u : expected + (u % 2 ? -(u + 1) / 2 : u / 2);
}

// `before`: the table before this one, where there is one to be relative to.
function readTable(bits, p, before) {
  const what = `a table of ${bits.what}`;
  const minimum = before ? before.minimum + bits.signed(0) : bits.signed(2);
  const n = before
    ? before.minimum + before.values.length + bits.signed(0) - minimum : bits.golomb(2) + 1;
  within(minimum, -4095, 4095, `the minimum of ${what}`);
  within(minimum + n - 1, minimum, 4095, `the maximum of ${what}`);
  const values = [];
  const push = (r, count) => {
    within(r, 0, 1024, `a sqrt_freq of ${what}`);
    demand(values.length + count <= n, `${what} has too many values`);
    while (count-- > 0) values.push(r);
  };
  for (let previous = 0; values.length < n; ) {
    if (!before) {
      previous = readSqrtFreq(bits, previous);
      push(previous, previous ? 1 : bits.golomb(1) + 1);
      continue;
    }
    const place = minimum + values.length - before.minimum;
    const h = before.values[place] ?? 0, t = before.values[place - 1] ?? 0;
    const x = t === 0 ? Math.floor((previous + h + 1) / 2)
      : Math.min(1024, Math.floor((h * (previous + 2) + Math.floor((t + 2) / 2)) / (t + 2)));
    const isOuter = +(values.length === 0 || values.length === n - 1);
    previous = readSqrtFreq(bits, Math.max(0, x - isOuter)) + isOuter;
    push(previous, 1);
    if (previous === 0 && x === 0) push(0, bits.golomb(0));
  }
  const present = values.filter((r) => r > 0).length, whole = 2 ** p;
  demand(values[0] && values[n - 1] && present <= whole, `${what} has wrong values`);
  let weights = values.map((r) => (r ? (r - 1) ** 2 : 0));
  if (weights.every((w) => w === 0)) weights = values.map((r) => +(r > 0));
  const total = weights.reduce((a, b) => a + b);
  const freqs = values.map(
    (r, i) => (r ? 1 + Math.floor((weights[i] * (whole - present)) / total) : 0));
  let largest = 0;
  freqs.forEach((f, i) => { if (f > freqs[largest]) largest = i; });
  freqs[largest] += whole - freqs.reduce((a, b) => a + b);
  const starts = [], slots = new Uint16Array(whole);
  let sum = 0;
  freqs.forEach((f, i) => { starts.push(sum); slots.fill(i, sum, sum + f); sum += f; });
  return { minimum, values, freqs, starts, slots, p };
}

function readArray(bytes, count, low, high) {
  let value;
  if (bytes.u8(0, 1) === 0) {
    const minimum = bytes.varint(0, 8190) - 4095, width = bytes.u8(0, 13);
    const bits = new Bits(bytes.take(Math.ceil((count * width) / 8)), bytes.what);
    value = Int16Array.from({ length: count }, () => minimum + bits.take(width));
    bits.end();
  } else {
    const p = bytes.u8(8, 16), lanes = bytes.varint(1, 1024);
    const tableBytes = bytes.varint(), streamBytes = bytes.varint();
    const bits = new Bits(bytes.take(tableBytes), bytes.what), table = readTable(bits, p);
    bits.end();
    const stream = new Stream(bytes.take(streamBytes), lanes, bytes.what);
    value = Int16Array.from({ length: count }, () => stream.symbol(table));
    stream.end();
  }
  for (const v of value) within(v, low, high, `a value of ${bytes.what}`);
  return value;
}

// ---- section 5: occupancy

// All cells of a grid of this shape, the last axis fastest.
function* cellsOf(shape) {
  const cell = shape.map(() => 0);
  for (let left = product(shape); left > 0; left--) {
    yield cell;
    for (let axis = shape.length - 1; axis >= 0; axis--) {
      if (++cell[axis] < shape[axis]) break;
      cell[axis] = 0;
    }
  }
}

const product = (numbers) => numbers.reduce((a, b) => a * b, 1);
const flat = (cell, shape) => cell.reduce((index, c, axis) => index * shape[axis] + c, 0);

function coordinates(index, shape) {
  const cell = new Array(shape.length);
  for (let axis = shape.length - 1; axis >= 0; axis--, index = Math.floor(index / shape[axis + 1])) {
    cell[axis] = index % shape[axis];
  }
  return cell;
}

function earlierNeighbours(dims) {
  const result = [];
  for (const step of cellsOf(new Array(dims).fill(3))) {
    const shifts = step.map((s) => s - 1);
    const leading = [...shifts].reverse().find((s) => s !== 0);
    if (leading === -1) result.push(shifts);
  }
  return result;
}

const quarter = (shape) => shape.map((g) => Math.ceil(g / 4));

function readGridOfCells(stream, shape, blocks) {
  const wavefronts = [], coarse = quarter(shape), occupied = new Uint8Array(product(shape));
  for (const cell of cellsOf(shape)) {
    if (blocks && !blocks[flat(cell.map((c) => c >> 2), coarse)]) continue;
    const number = cell.reduce((sum, c, axis) => sum + c * 2 ** axis, 0);
    (wavefronts[number] ??= []).push([...cell]);
  }
  const neighbours = earlierNeighbours(shape.length);
  const seen = new Float64Array(2 ** (neighbours.length + 1));
  for (const wavefront of wavefronts) {
    if (!wavefront) continue;
    const patterns = wavefront.map((cell) => neighbours.reduce((pattern, shift) => {
      const other = cell.map((c, axis) => c + shift[axis]);
      const inside = other.every((c, axis) => c >= 0 && c < shape[axis]);
      return 2 * pattern + (inside ? occupied[flat(other, shape)] : 0);
    }, 0));
    stream.begin();
    wavefront.forEach((cell, i) => {
      const a = seen[2 * patterns[i]], b = seen[2 * patterns[i] + 1];
      const f = Math.floor(((5 * b + 2) * 65536) / (5 * (a + b) + 4));
      occupied[flat(cell, shape)] = stream.occupied(Math.min(Math.max(f, 1), 65535));
    });
    wavefront.forEach((cell, i) => { seen[2 * patterns[i] + occupied[flat(cell, shape)]]++; });
  }
  return occupied;
}

function readOccupancy(data, dims, fileBytes) {
  const bytes = new Bytes(data, "OCCU"), side = bytes.varint(0, 4096);
  const shape = Array.from({ length: dims }, () => side || bytes.varint(1, 4096));
  demand(side || shape.some((g) => g !== shape[0]), "OCCU stores equal axes one by one");
  const most = Math.min(2 ** 24, Math.max(2 ** 21, 512 * fileBytes));
  demand(product(shape) <= most, `OCCU claims ${shape.join(" x ")} cells`);
  const lanes = bytes.varint(1, 1024), stream = new Stream(bytes.rest(), lanes, "OCCU");
  const shapes = [shape];
  while (Math.max(...shapes[0]) > 8) shapes.unshift(quarter(shapes[0]));
  let cells = null;
  for (const each of shapes) cells = readGridOfCells(stream, each, cells);
  stream.end();
  return { shape, cells };
}

// ---- section 6: levels

class Level {
  constructor(channels, N, T, occupancy, coarser) {
    const dims = N.length;
    Object.assign(this, { dims, N, T, occupancy });
    this.isDense = product(N) <= T;
    this.sides = N.map((n) => n + 1);
    this.lo = N.map((n, axis) => {
      const G = occupancy ? occupancy.shape[axis] : 1;
      return Array.from({ length: G + 1 }, (_, c) => Math.floor((2 * c * (n - 1) + G) / (2 * G)));
    });
    // vertices of the hashed levels that are not saturated, up to here
    this.walked = coarser ? coarser.walked : 0;
    const vertices = product(this.sides);
    this.isSaturated = !this.isDense
      && (this.walked + vertices > 2 ** 28 || this.load(24) > 24 * T);
    if (!this.isDense && !this.isSaturated) this.walked += vertices;
    // likewise of the saturated levels that have features, and of those with neighbours
    this.extra = coarser ? coarser.extra : 0;
    this.counted = coarser ? coarser.counted : 0;
    this.hasFeatures = !this.isSaturated
      || (this.extra + vertices <= 2 ** 26 && this.load(64) <= 64 * T);
    if (this.isSaturated && this.hasFeatures) this.extra += vertices;
    this.hasNeighbours = this.hasFeatures && this.counted + vertices * channels <= 2 ** 28;
    if (this.hasNeighbours) this.counted += vertices * channels;
  }
  *occupiedCells() {
    if (!this.occupancy) { yield new Array(this.dims).fill(0); return; }
    let i = 0;
    for (const cell of cellsOf(this.occupancy.shape)) if (this.occupancy.cells[i++]) yield cell;
  }
  load(most) {
    let sum = 0;
    for (const cell of this.occupiedCells()) {
      sum += product(cell.map((c, axis) => this.lo[axis][c + 1] - this.lo[axis][c] + 2));
      if (sum > most * this.T) break;
    }
    return sum;
  }
  entry(v) {
    const { N, T } = this;
    if (this.isDense) return v.reduceRight((index, c, axis) => index * N[axis] + c, 0) % T;
    let hash = v[0] ^ Math.imul(v[1], 2654435761 | 0);
    if (this.dims === 3) hash ^= Math.imul(v[2], 805459861);
    return (hash >>> 0) % T;
  }
  // For every vertex, x slowest: how many touched cells have it as a corner.
  touchedCells() {
    const { N, dims, sides } = this, touched = new Uint8Array(product(N));
    for (const cell of this.occupiedCells()) {
      const mark = (axis, index) => {
        if (axis === dims) { touched[index] = 1; return; }
        const lo = this.lo[axis], last = lo[cell[axis] + 1];
        for (let j = lo[cell[axis]]; j <= last; j++) mark(axis + 1, index * N[axis] + j);
      };
      mark(0, 0);
    }
    const counts = new Uint8Array(product(sides));
    const corners = Array.from(cellsOf(N.map(() => 2)), (corner) => flat(corner, sides));
    for (let cell = touched.indexOf(1); cell >= 0; cell = touched.indexOf(1, cell + 1)) {
      const vertex = flat(coordinates(cell, N), sides);
      for (const corner of corners) counts[vertex + corner]++;
    }
    return counts;
  }
  // The magnitude at a vertex: the sum over the corners of the coarser level's cell around it.
  magnitudeAt(v, coarser, cache) {
    const { N } = this;
    const cell = v.map((c, axis) => Math.min(Math.floor(
      ((2 * c - 1) * (coarser.N[axis] - 1) + N[axis] - 1) / (2 * (N[axis] - 1))), coarser.N[axis] - 1));
    const key = flat(cell, coarser.N);
    if (!cache.has(key)) {
      let sum = 0;
      for (const corner of cellsOf(N.map(() => 2))) {
        sum += coarser.sizes[coarser.entry(cell.map((c, axis) => c + corner[axis]))];
      }
      cache.set(key, sum);
    }
    return cache.get(key);
  }
  features(coarser) {
    const [touched, parent, grandparent] = [0, 1, 2].map(() => new Uint8Array(this.T));
    if (!this.hasFeatures) return { touched, parent, grandparent };
    const older = coarser ? coarser.coarser : null, caches = [new Map(), new Map()];
    this.counts = this.touchedCells();
    this.counts.forEach((count, index) => {
      if (!count) return;
      const v = coordinates(index, this.sides), e = this.entry(v);
      touched[e] = Math.max(touched[e], count);
      if (coarser) parent[e] = Math.max(parent[e], this.magnitudeAt(v, coarser, caches[0]));
      if (older) grandparent[e] = Math.max(grandparent[e], this.magnitudeAt(v, older, caches[1]));
    });
    return { touched, parent, grandparent };
  }
  // The largest sum of sizes over the vertices next to a touched vertex of each entry.
  neighbourMagnitudes(sizes) {
    const found = new Uint8Array(this.T);
    this.counts.forEach((count, index) => {
      if (!count) return;
      const v = coordinates(index, this.sides), e = this.entry(v);
      let total = 0;
      for (let axis = 0; axis < this.dims; axis++) {
        for (const step of [-1, 1]) {
          const c = v[axis] + step;
          if (c >= 0 && c <= this.N[axis]) total += sizes[this.entry(v.with(axis, c))];
        }
      }
      found[e] = Math.max(found[e], total);
    });
    return found;
  }
  read(data, channels, coarser, what) {
    const bytes = new Bytes(data, what), p = bytes.u8(8, 16), lanes = bytes.varint(1, 1024);
    const bits = new Bits(bytes.take(bytes.varint()), what);
    const stream = new Stream(bytes.rest(), lanes, what);
    this.coarser = coarser;
    const { touched, parent, grandparent } = this.features(coarser);
    const all = this.isSaturated || !this.occupancy, entries = [];
    for (let e = 0; e < this.T; e++) if (all || touched[e]) entries.push(e);
    const symbols = new Int16Array(this.T * channels), totals = new Uint16Array(this.T);
    for (let channel = 0; channel < channels; channel++) {
      const passes = bits.bit() ? [(e) => e % 2 === 0, (e) => e % 2 === 1] : [() => true];
      passes.forEach((takes, number) => {
        const model = readModel(bits, channel > 0, number > 0, p), { w } = model;
        const chosen = passes.length > 1 ? entries.filter(takes) : entries;
        let neighbours = null;
        if (w[5] && this.hasNeighbours) {
          const sizes = new Uint8Array(this.T);
          for (const e of entries) sizes[e] = Math.min(31, Math.abs(symbols[e * channels + channel]));
          neighbours = this.neighbourMagnitudes(sizes);
        }
        stream.begin();
        for (const e of chosen) {
          const place = e * channels + channel;
          const partner = number ? symbols[(e ^ 1) * channels + channel] : 0;
          const score = w[0] * touched[e] + w[1] * parent[e] + w[2] * Math.min(31, totals[e])
            + w[3] * Math.min(31, Math.abs(partner)) + w[4] * grandparent[e]
            + (neighbours ? w[5] * neighbours[e] : 0);
          const before = channel ? symbols[place - 1] : 0;
          const table = model.tables[classOf(model, score, before, partner)];
          demand(table, `${what} has a class without a table`);
          symbols[place] = stream.symbol(table);
        }
      });
      for (const e of entries) totals[e] += Math.abs(symbols[e * channels + channel]);
    }
    bits.end();
    stream.end();
    this.counts = null;
    if (coarser) coarser.coarser = null;
    this.sizes = totals.map((total) => Math.min(31, total));
    return symbols;
  }
}

function classOf(model, score, before, partner) {
  const { r, u, thresholds } = model, clip = (v, reach) => reach + Math.min(Math.max(v, -reach), reach);
  let number = 0;
  while (number < thresholds.length && thresholds[number] <= score) number++;
  return (number * (2 * r + 1) + clip(before, r)) * (2 * u + 1) + clip(partner, u);
}

function readModel(bits, hasBefore, hasPartner, p) {
  const w = Array.from({ length: 6 }, () => within(bits.golomb(1), 0, 63, `a weight of ${bits.what}`));
  const r = bits.take(2), u = bits.take(2);
  demand(hasBefore || (w[2] === 0 && r === 0), `${bits.what} looks at a channel before the first`);
  demand(hasPartner || (w[3] === 0 && u === 0 && w[5] === 0),
    `${bits.what} looks at partners in a first pass`);
  const thresholds = [];
  let threshold = 0;
  for (let t = bits.take(4); t > 0; t--) {
    threshold += bits.golomb(4) + 1;
    thresholds.push(within(threshold, 0, 47376, `a threshold of ${bits.what}`));
  }
  const number = (thresholds.length + 1) * (2 * r + 1) * (2 * u + 1);
  let before = null;
  const tables = Array.from({ length: number }, () => {
    if (!bits.take(1)) return null;
    before = readTable(bits, p, before);
    return before;
  });
  return { w, r, u, thresholds, tables };
}

// ---- section 1: container and small sections

const KNOWN = ["HEAD", "GRID", "RNDR", "OCCU", "WGTS", "cams", "meta", "psnr", "LATN"];

function readTag(contents) {
  const tag = Buffer.from(contents.take(4)).toString("latin1");
  demand(/^([A-Z]{4}|[a-z]{4})$/.test(tag), "a section has an impossible tag");
  return tag;
}

function readContents(contents) {
  const entries = [];
  for (let before = ""; contents.at < contents.data.length; ) {
    const tag = readTag(contents);
    demand(tag !== before, `sections ${tag} stand in two runs`);
    before = tag;
    for (let left = contents.varint(1, 256 - entries.length); left > 0; left--) {
      entries.push({ tag, size: contents.varint(), sum: contents.u32() });
    }
  }
  return entries;
}

function readSections(data) {
  const head = new Bytes(data, "the container");
  demand(String.fromCharCode(...head.take(4)) === "SHCR", "this is no .shacira file");
  demand(head.u8() === 1 && head.u8() === 0, "this is another version of the format");
  demand(head.u8() === 0 && head.u8() === 0, "the flags are not 0");
  const length = within(head.u32(), 1, 4096, "the length of the contents"), crc = head.u32();
  const raw = head.take(length);
  demand(crc32(raw) === crc, "the contents are damaged");
  const entries = readContents(new Bytes(raw, "the contents")), levels = [], parts = {};
  let end = 16 + length, last = 0;
  for (const { tag, size, sum } of entries) {
    const offset = end;
    end += size;
    demand(end <= data.length, `section ${tag} goes beyond the end of the file`);
    const payload = data.subarray(offset, end), place = KNOWN.indexOf(tag);
    demand(crc32(payload) === sum, `section ${tag} is damaged`);
    if (place < 0) {
      demand(tag !== tag.toUpperCase(), `section ${tag} is unknown`);
      continue;
    }
    demand(place > last || tag === "LATN" || (tag === "HEAD" && !parts.HEAD),
      `section ${tag} is out of order`);
    demand(place >= last, `section ${tag} is out of order`);
    last = place;
    if (tag === "LATN") levels.push(payload); else parts[tag] = payload;
  }
  demand(end === data.length, "the file does not end with its last section");
  for (const tag of ["HEAD", "GRID", "WGTS"]) demand(parts[tag], `section ${tag} is missing`);
  return { parts, levels };
}

function canonical(value) {
  if (typeof value === "string") {
    return JSON.stringify(value).replace(/[\u007f-\uffff]/g,
      (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  }
  if (typeof value === "number") {
    demand(Number.isSafeInteger(value), "a number in JSON is no integer below 2^53");
    return String(value);
  }
  return refuse("a value in JSON is no string or integer");
}

function readJson(payload, most, what) {
  demand(payload.length <= most, `${what} is too long`);
  const text = Buffer.from(payload).toString("latin1");
  let value;
  try { value = JSON.parse(text); } catch { refuse(`${what} is no JSON`); }
  demand(value !== null && typeof value === "object" && !Array.isArray(value), `${what} is no object`);
  const members = Object.keys(value).sort().map((key) => `${canonical(key)}:${canonical(value[key])}`);
  demand(`{${members.join(",")}}` === text, `${what} is not canonical JSON`);
  return value;
}

function checkMetadata(metadata, what, isWord) {
  for (const [key, value] of Object.entries(metadata)) {
    demand(/^[a-z0-9_]{1,64}$/.test(key), `${what} has an impossible key`);
    demand(typeof value === "number" || isWord(value), `${what} has an impossible text`);
  }
}

function readGrid(payload) {
  const bytes = new Bytes(payload, "GRID"), shape = bytes.u8(), isEqual = shape < 128;
  const dims = within(shape % 128, 2, 3, "the number of axes");
  const count = bytes.u8(1, 64), channels = bytes.u8(1, 16), levels = [];
  let before = new Array(dims).fill(0);
  for (let level = 0; level < count; level++) {
    const steps = Array.from({ length: isEqual ? 1 : dims }, () => bytes.varint());
    const N = before.map((n, axis) => within(
      n + steps[isEqual ? 0 : axis], 2, 2 ** 20, "a resolution"));
    const T = within(readSize(bytes, product(N)), 8, 2 ** 28, "a table size");
    demand(T % 8 === 0, "a table size is no multiple of 8");
    demand(product(N) <= T || Number.isInteger(Math.log2(T)), "a hashed table is no power of two");
    levels.push({ N, T });
    before = N;
  }
  demand(isEqual || levels.some(({ N }) => N.some((n) => n !== N[0])),
    "GRID stores equal axes one by one");
  bytes.end();
  return { dims, channels, levels };
}

function readSize(bytes, vertices) {
  const code = bytes.u8(), dense = 8 * Math.ceil(vertices / 8);
  if (code === 0) return dense;
  const T = code === 255 ? bytes.varint() : 2 ** within(code, 3, 28, "a code of a table size");
  demand(T !== dense && (code !== 255 || !(T >= 8 && Number.isInteger(Math.log2(T)))),
    "a table size is not in its shortest form");
  return T;
}

function readHead(payload, grid) {
  const bytes = new Bytes(payload, "HEAD"), kind = bytes.u8(0, 2);
  demand(grid.dims === [3, 2, 3][kind], "kind does not fit GRID");
  const present = bytes.u8(1, grid.levels.length);
  const digest = Buffer.from(bytes.take(32)).toString("hex");
  checkMetadata(readJson(bytes.rest(), 65536, "HEAD"), "architecture",
    (text) => /^[ -~]{0,200}$/.test(text));
  return { present, digest };
}

function checkSize(grid, present, fileBytes) {
  const total = grid.levels.reduce((sum, { T }) => sum + T, 0);
  demand(total <= 2 ** 27, "GRID claims too many entries");
  demand(total * grid.channels <= Math.max(2 ** 24, 2048 * fileBytes), "GRID claims too many symbols");
  for (const { T } of grid.levels.slice(0, present)) {
    demand(T <= Math.max(2 ** 20, 64 * fileBytes), "GRID claims too large a level");
  }
  const lengths = grid.levels.slice(0, present).map(({ N }) => Math.max(...N));
  demand(lengths.reduce((a, b) => a + b) <= Math.max(2 ** 17, 8 * fileBytes),
    "GRID claims too long levels");
}

function checkRendering(payload, dims) {
  const bytes = new Bytes(payload, "RNDR"), contraction = bytes.u8(0, 1);
  bytes.u8(0, 3);
  const numbers = Array.from({ length: 2 * dims + 8 }, () => bytes.f32());
  bytes.end();
  const low = numbers.slice(0, dims), high = numbers.slice(dims, 2 * dims);
  const [near, far, step, knee, stop, ...color] = numbers.slice(2 * dims);
  demand(low.every((v, axis) => v < high[axis]), "the box is empty");
  demand(near >= 0 && near < far && step > 0 && knee >= 0 && stop >= 0 && stop < 1
    && color.every((c) => c >= 0 && c <= 1), "a render setting is out of range");
  const least = 2 ** -40, most = 2 ** 40, sides = high.map((v, axis) => v - low[axis]);
  demand([...low, ...high].every((v) => Math.abs(v) <= most) && far <= most && knee <= most
    && sides.every((side) => side >= least) && step >= least && (knee === 0 || knee >= least),
  "a length of RNDR is out of range");
  const g = (t) => (knee === 0 || t <= knee ? t : knee * (2 - knee / t));
  const diagonal = Math.sqrt(sides.reduce((sum, side) => sum + side * side, 0));
  const span = Math.min(g(far) - g(near), contraction === 0 ? diagonal : Infinity);
  demand(span / step <= 2 ** 16, "a ray has too many steps");
}

function readWeights(payload) {
  const bytes = new Bytes(payload, "WGTS"), tensors = [];
  let left = 2 ** 22, before = "";
  for (let number = bytes.varint(0, 4096); number > 0; number--) {
    const name = Buffer.from(bytes.take(bytes.u8(1))).toString("latin1");
    demand(/^[a-z0-9_.]+$/.test(name) && name > before, "a tensor's name is impossible");
    before = name;
    const shape = [];
    for (let axes = bytes.u8(1, 3); axes > 0; axes--) shape.push(bytes.varint(1));
    const count = shape.reduce((a, b) => a * b);
    left -= count;
    demand(left >= 0, "WGTS claims too many values");
    const mode = bytes.u8(0, 2);
    demand(mode === 0 || shape[0] > 1, "steps per row of a single row");
    for (let steps = mode === 1 ? shape[0] : 1; steps > 0; steps--) {
      demand(bytes.f32() > 0, "a step is not above 0");
    }
    tensors.push(readArray(bytes, count, -2047, 2047));
  }
  bytes.end();
  return tensors;
}

function readCameras(payload) {
  const bytes = new Bytes(payload, "cams"), n = bytes.varint(1, 65536), shared = bytes.u8(0, 1);
  for (let i = shared ? 1 : n; i > 0; i--) {
    for (let k = 0; k < 2; k++) within(bytes.f32(), 2 ** -10, 2 ** 24, "a focal length");
    for (let k = 0; k < 2; k++) within(bytes.f32(), -(2 ** 24), 2 ** 24, "a principal point");
    const [width, height] = [bytes.u32(), bytes.u32()].map((side) => within(side, 1, 65536, "a side"));
    demand(width * height <= 2 ** 27, "a camera has too many pixels");
  }
  const poses = bytes.u8(0, 1) ? readRotations(bytes, n) : readMatrices(bytes, n);
  bytes.end();
  const floats = new Bytes(poses, "cams");
  const elements = Array.from({ length: 12 }, () => Array.from({ length: n }, () => floats.f32()));
  for (let i = 0; i < n; i++) checkPose(elements.map((values) => values[i]));
  return poses;
}

function checkPose(pose) {
  const column = (k) => [pose[k], pose[k + 4], pose[k + 8]];
  const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
  const [x, y, z] = [0, 1, 2].map(column);
  [[x, x, 1], [y, y, 1], [z, z, 1], [x, y, 0], [x, z, 0], [y, z, 0]].forEach(([u, v, one]) =>
    demand(Math.abs(dot(u, v) - one) <= 1 / 16, "a pose is no rotation"));
  const cross = [y[1] * z[2] - y[2] * z[1], y[2] * z[0] - y[0] * z[2], y[0] * z[1] - y[1] * z[0]];
  demand(dot(x, cross) > 0, "a pose is mirrored");
  column(3).forEach((shift) => within(shift, -(2 ** 40), 2 ** 40, "a position"));
}

// The bytes of the elements: for each element all cameras.
function readMatrices(bytes, n) {
  const planes = [0, 1, 2, 3].map(() => readArray(bytes, 12 * n, 0, 255));
  const poses = new Uint8Array(48 * n);
  for (let i = 0; i < 12 * n; i++) planes.forEach((plane, k) => { poses[4 * i + k] = plane[i]; });
  return poses;
}

function readRotations(bytes, n) {
  const step = 2 ** (bytes.u8(0, 80) - 40), missing = readArray(bytes, n, 0, 3);
  const upper = readArray(bytes, 6 * n, 0, 255), lower = readArray(bytes, 6 * n, 0, 255);
  const poses = new DataView(new ArrayBuffer(48 * n));
  for (let camera = 0; camera < n; camera++) {
    const [a, b, c, ...shift] = [0, 1, 2, 3, 4, 5].map((k) => within(
      256 * upper[k * n + camera] + lower[k * n + camera] - 32768, -32767, 32767, "a pose of cams"));
    const rest = 46340 ** 2 - a * a - b * b - c * c;
    demand(rest >= 0, "a quaternion of cams is too long");
    const parts = [a / 46340, b / 46340, c / 46340];
    parts.splice(missing[camera], 0, Math.sqrt(rest) / 46340);
    const [w, x, y, z] = parts, [i, j, k] = shift;
    const elements = [
      1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), i * step,
      2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), j * step,
      2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), k * step,
    ];
    elements.forEach((value, e) => poses.setFloat32(4 * (e * n + camera), value, true));
  }
  return new Uint8Array(poses.buffer);
}

// ---- the whole file

function sha256(arrays) {
  const hash = createHash("sha256");
  for (const array of arrays) {
    const bytes = new DataView(new ArrayBuffer(array.length * array.BYTES_PER_ELEMENT));
    if (array.BYTES_PER_ELEMENT === 2) array.forEach((v, i) => bytes.setInt16(2 * i, v, true));
    else array.forEach((v, i) => bytes.setUint8(i, v));
    hash.update(new Uint8Array(bytes.buffer));
  }
  return hash.digest("hex");
}

function decode(data) {
  const { parts, levels } = readSections(data), grid = readGrid(parts.GRID);
  const { present, digest } = readHead(parts.HEAD, grid);
  demand(levels.length === present, `${levels.length} levels where HEAD says ${present}`);
  checkSize(grid, present, data.length);
  const occupancy = parts.OCCU ? readOccupancy(parts.OCCU, grid.dims, data.length) : null;
  if (parts.RNDR) checkRendering(parts.RNDR, grid.dims);
  const result = { weights: sha256(readWeights(parts.WGTS)) };
  if (occupancy) result.occupancy = sha256([occupancy.cells]);
  if (parts.cams) result.cameras = sha256([readCameras(parts.cams)]);
  if (parts.meta) checkMetadata(readJson(parts.meta, 2 ** 20, "meta"), "meta", () => true);
  demand(!parts.psnr || parts.psnr.length === 2 * grid.levels.length, "psnr has a wrong length");
  const symbols = [];
  let coarser = null;
  levels.forEach((payload, number) => {
    const { N, T } = grid.levels[number];
    const level = new Level(grid.channels, N, T, occupancy, coarser);
    symbols.push(level.read(payload, grid.channels, coarser, `LATN ${number}`));
    coarser = level;
  });
  result.symbols = sha256(symbols);
  demand(result.symbols === digest, "the symbols do not have the digest of HEAD");
  return result;
}

const files = process.argv.slice(2).filter((argument) => argument !== "--all");
try {
  demand(files.length === 1, "usage: node independent_decoder.mjs [--all] FILE");
  const found = decode(new Uint8Array(readFileSync(files[0])));
  console.log(process.argv.includes("--all") ? JSON.stringify(found) : found.symbols);
} catch (error) {
  console.error(`${files[0] ?? ""}: ${error.message.split("\n")[0]}`);
  process.exitCode = 1;
}
