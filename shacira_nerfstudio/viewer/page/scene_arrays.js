// A decoded scene as the arrays that march.glsl reads. Nothing here knows WebGL.

const LATENT_BITS = 12, LATENT_WIDTH = 1 << LATENT_BITS;

// How latents lie in a texture: CHANNELS of them in a texel, TEXELS for an entry, each level from a row
// of its own.
function latentLayout({ levels, latentDim }) {
  const channels = latentDim < 3 ? latentDim : 4, texels = Math.ceil(latentDim / channels);
  const rows = [0];
  for (const { numEntries } of levels) {
    rows.push(rows[rows.length - 1] + Math.ceil(numEntries * texels / LATENT_WIDTH));
  }
  return { channels, texels, rows };
}

// Whole rows of texels from the latents of a level, [entries * latentDim].
function latentRows(latents, latentDim, { channels, texels }) {
  const entries = latents.length / latentDim, width = channels * texels;
  const rows = Math.ceil(entries * texels / LATENT_WIDTH);
  const padded = new latents.constructor(rows * LATENT_WIDTH * channels);
  if (width === latentDim) padded.set(latents);
  else {
    for (let e = 0, from = 0; e < entries; e++) {
      for (let c = 0; c < latentDim; c++) padded[e * width + c] = latents[from++];
    }
  }
  return padded;
}

// Both networks in the order in which march.glsl reads them, as 4 × 4 matrices, and where each layer
// begins. Inputs and outputs are padded to multiples of four with zeros.
class PackedNetworks {
  constructor(scene, { channels, texels }) {
    this.values = [];
    const { density, color, numLevels, latentDim, shDegree } = scene, numHarmonics = shDegree ** 2;
    const blocks = (count) => Math.ceil(count / 4), hidden = density[0].outputs;
    // Where input i of a layer stands among its padded inputs.
    const padded = (i) => Math.floor(i / latentDim) * channels * texels + i % latentDim;
    const harmonics4 = blocks(numHarmonics), geometry = (i) => 4 * harmonics4 + 1 + i - numHarmonics;
    const ofColor = (i) => (i < numHarmonics ? i : geometry(i));
    const input4 = blocks(numLevels * channels * texels), geo4 = blocks(density[1].outputs);
    const hidden4 = blocks(hidden), same = (i) => i, last = color.length - 1;
    this.sizes = { INPUT4: input4, GEO4: geo4, HIDDEN4: hidden4, SH4: harmonics4, MIDDLE_LAYERS: last - 1 };
    this.begin("DENSITY_IN").addRows(density[0], input4, padded);
    this.begin("DENSITY_OUT").addColumns(density[1], hidden4);
    this.begin("COLOR_IN").addRows(color[0], harmonics4 + geo4, ofColor);
    this.begin("COLOR_MIDDLE");
    for (let i = 1; i < last; i++) this.addRows(color[i], hidden4, same);
    this.begin("COLOR_OUT").addColumns(color[last], hidden4);
    this.values = Float32Array.from(this.values);
  }

  begin(name) {
    this.sizes[name] = this.values.length / 4;
    return this;
  }

  bias({ bias }, block) { for (let j = 0; j < 4; j++) this.values.push(bias[4 * block + j] ?? 0); }

  // A matrix of 4 outputs and 4 inputs, input after input. places: input at each padded place, or none.
  matrix({ weight, inputs, outputs }, output, places) {
    for (const input of places) {
      for (let j = 4 * output; j < 4 * output + 4; j++) {
        this.values.push(input === undefined || j >= outputs ? 0 : weight[j * inputs + input]);
      }
    }
  }

  // For each 4 outputs: biases, then a matrix for each 4 inputs.
  addRows(layer, inputs4, placeOf) {
    const inputAt = new Array(4 * inputs4).fill(undefined);
    for (let i = 0; i < layer.inputs; i++) inputAt[placeOf(i)] = i;
    for (let o = 0; o < Math.ceil(layer.outputs / 4); o++) {
      this.bias(layer, o);
      for (let i = 0; i < 4 * inputs4; i += 4) this.matrix(layer, o, inputAt.slice(i, i + 4));
    }
  }

  // All biases, then for each 4 inputs a matrix for each 4 outputs.
  addColumns(layer, inputs4) {
    const outputs4 = Math.ceil(layer.outputs / 4);
    for (let o = 0; o < outputs4; o++) this.bias(layer, o);
    for (let i = 0; i < 4 * inputs4; i += 4) {
      const places = [0, 1, 2, 3].map((j) => (i + j < layer.inputs ? i + j : undefined));
      for (let o = 0; o < outputs4; o++) this.matrix(layer, o, places);
    }
  }
}

// For each cell [x, y, z] how far the next occupied one is, diagonals counting as 1; at most 255. Two
// sweeps along all axes, as chamfer distances are made: exact for this metric.
function emptyGaps({ resolution: [gx, gy, gz], cells }) {
  const row = gz + 2, plane = (gy + 2) * row, gaps = new Uint8Array((gx + 2) * plane).fill(255);
  const least = new Uint8Array(row), out = new Uint8Array(gx * gy * gz);
  for (let x = 0; x < gx; x++) {
    for (let y = 0; y < gy; y++) {
      const from = (x * gy + y) * gz, to = (x + 1) * plane + (y + 1) * row + 1;
      for (let z = 0; z < gz; z++) if (cells[from + z]) gaps[to + z] = 0;
    }
  }
  const sweep = (at, step) => {  // a row; step: 1 or -1, to where rows are not swept yet
    const a = at - step * row, b = at - step * plane, c = b - row, d = b + row;
    for (let z = 0; z < row; z++) {
      least[z] = Math.min(gaps[a + z], gaps[b + z], gaps[c + z], gaps[d + z], 254);
    }
    for (let i = 1, z = step > 0 ? 1 : gz; i <= gz; i++, z += step) {
      const near = 1 + Math.min(least[z - 1], least[z], least[z + 1], gaps[at + z - step], 254);
      if (near < gaps[at + z]) gaps[at + z] = near;
    }
  };
  for (let x = 1; x <= gx; x++) for (let y = 1; y <= gy; y++) sweep(x * plane + y * row, 1);
  for (let x = gx; x > 0; x--) for (let y = gy; y > 0; y--) sweep(x * plane + y * row, -1);
  for (let x = 0; x < gx; x++) {
    for (let y = 0; y < gy; y++) {
      const at = (x + 1) * plane + (y + 1) * row + 1;
      out.set(gaps.subarray(at, at + gz), (x * gy + y) * gz);
    }
  }
  return out;
}

// A shader with its loops of comment "unrolled" written out, where that is at most so many lines each.
function unrolled(text, constants, most) {
  const head = /^ *for \(int (\w+) = 0; \1 < (\w+); \1\+\+\) \{  \/\/ unrolled$/;
  const expand = (lines) => {
    const out = [];
    for (let i = 0; i < lines.length; i++) {
      const found = lines[i].match(head);
      if (!found) { out.push(lines[i]); continue; }
      const indent = lines[i].search(/\S/), end = lines.findIndex((line, j) => j > i && line.search(/\S/) === indent);
      const body = expand(lines.slice(i + 1, end)), [, name, count] = found;
      if (constants[count] * body.length > most) out.push(lines[i], ...body, lines[end]);
      else {
        for (let n = 0; n < constants[count]; n++) {
          out.push("{", ...body.map((line) => line.replace(new RegExp(`\\b${name}\\b`, "g"), n)), "}");
        }
      }
      i = end;
    }
    return out;
  };
  return expand(text.split("\n")).join("\n");
}
