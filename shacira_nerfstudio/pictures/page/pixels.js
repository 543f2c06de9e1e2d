// Pixels of a picture, or of a frame of a video: the same integers as everywhere (codec/FORMAT.md,
// section 10). Stands behind the decoder of files, in a worker.

const ONE = 4096, MAX_ACTIVATION = 2 ** 30;

// Lower vertex and fraction, in 1 / 4096, of `count` pixels that share begin … end of an axis of
// `length` pixels, at a level with so many vertices along it. Products exceed 2^53.
function axisSamples(begin, end, count, length, vertices) {
  const [b, e, n, all, v] = [begin, end, count, length, vertices].map(BigInt), two = 2n;
  const low = new Int32Array(count), fraction = new Float64Array(count), total = two * n * all;
  for (let i = 0; i < count; i++) {
    const position = two * b * n + (two * BigInt(i) + 1n) * (e - b);
    const numerator = two * position * (v - 1n) + total, denominator = two * total;
    low[i] = Number(numerator / denominator);
    fraction[i] = Number(((numerator % denominator) * BigInt(ONE)) / denominator);
  }
  return { low, fraction };
}

class PixelDecoder {
  // latents: of each level, [entries * latentDim].
  constructor(scene, latents) {
    const { architecture, levels, latentDim } = scene, isVideo = "frames" in architecture;
    const size = (name, most) => {
      demand(Number.isInteger(architecture[name]), `HEAD: expected a number ${name}`);
      return within(architecture[name], 1, most, `${name} of HEAD`);
    };
    Object.assign(this, {
      levels, latentDim, latents, isVideo, width: size("width", 2 ** 20), height: size("height", 2 ** 20),
      channels: size("channels", 4), bits: size("bits", 16), frames: isVideo ? size("frames", 2 ** 20) : 1,
    });
    demand(this.bits === 8 || this.bits === 16, "HEAD: expected 8 or 16 bits");
    this.largest = 2 ** this.bits - 1;
    this.layers = this.readLayers(scene.tensors);
  }

  readLayers(tensors) {
    const layers = [], count = Object.keys(tensors).length / 2;
    let inputs = this.levels.length * this.latentDim;
    for (let index = 0; index < count; index++) {
      const [weight, bias] = ["weight", "bias"].map((part) => tensors[`mlp.${index}.${part}`]);
      demand(weight && bias && weight.shape.length === 2 && weight.shape[1] === inputs && inputs <= 1024
        && bias.shape.join() === `${weight.shape[0]}`, "WGTS: expected layers mlp.0 and so on, each as wide as the next");
      const outputs = weight.shape[0], ofRow = (tensor, row) => tensor.steps[tensor.steps.length > 1 ? row : 0];
      layers.push({
        inputs, outputs, weight: Float64Array.from(weight.integers),
        steps: Float64Array.from({ length: outputs }, (_, j) => ofRow(weight, j)),
        bias: Float64Array.from({ length: outputs }, (_, j) => bias.integers[j] * ofRow(bias, j) * ONE),
      });
      inputs = outputs;
    }
    demand(count > 0 && inputs === this.channels, `WGTS: expected ${this.channels} channels`);
    return layers;
  }

  entry({ resolution: [nx, ny], numEntries, isHashed }, x, y, t) {
    if (isHashed) return (x ^ Math.imul(y, PRIMES[1]) ^ Math.imul(t, PRIMES[2])) & (numEntries - 1);
    return (x + nx * (y + ny * t)) % numEntries;
  }

  // Integers [height * width * channels] of box [left, top, right, bottom] in size [width, height],
  // by the first `numLevels` levels; where that is smaller, means of as many samples as there are.
  pixels(box, [width, height], frame, numLevels) {
    const [left, top, right, bottom] = box, { channels } = this;
    const across = Math.ceil((right - left) / width), down = Math.ceil((bottom - top) / height);
    const spans = [
      [left, right, width * across, this.width], [top, bottom, height * down, this.height],
      [frame, frame + 1, 1, this.frames],
    ];
    const shown = this.latents.slice(0, numLevels).map((_, level) => level);
    const along = shown.map((level) => this.levels[level].resolution.map(
      (n, axis) => axisSamples(...spans[axis], n)));
    const out = new Uint16Array(width * height * channels), sums = new Float64Array(width * channels);
    const count = across * down, pixel = new Float64Array(channels);
    const x = new Float64Array(this.levels.length * this.latentDim);
    for (let row = 0; row < height; row++) {
      sums.fill(0);
      for (let k = 0; k < down; k++) {
        for (let i = 0; i < width * across; i++) {
          for (const level of shown) this.interpolate(level, along[level], i, row * down + k, x);
          this.network(x, pixel);
          const at = Math.floor(i / across) * channels;
          for (let c = 0; c < channels; c++) sums[at + c] += pixel[c];
        }
      }
      const begin = row * width * channels;
      for (let i = 0; i < sums.length; i++) out[begin + i] = Math.floor((2 * sums[i] + count) / (2 * count));
    }
    return out;
  }

