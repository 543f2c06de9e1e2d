// The container and all sections but the levels (codec/FORMAT.md, sections 1, 5 and 9).

const PART_NAMES = {
  HEAD: "head", GRID: "grid", RNDR: "rendering", OCCU: "occupancy", WGTS: "weights",
  cams: "cameras", meta: "metadata", psnr: "psnr", LATN: "level",
};

function readContents(raw) {
  const contents = new Bytes(raw, "contents"), entries = [];
  for (let before = ""; contents.left > 0; ) {
    const tag = String.fromCharCode(...contents.take(4));
    demand(/^([A-Z]{4}|[a-z]{4})$/.test(tag), "contents: expected tags of 4 letters of one case");
    demand(tag !== before, `contents: expected one run of ${tag}, found two`);
    before = tag;
    for (let left = contents.varint(1, 256 - entries.length); left > 0; left--) {
      entries.push({ tag, size: contents.varint(), sum: contents.u32() });
    }
  }
  return entries;
}

// Payloads by tag, those of the levels, and what each part takes.
function readSections(data, allowTruncated) {
  const head = new Bytes(data, "head");
  demand(String.fromCharCode(...head.take(4)) === "SHCR", "head: expected a .shacira file, found another one");
  const version = head.u16(), flags = head.u16();
  demand(version === 1, `head: expected format version 1, found ${version}`);
  demand(flags === 0, `head: expected flags 0, found ${flags}`);
  const length = within(head.u32(), 1, 4096, "the length of the contents"), sum = head.u32();
  const raw = head.take(length);
  demand(crc32(raw) === sum, "contents: expected another CRC-32, the file is damaged");
  const sections = { tags: [], payloads: {}, levels: [], parts: [{ name: "contents", bytes: 16 + length }] };
  let end = 16 + length;
  for (const { tag, size, sum } of readContents(raw)) {
    demand(tag in PART_NAMES || tag >= "a", `contents: expected sections of version 1, found ${tag}`);
    const begin = end;
    end += size;
    if (end > data.length && allowTruncated) break;
    demand(end <= data.length,
      `contents: expected ${tag} to end at byte ${end}, found a file of ${data.length} bytes`);
    const payload = data.subarray(begin, end);
    demand(crc32(payload) === sum, `${tag}: expected another CRC-32, the file is damaged`);
    addSection(sections, tag, payload);
  }
  demand(end >= data.length, `contents: expected a file of ${end} bytes, found ${data.length}`);
  checkOrder(sections.tags);
  return sections;
}

function addSection(sections, tag, payload) {
  const name = PART_NAMES[tag] ?? tag;
  if (tag === "LATN") {
    sections.parts.push({ name: `level ${sections.levels.length}`, bytes: payload.length });
    sections.levels.push(payload);
  } else {
    sections.parts.push({ name, bytes: payload.length });
    sections.payloads[tag] = payload;
  }
  if (tag in PART_NAMES) sections.tags.push(tag);
}

function checkOrder(tags) {
  const order = Object.keys(PART_NAMES), places = tags.map((tag) => order.indexOf(tag));
  places.forEach((place, i) => {
    demand(i === 0 || place > places[i - 1] || (place === places[i - 1] && tags[i] === "LATN"),
      `contents: expected ${tags[i]} in another place`);
  });
  for (const tag of ["HEAD", "GRID", "WGTS", "LATN"]) {
    demand(tags.includes(tag), `contents: expected a whole section ${tag}, found none`);
  }
}

function readHead(payload, isField) {
  const bytes = new Bytes(payload, "HEAD"), kind = bytes.u8(0, 2);
  demand(kind !== 1 || !isField, "HEAD: expected a radiance field, found a picture: this page shows scenes");
  const numPresent = bytes.u8(1, 64), digest = toHex(bytes.take(32));
  const architecture = readJson(bytes.take(bytes.left), 65536, "HEAD", (word) => /^[ -~]{0,200}$/.test(word));
  return { isVideo: kind === 2, isPicture: kind === 1, numPresent, digest, architecture };
}

function readSize(bytes, volume) {
  const code = bytes.u8(), dense = 8 * Math.ceil(volume / 8);
  if (code === 0) return dense;
  const size = code === 255 ? bytes.varint() : 2 ** within(code, 3, 28, "a code of GRID");
  demand(size !== dense && (code < 255 || size < 8 || !Number.isInteger(Math.log2(size))),
    "GRID: expected table sizes in their shortest form");
  return size;
}

