// Interleaved rANS, frequency tables and arrays (codec/FORMAT.md, sections 2 to 4).

const BUCKETS = 256;  // of slots; each knows the symbol of its first slot

// Frequency tables one after the other, in flat arrays. Symbol s of table t stands at first[t] + s +
// t: each table has one more start than symbols, where its last one ends.
class TableSet {
  constructor(tables, p) {
    const lengths = tables.map((table) => table.starts.length);
    this.p = p;
    this.minimums = Int16Array.from(tables, (table) => table.minimum);
    this.isSingle = Uint8Array.from(lengths, (n) => (n === 2 ? 1 : 0));
    this.first = new Int32Array(tables.length);
    this.starts = new Int32Array(lengths.reduce((a, b) => a + b, 0));
    this.buckets = new Int32Array(tables.length * BUCKETS);
    let place = 0;
    tables.forEach(({ starts }, t) => {
      this.first[t] = place;
      this.starts.set(starts, place);
      const width = 2 ** p / BUCKETS;
      for (let b = 0, s = 0; b < BUCKETS; b++) {
        while (b * width >= starts[s + 1]) s++;
        this.buckets[t * BUCKETS + b] = place + s;
      }
      place += starts.length;
    });
  }
}

class Stream {
  constructor(data, lanes, what) {
    const bytes = new Bytes(data, what);
    this.what = what;
    this.states = Int32Array.from({ length: data.length ? lanes : 0 }, () => {
      const x = bytes.u32();
      demand(x >= 65536, `${what}: expected states of 65536 or more, found ${x}`);
      return x;
    });
    this.words = bytes.take(bytes.left);
    this.at = 0;
    demand(this.words.length % 2 === 0, `${what}: expected whole words, found half of one`);
  }
  needStates() { demand(this.states.length, `${this.what}: expected a stream, found no bytes`); }
  needWord() { demand(this.at + 2 <= this.words.length, `${this.what}: expected more words`); }

  // One segment: the symbol of each class. position: class -> table, -1 if it has none.
  decode(classes, position, set, symbols) {
    const { words, states } = this, { p, starts, buckets, first, minimums, isSingle } = set;
    const mask = 2 ** p - 1, shift = p - 8, lanes = states.length, numWords = words.length;
    let lane = 0, at = this.at;
    for (let i = 0; i < classes.length; i++) {
      const table = position[classes[i]];
      if (table < 0) throw new Refusal(`${this.what}: expected a table for every class that occurs`);
      if (isSingle[table]) { symbols[i] = minimums[table]; continue; }
      if (lanes === 0) this.needStates();
      const old = states[lane], slot = old & mask;
      let place = buckets[(table << 8) + (slot >> shift)];
      while (slot >= starts[place + 1]) place++;
      const start = starts[place];
      let x = (Math.imul(starts[place + 1] - start, old >>> p) + slot - start) | 0;
      if (x >>> 16 === 0) {
        if (at >= numWords) { this.at = at; this.needWord(); }
        x = (x << 16) | words[at] | (words[at + 1] << 8);
        at += 2;
      }
      states[lane] = x;
      if (++lane === lanes) lane = 0;
      symbols[i] = minimums[table] + place - first[table];
    }
    this.at = at;
  }

  // Of a segment's symbol in a lane, with two symbols and p = 16: whether it is the second one.
  decodeBit(lane, frequency) {
    if (this.states.length === 0) this.needStates();
    const old = this.states[lane], slot = old & 65535, free = 65536 - frequency;
    const bit = slot >= free ? 1 : 0;
    let x = (Math.imul(bit ? frequency : free, old >>> 16) + slot - (bit ? free : 0)) | 0;
    if (x >>> 16 === 0) {
      this.needWord();
      x = (x << 16) | this.words[this.at] | (this.words[this.at + 1] << 8);
      this.at += 2;
    }
    this.states[lane] = x;
    return bit;
  }

