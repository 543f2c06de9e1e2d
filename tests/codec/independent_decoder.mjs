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
  u64() {
    const low = this.u32(), high = this.u32();
    demand(high < 1 << 21, `a length of ${this.what} is too large`);
    return low + high * 2 ** 32;
  }
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
  // `find` gives the letter of a slot, `freq` and `start` what belongs to the letter.
  next(p, find, freq, start) {
    demand(this.states.length > 0, `${this.what} has symbols but no bytes`);
    const size = 2 ** p, old = this.states[this.lane], slot = old % size;
    const letter = find(slot);
    let x = freq(letter) * Math.floor(old / size) + slot - start(letter);
    if (x < 65536) {
      demand(this.at + 2 <= this.words.length, `${this.what} runs out of words`);
      x = 65536 * x + this.words[this.at] + 256 * this.words[this.at + 1];
      this.at += 2;
    }
    this.states[this.lane] = x;
    this.lane = (this.lane + 1) % this.states.length;
    return letter;
  }
  symbol(table) {
    if (table.freqs.length === 1) return table.minimum;
    const find = (slot) => table.letters[slot];
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

function readRoot(bits, expected) {
  const u = bits.golomb(Math.max(0, 32 - Math.clz32(expected) - 2));
  return u > 2 * expected ? u : expected + (u % 2 ? -(u + 1) / 2 : u / 2);
}

// `above`: the table before this one, where there is one to be relative to.
function readTable(bits, p, above) {
  const what = `a table of ${bits.what}`;
  const minimum = above ? above.minimum + bits.signed(0) : bits.signed(2);
  const n = above
    ? above.minimum + above.roots.length + bits.signed(0) - minimum : bits.golomb(2) + 1;
  within(minimum, -4095, 4095, `the minimum of ${what}`);
  within(minimum + n - 1, minimum, 4095, `the maximum of ${what}`);
  const roots = [];
  const push = (root, count) => {
    within(root, 0, 1024, `a root of ${what}`);
    demand(roots.length + count <= n, `${what} has too many roots`);
    while (count-- > 0) roots.push(root);
  };
  for (let previous = 0; roots.length < n; ) {
    if (!above) {
      previous = readRoot(bits, previous);
      push(previous, previous ? 1 : bits.golomb(1) + 1);
      continue;
    }
    const place = minimum + roots.length - above.minimum;
    const h = above.roots[place] ?? 0, t = above.roots[place - 1] ?? 0;
    const x = t === 0 ? Math.floor((previous + h + 1) / 2)
      : Math.min(1024, Math.floor((h * (previous + 2) + Math.floor((t + 2) / 2)) / (t + 2)));
    const isOuter = +(roots.length === 0 || roots.length === n - 1);
    previous = readRoot(bits, Math.max(0, x - isOuter)) + isOuter;
    push(previous, 1);
    if (previous === 0 && x === 0) push(0, bits.golomb(0));
  }
  const present = roots.filter((root) => root > 0).length, whole = 2 ** p;
  demand(roots[0] && roots[n - 1] && present <= whole, `${what} has wrong roots`);
  let weights = roots.map((root) => (root ? (root - 1) ** 2 : 0));
  if (weights.every((w) => w === 0)) weights = roots.map((root) => +(root > 0));
  const total = weights.reduce((a, b) => a + b);
  const freqs = roots.map(
    (root, i) => (root ? 1 + Math.floor((weights[i] * (whole - present)) / total) : 0));
  let largest = 0;
  freqs.forEach((f, i) => { if (f > freqs[largest]) largest = i; });
  freqs[largest] += whole - freqs.reduce((a, b) => a + b);
  const starts = [], letters = new Uint16Array(whole);
  let sum = 0;
  freqs.forEach((f, i) => { starts.push(sum); letters.fill(i, sum, sum + f); sum += f; });
  return { minimum, roots, freqs, starts, letters, p };
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

// All cells of {0 … side - 1}^D, the last axis fastest.
function* cellsOf(side, dims) {
  const cell = new Array(dims).fill(0);
  for (let left = side ** dims; left > 0; left--) {
    yield cell;
    for (let axis = dims - 1; axis >= 0; axis--) {
      if (++cell[axis] < side) break;
      cell[axis] = 0;
    }
  }
}

const flat = (cell, side) => cell.reduce((index, c) => index * side + c, 0);

function coordinates(index, side, dims) {
  const cell = new Array(dims);
  for (let axis = dims - 1; axis >= 0; axis--, index = Math.floor(index / side)) {
    cell[axis] = index % side;
  }
  return cell;
}

function backwards(dims) {
  const result = [];
  for (const step of cellsOf(3, dims)) {
    const shifts = step.map((s) => s - 1);
    const leading = [...shifts].reverse().find((s) => s !== 0);
    if (leading === -1) result.push(shifts);
  }
  return result;
}

function readGridOfCells(stream, side, dims, blocks) {
  const fronts = [], coarse = Math.ceil(side / 4), occupied = new Uint8Array(side ** dims);
  for (const cell of cellsOf(side, dims)) {
    if (blocks && !blocks[flat(cell.map((c) => c >> 2), coarse)]) continue;
    const front = cell.reduce((sum, c, axis) => sum + c * 2 ** axis, 0);
    (fronts[front] ??= []).push([...cell]);
  }
  const neighbours = backwards(dims), seen = new Float64Array(2 ** (neighbours.length + 1));
  for (const front of fronts) {
    if (!front) continue;
    const patterns = front.map((cell) => neighbours.reduce((pattern, shift) => {
      const other = cell.map((c, axis) => c + shift[axis]);
      const inside = other.every((c) => c >= 0 && c < side);
      return 2 * pattern + (inside ? occupied[flat(other, side)] : 0);
    }, 0));
    stream.begin();
    front.forEach((cell, i) => {
      const a = seen[2 * patterns[i]], b = seen[2 * patterns[i] + 1];
      const f = Math.floor(((5 * b + 2) * 65536) / (5 * (a + b) + 4));
      occupied[flat(cell, side)] = stream.occupied(Math.min(Math.max(f, 1), 65535));
    });
    front.forEach((cell, i) => { seen[2 * patterns[i] + occupied[flat(cell, side)]]++; });
  }
  return occupied;
}

function readOccupancy(data, dims, fileBytes) {
  const bytes = new Bytes(data, "OCCU"), side = bytes.varint(1), lanes = bytes.varint(1, 1024);
  const most = Math.min(2 ** 24, Math.max(2 ** 21, 128 * fileBytes));
  demand(side ** dims <= most, `OCCU claims ${side}^${dims} cells`);
  const stream = new Stream(bytes.rest(), lanes, "OCCU"), sides = [side];
  while (sides[0] > 8) sides.unshift(Math.ceil(sides[0] / 4));
  let cells = null;
  for (const each of sides) cells = readGridOfCells(stream, each, dims, cells);
  stream.end();
  return { side, cells };
}

// ---- section 6: levels

class Level {
  constructor(version, channels, dims, N, T, occupancy, coarser) {
    Object.assign(this, { version, dims, N, T, occupancy });
    this.isDense = N ** dims <= T;
    const G = occupancy ? occupancy.side : 1;
    this.lo = Array.from({ length: G + 1 },
      (_, c) => Math.floor((2 * c * (N - 1) + G) / (2 * G)));
    // vertices of the hashed levels that are walked, up to here
    this.walked = coarser ? coarser.walked : 0;
    const vertices = (N + 1) ** dims;
    this.isCrowded = !this.isDense
      && (this.walked + vertices > 2 ** 28 || this.load(24) > 24 * T);
    if (!this.isDense && !this.isCrowded) this.walked += vertices;
    // likewise of the crowded levels that are described, and of those with neighbours
    this.described = coarser ? coarser.described : 0;
    this.counted = coarser ? coarser.counted : 0;
    this.isDescribed = !this.isCrowded || (version > 1
      && this.described + vertices <= 2 ** 26 && this.load(64) <= 64 * T);
    if (this.isCrowded && this.isDescribed) this.described += vertices;
    this.hasNeighbours = version > 1 && this.isDescribed
      && this.counted + vertices * channels <= 2 ** 28;
    if (this.hasNeighbours) this.counted += vertices * channels;
  }
  *occupiedCells() {
    if (!this.occupancy) { yield new Array(this.dims).fill(0); return; }
    let i = 0;
    for (const cell of cellsOf(this.occupancy.side, this.dims)) {
      if (this.occupancy.cells[i++]) yield cell;
    }
  }
  load(most) {
    let sum = 0;
    for (const cell of this.occupiedCells()) {
      sum += cell.reduce((product, c) => product * (this.lo[c + 1] - this.lo[c] + 2), 1);
      if (sum > most * this.T) break;
    }
    return sum;
  }
  entry(v) {
    const { N, T } = this;
    if (this.isDense) return v.reduce((sum, c, axis) => sum + c * N ** axis, 0) % T;
    let hash = v[0] ^ Math.imul(v[1], 2654435761 | 0);
    if (this.dims === 3) hash ^= Math.imul(v[2], 805459861);
    return (hash >>> 0) % T;
  }
  // For every vertex, x slowest: how many touched level cells have it as a corner.
  supports() {
    const { N, dims } = this, touched = new Uint8Array(N ** dims);
    for (const cell of this.occupiedCells()) {
      const mark = (axis, index) => {
        if (axis === dims) { touched[index] = 1; return; }
        const last = this.lo[cell[axis] + 1];
        for (let j = this.lo[cell[axis]]; j <= last; j++) mark(axis + 1, index * N + j);
      };
      mark(0, 0);
    }
    const counts = new Uint8Array((N + 1) ** dims);
    const corners = Array.from(cellsOf(2, dims), (corner) => flat(corner, N + 1));
    for (let cell = touched.indexOf(1); cell >= 0; cell = touched.indexOf(1, cell + 1)) {
      const vertex = flat(coordinates(cell, N, dims), N + 1);
      for (const corner of corners) counts[vertex + corner]++;
    }
    return counts;
  }
  // The magnitude at a vertex: the sum over the corners of the coarser level's cell around it.
  magnitudeAt(v, coarser, cache) {
    const { N } = this, M = coarser.N;
    const cell = v.map((c) => Math.min(
      Math.floor(((2 * c - 1) * (M - 1) + N - 1) / (2 * (N - 1))), M - 1));
    const key = flat(cell, M);
    if (!cache.has(key)) {
      let sum = 0;
      for (const corner of cellsOf(2, this.dims)) {
        sum += coarser.sizes[coarser.entry(cell.map((c, axis) => c + corner[axis]))];
      }
      cache.set(key, sum);
    }
    return cache.get(key);
  }
  features(coarser) {
    const support = new Uint8Array(this.T), magnitude = new Uint8Array(this.T);
    const ancestry = new Uint8Array(this.T), cache = new Map(), older = new Map();
    if (!this.isDescribed) return { support, magnitude, ancestry };
    const ancestor = coarser && this.version > 1 ? coarser.coarser : null;
    this.counts = this.supports();
    this.counts.forEach((count, index) => {
      if (!count) return;
      const v = coordinates(index, this.N + 1, this.dims), e = this.entry(v);
      support[e] = Math.max(support[e], count);
      if (coarser) magnitude[e] = Math.max(magnitude[e], this.magnitudeAt(v, coarser, cache));
      if (ancestor) ancestry[e] = Math.max(ancestry[e], this.magnitudeAt(v, ancestor, older));
    });
    return { support, magnitude, ancestry };
  }
  // The largest sum of sizes over the vertices next to a touched vertex of each entry.
  around(sizes) {
    const found = new Uint8Array(this.T);
    this.counts.forEach((count, index) => {
      if (!count) return;
      const v = coordinates(index, this.N + 1, this.dims), e = this.entry(v);
      let total = 0;
      for (let axis = 0; axis < this.dims; axis++) {
        for (const step of [-1, 1]) {
          const c = v[axis] + step;
          if (c >= 0 && c <= this.N) total += sizes[this.entry(v.with(axis, c))];
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
    const { support, magnitude, ancestry } = this.features(coarser), all = this.isCrowded || !this.occupancy;
    const entries = [];
    for (let e = 0; e < this.T; e++) if (all || support[e]) entries.push(e);
    const symbols = new Int16Array(this.T * channels), totals = new Uint16Array(this.T);
    for (let channel = 0; channel < channels; channel++) {
      const passes = bits.bit() ? [(e) => e % 2 === 0, (e) => e % 2 === 1] : [() => true];
      passes.forEach((takes, number) => {
        const model = readModel(bits, this.version, channel > 0, number > 0, p);
        const chosen = passes.length > 1 ? entries.filter(takes) : entries;
        let around = null;
        if (model.n && this.hasNeighbours) {
          const sizes = new Uint8Array(this.T);
          for (const e of entries) sizes[e] = Math.min(31, Math.abs(symbols[e * channels + channel]));
          around = this.around(sizes);
        }
        stream.begin();
        for (const e of chosen) {
          const place = e * channels + channel;
          const partner = number ? symbols[(e ^ 1) * channels + channel] : 0;
          const score = model.a * support[e] + model.b * magnitude[e]
            + model.e * Math.min(31, totals[e]) + model.g * Math.min(31, Math.abs(partner))
            + model.h * ancestry[e] + (around ? model.n * around[e] : 0);
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

function readModel(bits, version, hasBefore, hasPartner, p) {
  const weight = () => within(bits.golomb(1), 0, 63, `a weight of ${bits.what}`);
  const a = weight(), b = weight(), e = weight(), g = weight();
  const h = version > 1 ? weight() : 0, n = version > 1 ? weight() : 0;
  const r = bits.take(2), u = bits.take(2), most = version > 1 ? 47376 : 20034;
  demand(hasBefore || (e === 0 && r === 0), `${bits.what} looks at a channel before the first`);
  demand(hasPartner || (g === 0 && u === 0 && n === 0), `${bits.what} looks at partners in a first pass`);
  const thresholds = [];
  let threshold = 0;
  for (let t = bits.take(4); t > 0; t--) {
    threshold += bits.golomb(4) + 1;
    thresholds.push(within(threshold, 0, most, `a threshold of ${bits.what}`));
  }
  const number = (thresholds.length + 1) * (2 * r + 1) * (2 * u + 1);
  let above = null;
  const tables = Array.from({ length: number }, () => {
    if (!bits.take(1)) return null;
    const table = readTable(bits, p, above);
    if (version > 2) above = table;
    return table;
  });
  return { a, b, e, g, h, n, r, u, thresholds, tables };
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

function readOldContents(contents) {
  const entries = [];
  demand(contents.data.length % 24 === 0, "the contents have a wrong length");
  for (let end = 16 + contents.data.length; contents.at < contents.data.length; ) {
    const tag = readTag(contents), offset = contents.u64(), size = contents.u64();
    demand(offset === end, `section ${tag} begins in the wrong place`);
    end += size;
    entries.push({ tag, size, sum: contents.u32() });
  }
  return entries;
}

function readSections(data) {
  const head = new Bytes(data, "the container");
  demand(String.fromCharCode(...head.take(4)) === "SHCR", "this is no .shacira file");
  const version = within(head.u8(), 1, 3, "the version of the format");
  demand(head.u8() === 0, "this is another version of the format");
  demand(head.u8() === 0 && head.u8() === 0, "the flags are not 0");
  const length = within(head.u32(), 1, 24 * 256, "the length of the contents"), crc = head.u32();
  const raw = head.take(length);
  demand(crc32(raw) === crc, "the contents are damaged");
  const contents = new Bytes(raw, "the contents"), levels = [], parts = {};
  const entries = version > 2 ? readContents(contents) : readOldContents(contents);
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
  return { version, parts, levels };
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
  demand(value !== null && typeof value === "object" && !Array.isArray(value),
    "a value in JSON is no string, integer or object");
  const members = Object.keys(value).sort().map((key) => `${canonical(key)}:${canonical(value[key])}`);
  return `{${members.join(",")}}`;
}

function readJson(payload, most, what) {
  demand(payload.length <= most, `${what} is too long`);
  const text = Buffer.from(payload).toString("latin1");
  let value;
  try { value = JSON.parse(text); } catch { refuse(`${what} is no JSON`); }
  demand(typeof value === "object" && canonical(value) === text, `${what} is not canonical JSON`);
  return value;
}

function checkFacts(facts, what, isWord) {
  demand(typeof facts === "object", `${what} is no object`);
  for (const [key, value] of Object.entries(facts)) {
    demand(/^[a-z0-9_]{1,64}$/.test(key), `${what} has an impossible key`);
    demand(typeof value === "number" || (typeof value === "string" && isWord(value)),
      `${what} holds something else than integers and strings`);
  }
}

function readGrid(version, payload) {
  const bytes = new Bytes(payload, "GRID");
  const dims = bytes.u8(2, 3), count = bytes.u8(1, 64), channels = bytes.u8(1, 16), pairs = [];
  let before = 0;
  for (let level = 0; level < count; level++) {
    const number = version > 2 ? before + bytes.varint() : bytes.u32();
    const N = within(number, Math.max(2, before), 2 ** 20, "a resolution");
    const T = within(version > 2 ? readSize(bytes, N ** dims) : bytes.u32(), 8, 2 ** 28, "a table size");
    demand(T % 8 === 0, "a table size is no multiple of 8");
    demand(N ** dims <= T || Number.isInteger(Math.log2(T)), "a hashed table is no power of two");
    pairs.push([N, T]);
    before = N;
  }
  bytes.end();
  return { dims, channels, pairs };
}

function readSize(bytes, vertices) {
  const code = bytes.u8(), dense = 8 * Math.ceil(vertices / 8);
  if (code === 0) return dense;
  const T = code === 255 ? bytes.varint() : 2 ** within(code, 3, 28, "a code of a table size");
  demand(T !== dense && (code !== 255 || !(T >= 8 && Number.isInteger(Math.log2(T)))),
    "a table size is not in its shortest form");
  return T;
}

function readHead(version, payload, grid) {
  const kinds = ["radiance_field", "image"];
  let head;
  if (version > 2) {
    const bytes = new Bytes(payload, "HEAD"), kind = kinds[bytes.u8(0, 1)];
    const present = bytes.u8(), digest = Buffer.from(bytes.take(32)).toString("hex");
    head = { kind, digest, num_levels_present: present, architecture: readJson(bytes.rest(), 65536, "HEAD") };
  } else {
    head = readJson(payload, 65536, "HEAD");
    const keys = ["architecture", "digest", "kind", "latent_dim", "num_dims", "num_entries",
      "num_levels", "num_levels_present"];
    demand(Object.keys(head).join() === keys.join(), "HEAD has other keys");
    const total = grid.pairs.reduce((sum, [, T]) => sum + T, 0);
    demand(head.num_dims === grid.dims && head.latent_dim === grid.channels
      && head.num_levels === grid.pairs.length && head.num_entries === total,
    "HEAD and GRID do not agree");
  }
  checkFacts(head.architecture, "architecture", (text) => /^[ -~]{0,200}$/.test(text));
  demand(head.kind === kinds[3 - grid.dims], "kind does not fit GRID");
  within(head.num_levels_present, 1, grid.pairs.length, "the number of levels present");
  return head;
}

function checkSize(grid, present, fileBytes) {
  const total = grid.pairs.reduce((sum, [, T]) => sum + T, 0);
  demand(total <= 2 ** 27, "GRID claims too many entries");
  demand(total * grid.channels <= Math.max(2 ** 24, 2048 * fileBytes), "GRID claims too many symbols");
  for (const [, T] of grid.pairs.slice(0, present)) {
    demand(T <= Math.max(2 ** 20, 64 * fileBytes), "GRID claims too large a level");
  }
}

function checkRendering(payload, dims) {
  const bytes = new Bytes(payload, "RNDR");
  bytes.u8(0, 1);
  bytes.u8(0, 3);
  const numbers = Array.from({ length: 2 * dims + 8 }, () => bytes.f32());
  bytes.end();
  const low = numbers.slice(0, dims), high = numbers.slice(dims, 2 * dims);
  const [near, far, step, knee, stop, ...color] = numbers.slice(2 * dims);
  demand(low.every((v, axis) => v < high[axis]), "the box is empty");
  demand(near >= 0 && near < far && step > 0 && knee >= 0 && stop >= 0 && stop < 1
    && color.every((c) => c >= 0 && c <= 1), "a render setting is out of range");
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

function readCameras(version, payload) {
  const bytes = new Bytes(payload, "cams"), n = bytes.varint(1, 65536), shared = bytes.u8(0, 1);
  for (let i = shared ? 1 : n; i > 0; i--) {
    for (let k = 0; k < 4; k++) bytes.f32();
    bytes.take(8);
  }
  const isRotation = version > 2 && bytes.u8(0, 1) === 1;
  const poses = isRotation ? readRotations(bytes, n) : readMatrices(bytes, n);
  bytes.end();
  const floats = new Bytes(poses, "cams");
  for (let i = 0; i < 12 * n; i++) floats.f32();
  return poses;
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
  const { version, parts, levels } = readSections(data), grid = readGrid(version, parts.GRID);
  const head = readHead(version, parts.HEAD, grid);
  const present = head.num_levels_present;
  demand(levels.length === present, `${levels.length} levels where HEAD says ${present}`);
  checkSize(grid, present, data.length);
  const occupancy = parts.OCCU ? readOccupancy(parts.OCCU, grid.dims, data.length) : null;
  if (parts.RNDR) checkRendering(parts.RNDR, grid.dims);
  const result = { weights: sha256(readWeights(parts.WGTS)) };
  if (occupancy) result.occupancy = sha256([occupancy.cells]);
  if (parts.cams) result.cameras = sha256([readCameras(version, parts.cams)]);
  if (parts.meta) checkFacts(readJson(parts.meta, 2 ** 20, "meta"), "meta", () => true);
  demand(!parts.psnr || parts.psnr.length === 2 * grid.pairs.length, "psnr has a wrong length");
  const symbols = [];
  let coarser = null;
  levels.forEach((payload, number) => {
    const level = new Level(version, grid.channels, grid.dims, ...grid.pairs[number], occupancy, coarser);
    symbols.push(level.read(payload, grid.channels, coarser, `LATN ${number}`));
    coarser = level;
  });
  result.symbols = sha256(symbols);
  demand(result.symbols === head.digest, "the symbols do not have the digest that HEAD states");
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