  interpolate(number, along, column, row, out) {
    const level = this.levels[number], latents = this.latents[number], d = this.latentDim;
    const x = along[0].low[column], fx = along[0].fraction[column];
    const y = along[1].low[row], fy = along[1].fraction[row];
    const planes = this.isVideo ? 2 : 1, scale = this.isVideo ? 2 ** -24 : 2 ** -12;
    for (let c = 0; c < d; c++) out[number * d + c] = 0;
    for (let k = 0; k < planes; k++) {
      const t = this.isVideo ? along[2].low[0] + k : 0, ft = this.isVideo ? along[2].fraction[0] : 0;
      const wt = this.isVideo ? (k ? ft : ONE - ft) : 1;
      for (let j = 0; j < 4; j++) {
        const weight = wt * (j & 1 ? fx : ONE - fx) * (j & 2 ? fy : ONE - fy);
        if (weight === 0) continue;
        const at = this.entry(level, x + (j & 1), y + (j >> 1), t) * d;
        for (let c = 0; c < d; c++) out[number * d + c] += weight * latents[at + c];
      }
    }
    for (let c = 0; c < d; c++) out[number * d + c] = Math.floor(out[number * d + c] * scale + 0.5);
  }

  network(x, pixel) {
    const last = this.layers.length - 1;
    let from = x;
    this.layers.forEach(({ inputs, outputs, weight, steps, bias }, index) => {
      const to = index === last ? pixel : this.activations(index, outputs);
      for (let j = 0, k = 0; j < outputs; j++) {
        let sum = 0;
        for (let i = 0; i < inputs; i++) sum += weight[k++] * from[i];
        const y = sum * steps[j] + bias[j];
        const value = Math.floor((index === last ? y * this.largest * 2 ** -12 : y) + 0.5);
        to[j] = Math.min(Math.max(value, 0), index === last ? this.largest : MAX_ACTIVATION);
      }
      from = to;
    });
  }

  activations(index, count) {
    this.held ??= [];
    return this.held[index] ??= new Float64Array(count);
  }
}

// What a canvas takes: 8 bits of red, green, blue and alpha.
function asRgba(pixels, { channels, bits }) {
  const out = new Uint8ClampedArray(4 * pixels.length / channels);
  const shown = (value) => (bits === 16 ? Math.floor((value + 128) / 257) : value);
  const hasAlpha = channels % 2 === 0, isGrey = channels < 3;
  for (let i = 0, from = 0; i < out.length; i += 4, from += channels) {
    for (let c = 0; c < 3; c++) out[i + c] = shown(pixels[from + (isGrey ? 0 : c)]);
    out[i + 3] = hasAlpha ? shown(pixels[from + channels - 1]) : 255;
  }
  return out;
}

// A file's decoder, and why there is none.
function openPicture(bytes, onLevel = () => {}, allowTruncated = true) {
  let scene = null, end = null;
  const latents = [];
  decodeScene(bytes, (message) => {
    if (message.type === "header") scene = message.scene;
    if (message.type === "level") onLevel(latents.push(message.latents));
    if (message.type === "done" || message.type === "error") end = message;
  }, { allowTruncated, isField: false });
  if (end.type === "error") throw new Refusal(end.message);
  return { decoder: new PixelDecoder(scene, latents), digest: end.digest };
}

// In a worker: {bytes} opens a file, answered by {type: "opened", digest} and {type: "level", count}
// before; {number, box, size, frame, levels} asks for a part, answered by {type: "part", number,
// pixels}. {type: "error", message} at any time.
if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  let decoder = null;
  self.onmessage = ({ data }) => {
    try {
      if (data.bytes) {
        const opened = openPicture(new Uint8Array(data.bytes), (count) => self.postMessage({ type: "level", count }));
        decoder = opened.decoder;
        self.postMessage({ type: "opened", digest: opened.digest });
      } else {
        const { number, box, size, frame, levels } = data;
        const pixels = asRgba(decoder.pixels(box, size, frame, levels), decoder);
        self.postMessage({ type: "part", number, pixels }, [pixels.buffer]);
      }
    } catch (error) {
      self.postMessage({ type: "error", number: data.number, message: error.message });
    }
  };
}
