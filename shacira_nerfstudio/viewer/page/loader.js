// Unpacks the page's program and runs it, at once, as one classic script: html.py puts all scripts and
// shaders into PROGRAM, a zlib stream (RFC 1950 and 1951) in base64.

function fromBase64(text) {
  const binary = atob(text.trim()), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

class Unpacker {
  constructor(data) { Object.assign(this, { data, at: 2, bits: 0, held: 0, out: [] }); }
  take(count) {
    for (; this.held < count; this.held += 8) {
      if (this.at >= this.data.length) throw new Error("its end is missing");
      this.bits |= this.data[this.at++] << this.held;
    }
    const value = this.bits & ((1 << count) - 1);
    this.bits >>>= count;
    this.held -= count;
    return value;
  }
  symbol(codes) {
    let code = 1;  // what has been read, behind a 1
    do code = 2 * code + this.take(1); while (!codes.has(code) && code < 65536);
    return codes.get(code);
  }
  lengths(codes, count) {
    const lengths = [];
    while (lengths.length < count) {
      const symbol = this.symbol(codes);
      if (symbol < 16) { lengths.push(symbol); continue; }
      const value = symbol === 16 ? lengths[lengths.length - 1] : 0;
      const times = symbol === 16 ? 3 + this.take(2) : symbol === 17 ? 3 + this.take(3) : 11 + this.take(7);
      for (let n = 0; n < times; n++) lengths.push(value);
    }
    return lengths;
  }
  // The codes of literals and lengths, and those of distances, of a block of type 1 or 2.
  blockCodes(type) {
    if (type === 1) {
      const lengths = Array.from({ length: 288 }, (_, s) => (s < 144 ? 8 : s < 256 ? 9 : s < 280 ? 7 : 8));
      return [codesOf(lengths), codesOf(new Array(30).fill(5))];
    }
    const numLiterals = 257 + this.take(5), numDistances = 1 + this.take(5), own = new Array(19).fill(0);
    const order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];
    for (let i = 0, n = 4 + this.take(4); i < n; i++) own[order[i]] = this.take(3);
    const lengths = this.lengths(codesOf(own), numLiterals + numDistances);
    return [codesOf(lengths.slice(0, numLiterals)), codesOf(lengths.slice(numLiterals))];
  }
  block(type) {
    const { out } = this, [literals, distances] = this.blockCodes(type);
    for (let symbol = this.symbol(literals); symbol !== 256; symbol = this.symbol(literals)) {
      if (symbol < 256) { out.push(symbol); continue; }
      const s = symbol - 257, more = s < 8 || s === 28 ? 0 : (s >> 2) - 1;
      const length = s === 28 ? 258 : s < 8 ? 3 + s : 3 + ((4 + (s & 3)) << more) + this.take(more);
      const d = this.symbol(distances), far = d < 4 ? 0 : (d >> 1) - 1;
      const distance = d < 4 ? 1 + d : 1 + ((2 + (d & 1)) << far) + this.take(far);
      for (let n = 0; n < length; n++) out.push(out[out.length - distance]);
    }
  }
  storedBlock() {
    this.bits = this.held = 0;
    const length = this.take(16);
    this.take(16);
    for (let n = 0; n < length; n++) this.out.push(this.take(8));
  }
  text() {
    for (let isLast = 0; !isLast; ) {
      isLast = this.take(1);
      const type = this.take(2);
      if (type === 0) this.storedBlock();
      else this.block(type);
    }
    let a = 1, b = 0;
    for (const byte of this.out) {
      a = (a + byte) % 65521;
      b = (b + a) % 65521;
    }
    const sum = this.data.slice(-4).reduce((before, byte) => 256 * before + byte, 0);
    if (65536 * b + a !== sum) throw new Error("its checksum differs");
    return new TextDecoder().decode(Uint8Array.from(this.out));
  }
}

// Symbols by their prefix codes, each behind a 1.
function codesOf(lengths) {
  const codes = new Map();
  for (let length = 1, next = 0; length < 16; length++, next *= 2) {
    lengths.forEach((l, symbol) => { if (l === length) codes.set((1 << length) + next++, symbol); });
  }
  return codes;
}

try {
  const script = document.createElement("script");
  script.textContent = new Unpacker(fromBase64(PROGRAM)).text();
  document.body.append(script);
} catch (error) {
  document.documentElement.dataset.error = error.message;
  document.body.textContent = `This page is damaged: its program cannot be read, ${error.message}.`;
}