function readGrid(payload, { numPresent, isPicture }, fileBytes) {
  const bytes = new Bytes(payload, "GRID"), axes = bytes.u8(), isEqual = axes < 128;
  const numAxes = isPicture ? 2 : 3;
  demand(axes % 128 === numAxes, `GRID: expected ${numAxes} axes, found ${axes % 128}`);
  const numLevels = bytes.u8(1, 64), latentDim = bytes.u8(1, 16), levels = [];
  demand(numPresent <= numLevels, `HEAD: expected at most ${numLevels} levels, found ${numPresent}`);
  let resolution = new Array(numAxes).fill(0), total = 0, longest = 0;
  for (let level = 0; level < numLevels; level++) {
    const steps = Array.from({ length: isEqual ? 1 : numAxes }, () => bytes.varint());
    resolution = resolution.map((n, axis) => within(
      n + steps[isEqual ? 0 : axis], 2, 2 ** 20, "a resolution of GRID"));
    const volume = resolution.reduce((a, b) => a * b);
    const numEntries = within(readSize(bytes, volume), 8, 2 ** 28, "a table size of GRID");
    demand(numEntries % 8 === 0, "GRID: expected table sizes that are multiples of 8");
    const isHashed = volume > numEntries;
    demand(!isHashed || Number.isInteger(Math.log2(numEntries)), "GRID: expected powers of two");
    if (level < numPresent) {
      const most = Math.max(2 ** 20, 64 * fileBytes);
      demand(numEntries <= most, `GRID: expected levels of at most ${most} entries`);
      longest += Math.max(...resolution);
    }
    levels.push({ resolution, numEntries, isHashed, offset: total });
    total += numEntries;
  }
  bytes.end();
  demand(isEqual || levels.some(({ resolution: all }) => all.some((n) => n !== all[0])),
    "GRID: expected axes of different resolutions");
  demand(total <= 2 ** 27 && total * latentDim <= Math.max(2 ** 24, 2048 * fileBytes),
    `GRID: expected fewer entries in a file of ${fileBytes} bytes, found ${total}`);
  demand(longest <= Math.max(2 ** 17, 8 * fileBytes), "GRID: expected shorter axes");
  return { levels, latentDim };
}

function readRendering(payload) {
  const bytes = new Bytes(payload, "RNDR"), most = 2 ** 40, least = 2 ** -40;
  const contraction = ["affine", "contracted"][bytes.u8(0, 1)];
  const kind = ["white", "black", "last_sample", "color"][bytes.u8(0, 3)];
  const corner = () => [0, 1, 2].map(() => bytes.f32(-most, most));
  const box = [corner(), corner()];
  const nearPlane = bytes.f32(0, most), farPlane = bytes.f32(0, most), stepSize = bytes.f32(least);
  const knee = bytes.f32(0, most), earlyStop = bytes.f32(0, 1);
  const color = [0, 1, 2].map(() => bytes.f32(0, 1));
  bytes.end();
  const sides = box[0].map((low, axis) => box[1][axis] - low);
  demand(sides.every((side) => side >= least) && nearPlane < farPlane && earlyStop < 1
    && (knee === 0 || knee >= least), "RNDR: expected valid render settings");
  const g = (t) => (knee === 0 || t <= knee ? t : knee * (2 - knee / t));
  const span = Math.min(g(farPlane) - g(nearPlane), contraction === "affine" ? Math.hypot(...sides) : Infinity);
  demand(span / stepSize <= 2 ** 16, "RNDR: expected at most 65536 steps per ray");
  const march = { contraction, box, stepSize, nearPlane, farPlane, knee };
  return { march, earlyStop, background: { kind, color } };
}

// One byte per cell, x slowest.
function readOccupancy(payload, fileBytes) {
  const bytes = new Bytes(payload, "OCCU"), side = bytes.varint(0, 4096);
  const resolution = [0, 1, 2].map(() => side || bytes.varint(1, 4096));
  demand(side || resolution.some((g) => g !== resolution[0]), "OCCU: expected axes that differ");
  const most = Math.min(2 ** 24, Math.max(2 ** 21, 512 * fileBytes));
  const count = resolution[0] * resolution[1] * resolution[2];
  demand(count <= most, `OCCU: expected at most ${most} cells, found ${count}`);
  const lanes = bytes.varint(1, 1024), stream = new Stream(bytes.take(bytes.left), lanes, "OCCU");
  const grids = [resolution];
  while (Math.max(...grids[0]) > 8) grids.unshift(grids[0].map((g) => Math.ceil(g / 4)));
  let cells = null;
  grids.forEach((grid, i) => { cells = readCells(stream, lanes, grid, cells, grids[i - 1]); });
  stream.end();
  return { resolution, cells };
}