  end() {
    demand(this.states.every((x) => x === 65536), `${this.what}: expected to end in the first states`);
    const left = this.words.length - this.at;
    demand(left === 0, `${this.what}: expected the end of its words, found ${left} bytes more`);
  }
}

function readSqrtFreq(bits, expected) {
  const u = bits.golomb(Math.max(0, 30 - Math.clz32(expected)));
  return u > 2 * expected ? u : expected + (u % 2 ? -(u + 1) / 2 : u / 2);
}

// `most`: symbols that the table may have; `before`: the one that it is relative to, or null.
function readTable(bits, p, most, before) {
  const what = bits.what;
  const minimum = before ? before.minimum + bits.signed(0) : bits.signed(2);
  const n = before ? before.minimum + before.roots.length + bits.signed(0) - minimum : bits.golomb(2) + 1;
  within(minimum, -4095, 4095, `${what}: the smallest symbol`);
  within(minimum + n - 1, minimum, 4095, `${what}: the largest symbol`);
  demand(n <= most, `${what}: expected fewer symbols in its tables`);
  const roots = new Uint16Array(n);
  for (let count = 0, previous = 0, zeros; count < n; count += 1 + zeros) {
    zeros = 0;
    if (before) {
      const place = minimum + count - before.minimum;
      const h = before.roots[place] ?? 0, t = before.roots[place - 1] ?? 0;
      const x = t === 0 ? (previous + h + 1) >> 1
        : Math.min(1024, Math.floor((h * (previous + 2) + ((t + 2) >> 1)) / (t + 2)));
      const outer = count === 0 || count === n - 1 ? 1 : 0;
      previous = readSqrtFreq(bits, Math.max(0, x - outer)) + outer;
      if (previous === 0 && x === 0) zeros = bits.golomb(0);
    } else {
      previous = readSqrtFreq(bits, previous);
      if (previous === 0) zeros = bits.golomb(1);
    }
    within(previous, 0, 1024, `${what}: a frequency's root`);
    demand(count + 1 + zeros <= n, `${what}: expected ${n} symbols in a table, found more`);
    roots[count] = previous;
  }
  return { minimum, roots, starts: startsOf(roots, 2 ** p, what) };
}

// Where each symbol's slots begin, and the end of the last ones.
function startsOf(roots, whole, what) {
  let present = 0, total = 0;
  for (const r of roots) {
    present += r > 0 ? 1 : 0;
    total += r > 0 ? (r - 1) ** 2 : 0;
  }
  demand(roots[0] && roots[roots.length - 1] && present <= whole, `${what}: impossible frequencies`);
  const starts = new Int32Array(roots.length + 1);
  let sum = 0, largest = 0, most = 0;
  roots.forEach((r, i) => {
    const weight = total ? (r - 1) ** 2 : 1;
    const f = r ? 1 + Math.floor((weight * (whole - present)) / (total || present)) : 0;
    if (f > most) { most = f; largest = i; }
    sum += f;
    starts[i + 1] = sum;
  });
  for (let i = largest + 1; i <= roots.length; i++) starts[i] += whole - sum;
  return starts;
}

function readArray(bytes, count, low, high) {
  const what = bytes.what, values = new Int16Array(count);
  if (bytes.u8(0, 1) === 0) {
    const minimum = bytes.varint(0, 8190) - 4095, width = bytes.u8(0, 13);
    const bits = new Bits(bytes.take(Math.ceil((count * width) / 8)), what);
    for (let i = 0; i < count; i++) values[i] = minimum + bits.take(width);
    bits.end();
  } else {
    const p = bytes.u8(8, 16), lanes = bytes.varint(1, 1024);
    const tableBytes = bytes.varint(), streamBytes = bytes.varint();
    const bits = new Bits(bytes.take(tableBytes), what), table = readTable(bits, p, 8191, null);
    bits.end();
    const stream = new Stream(bytes.take(streamBytes), lanes, what);
    stream.decode(new Uint16Array(count), Int16Array.of(0), new TableSet([table], p), values);
    stream.end();
  }
  for (const value of values) within(value, low, high, `a value of ${what}`);
  return values;
}
