// Bytes, bits, checksums and texts of a .shacira file (codec/FORMAT.md, sections 1 and 3).

// Why a file is not taken: one line for people.
class Refusal extends Error {}
function demand(holds, why) { if (!holds) throw new Refusal(why); }

function within(value, low, high, what) {
  demand(value >= low && value <= high, `expected ${what} from ${low} to ${high}, found ${value}`);
  return value;
}

class Bytes {
  constructor(data, what) {
    this.data = data;
    this.view = new DataView(data.buffer, data.byteOffset, data.length);
    this.at = 0;
    this.what = what;
  }
  get left() { return this.data.length - this.at; }
  take(count) {
    demand(count <= this.left, `${this.what}: expected ${count} more bytes, found ${this.left}`);
    this.at += count;
    return this.data.subarray(this.at - count, this.at);
  }
  u8(low = 0, high = 255) { return within(this.take(1)[0], low, high, `a byte of ${this.what}`); }
  u16() { this.take(2); return this.view.getUint16(this.at - 2, true); }
  u32() { this.take(4); return this.view.getUint32(this.at - 4, true); }
  f32(low = -Infinity, high = Infinity) {
    this.take(4);
    const value = this.view.getFloat32(this.at - 4, true);
    demand(Number.isFinite(value), `${this.what}: expected finite numbers, found ${value}`);
    return within(value, low, high, `a number of ${this.what}`);
  }
  varint(low = 0, high = 2 ** 32 - 1) {
    let value = 0;
    for (let i = 0, scale = 1; i < 5; i++, scale *= 128) {
      const byte = this.u8();
      value += (byte & 127) * scale;
      if (byte < 128) {
        demand(byte > 0 || i === 0, `${this.what}: expected numbers in their shortest form`);
        return within(value, low, high, `a number of ${this.what}`);
      }
    }
    throw new Refusal(`${this.what}: expected numbers of at most 5 bytes, found a longer one`);
  }
  end() { demand(this.left === 0, `${this.what}: expected its end, found ${this.left} bytes more`); }
}

class Bits {
  constructor(data, what) { this.data = data; this.at = 0; this.what = what; }
  take(count) {
    demand(this.at + count <= 8 * this.data.length, `${this.what}: expected more bits, found none`);
    let value = 0;
    for (const end = this.at + count; this.at < end; this.at++) {
      value = 2 * value + ((this.data[this.at >> 3] >> (7 - (this.at & 7))) & 1);
    }
    return value;
  }
  golomb(k) {
    let zeros = 0;
    for (; this.take(1) === 0; zeros++) demand(zeros < 32, `${this.what}: a Golomb code is too long`);
    return 2 ** (zeros + k) + this.take(zeros + k) - 2 ** k;
  }
  signed(k) {
    const u = this.golomb(k);
    return u % 2 ? -(u + 1) / 2 : u / 2;
  }
  end() {
    const left = 8 * this.data.length - this.at;
    demand(left < 8 && this.take(left) === 0, `${this.what}: expected fewer than 8 zero bits at its end`);
  }
}

const CRC_TABLE = Int32Array.from({ length: 256 }, (_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? (n >>> 1) ^ 0xedb88320 : n >>> 1;
  return n;
});

function crc32(bytes) {
  let crc = -1;
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]) & 255] ^ (crc >>> 8);
  return ~crc >>> 0;
}

// SHA-256 (FIPS 180-4). crypto.subtle is missing where a page comes from a file.
class Sha256 {
  constructor() {
    const primes = [];
    for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n);
    const fraction = (x) => (x - Math.floor(x)) * 2 ** 32;
    this.state = Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)));
    this.constants = Int32Array.from(primes, (p) => fraction(Math.cbrt(p)));
    this.schedule = new Int32Array(64);
    this.rest = new Uint8Array(64);
    this.length = 0;
  }
  update(bytes) {
    let at = 0;
    const held = this.length % 64;
    this.length += bytes.length;
    if (held) {
      at = Math.min(64 - held, bytes.length);
      this.rest.set(bytes.subarray(0, at), held);
      if (held + at < 64) return;
      this.block(this.rest, 0);
    }
    for (; at + 64 <= bytes.length; at += 64) this.block(bytes, at);
    this.rest.set(bytes.subarray(at));
  }
  block(bytes, at) {
    const w = this.schedule, k = this.constants, s = this.state;
    for (let i = 0; i < 16; i++, at += 4) {
      w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
    }
    for (let i = 16; i < 64; i++) {
      const p = w[i - 15], q = w[i - 2];
      const s0 = ((p >>> 7) | (p << 25)) ^ ((p >>> 18) | (p << 14)) ^ (p >>> 3);
      const s1 = ((q >>> 17) | (q << 15)) ^ ((q >>> 19) | (q << 13)) ^ (q >>> 10);
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0;
    }
    let a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7));
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10));
      const t = (h + s1 + ((e & f) ^ (~e & g)) + k[i] + w[i]) | 0;
      const u = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0;
      h = g; g = f; f = e; e = (d + t) | 0;
      d = c; c = b; b = a; a = (t + u) | 0;
    }
    s[0] += a; s[1] += b; s[2] += c; s[3] += d; s[4] += e; s[5] += f; s[6] += g; s[7] += h;
  }
  hex() {
    const bits = 8 * this.length, end = new Uint8Array(72 - ((this.length + 8) % 64));
    const view = new DataView(end.buffer, end.length - 8);
    end[0] = 128;
    view.setUint32(0, Math.floor(bits / 2 ** 32));
    view.setUint32(4, bits % 2 ** 32);
    this.update(end);
    return Array.from(this.state, (v) => (v >>> 0).toString(16).padStart(8, "0")).join("");
  }
}

const toHex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

function canonicalText(value, what) {
  if (typeof value === "string") {
    return JSON.stringify(value).replace(/[\u007f-\uffff]/g,
      (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  }
  demand(Number.isSafeInteger(value), `${what}: expected strings and integers below 2^53`);
  return String(value);
}

// An object of strings and integers in the one form that it may have.
function readJson(payload, most, what, isWord = () => true) {
  demand(payload.length <= most, `${what}: expected at most ${most} bytes, found ${payload.length}`);
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(payload);
  let value = null;
  try { value = JSON.parse(text); } catch { /* stays null */ }
  demand(value !== null && typeof value === "object" && !Array.isArray(value),
    `${what}: expected canonical JSON`);
  const members = Object.keys(value).sort().map((key) => {
    demand(/^[a-z0-9_]{1,64}$/.test(key), `${what}: expected keys of a-z, 0-9 and _`);
    demand(typeof value[key] !== "string" || isWord(value[key]), `${what}: expected short ASCII words`);
    return `"${key}":${canonicalText(value[key], what)}`;
  });
  demand(`{${members.join(",")}}` === text, `${what}: expected canonical JSON`);
  return value;
}