// Coded cells of a grid by wavefront, within each in ascending order: places in an array that has one
// more cell on either side of each axis, and where each wavefront ends.
function codedCells([gx, gy, gz], coarse, coarseShape) {
  const ends = new Int32Array(gx + 2 * gy + 4 * gz + 1), isCoded = (x, y, z) => coarse === null
    || coarse[((x >> 2) * coarseShape[1] + (y >> 2)) * coarseShape[2] + (z >> 2)];
  const visit = (found) => {
    for (let x = 0; x < gx; x++) {
      for (let y = 0; y < gy; y++) {
        for (let z = 0; z < gz; z++) if (isCoded(x, y, z)) found(x, y, z, x + 2 * y + 4 * z);
      }
    }
  };
  visit((x, y, z, front) => { ends[front + 1]++; });
  for (let i = 1; i < ends.length; i++) ends[i] += ends[i - 1];
  const places = new Int32Array(ends[ends.length - 1]);
  visit((x, y, z, front) => { places[ends[front]++] = ((x + 1) * (gy + 2) + y + 1) * (gz + 2) + z + 1; });
  return { places, ends };
}

function readCells(stream, lanes, shape, coarse, coarseShape) {
  const [gx, gy, gz] = shape, { places, ends } = codedCells(shape, coarse, coarseShape);
  const padded = new Uint8Array((gx + 2) * (gy + 2) * (gz + 2)), steps = [];
  for (let i = -1; i < 2; i++) {
    for (let j = -1; j < 2; j++) {
      for (let k = -1; k < 2; k++) {
        const isEarlier = k < 0 || (k === 0 && (j < 0 || (j === 0 && i < 0)));
        if (isEarlier) steps.push((i * (gy + 2) + j) * (gz + 2) + k);
      }
    }
  }
  const offsets = Int32Array.from(steps), patterns = new Uint16Array(places.length);
  const counts = new Int32Array(2 << offsets.length);  // free and occupied cells of each pattern
  for (let front = 0, begin = 0; front < ends.length; front++) {
    const end = ends[front];
    for (let i = begin, lane = 0; i < end; i++) {
      let pattern = 0;
      for (let n = 0; n < 13; n++) pattern = 2 * pattern + padded[places[i] + offsets[n]];
      const a = counts[2 * pattern], b = counts[2 * pattern + 1];
      const f = Math.floor(((5 * b + 2) * 65536) / (5 * (a + b) + 4));
      padded[places[i]] = stream.decodeBit(lane, Math.min(Math.max(f, 1), 65535));
      patterns[i] = pattern;
      if (++lane === lanes) lane = 0;
    }
    for (; begin < end; begin++) counts[2 * patterns[begin] + padded[places[begin]]]++;
  }
  const cells = new Uint8Array(gx * gy * gz);
  for (let x = 0; x < gx; x++) {
    for (let y = 0; y < gy; y++) {
      const begin = ((x + 1) * (gy + 2) + y + 1) * (gz + 2) + 1;
      cells.set(padded.subarray(begin, begin + gz), (x * gy + y) * gz);
    }
  }
  return cells;
}

function readWeights(payload) {
  const bytes = new Bytes(payload, "WGTS"), tensors = {};
  let left = 2 ** 22, before = "";
  for (let number = bytes.varint(0, 4096); number > 0; number--) {
    const name = String.fromCharCode(...bytes.take(bytes.u8(1)));
    demand(/^[a-z0-9_.]+$/.test(name) && name > before, "WGTS: expected names in ascending order");
    before = name;
    const shape = Array.from({ length: bytes.u8(1, 3) }, () => bytes.varint(1));
    const count = shape.reduce((a, b) => a * b);
    left -= count;
    demand(left >= 0, "WGTS: expected at most 4194304 weights");
    const mode = bytes.u8(0, 2), rows = shape[0];
    demand(mode === 0 || rows > 1, "WGTS: expected one step for a single row");
    const steps = Array.from({ length: mode === 1 ? rows : 1 }, () => bytes.f32());
    demand(steps.every((step) => step > 0), "WGTS: expected steps above 0");
    const integers = readArray(bytes, count, -2047, 2047), values = new Float32Array(count);
    const perStep = mode === 1 ? count / rows : count;
    for (let i = 0; i < count; i++) values[i] = integers[i] * steps[Math.floor(i / perStep)];
    tensors[name] = { shape, integers, steps, values };
  }
  bytes.end();
  return tensors;
}
