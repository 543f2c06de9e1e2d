// Which entries of a level are read, and what is known of them before their symbols
// (codec/FORMAT.md, section 6: vertices, touched cells, kinds of levels, features).
//
// Vertices are walked slab by slab: a slab has one coordinate along the outer axis. Rows lie along
// axis 0, where neighbours have neighbouring entries, so that memory is read in order.

const PRIMES = [1, 2654435761 | 0, 805459861];

// What the occupancy says along the axes, and as bytes with x fastest.
class Occupancy {
  constructor({ resolution, cells }) {
    const [gx, gy, gz] = resolution;
    this.resolution = resolution;
    this.cells = cells;
    this.transposed = new Uint8Array(cells.length);
    for (let x = 0, i = 0; x < gx; x++) {
      for (let y = 0; y < gy; y++) {
        for (let z = 0; z < gz; z++, i++) this.transposed[(z * gy + y) * gx + x] = cells[i];
      }
    }
  }

  // Vertices that the occupied cells touch, each cell by itself; lo as in Level.
  load(lo) {
    const [gx, gy, gz] = this.resolution, cells = this.cells;
    const [sx, sy, sz] = lo.map((at) => Float64Array.from(
      { length: at.length - 1 }, (_, c) => at[c + 1] - at[c] + 2));
    let total = 0;
    for (let x = 0, i = 0; x < gx; x++) {
      for (let y = 0; y < gy; y++) {
        let sum = 0;
        for (let z = 0; z < gz; z++, i++) if (cells[i]) sum += sz[z];
        total += sum * sy[y] * sx[x];
      }
    }
    return total;
  }
}

// The geometry of a level. budget: vertices of the levels so far that are walked, by kind.
class Level {
  constructor({ resolution, numEntries, isHashed }, latentDim, occupancy, budget) {
    Object.assign(this, { resolution, numEntries, isHashed, occupancy });
    this.lo = resolution.map((n, axis) => {
      const g = occupancy.resolution[axis];
      return Int32Array.from({ length: g + 1 }, (_, c) => Math.floor((2 * c * (n - 1) + g) / (2 * g)));
    });
    this.setKind(latentDim, budget);
    if (!this.hasFeatures) return;
    const [nx, ny] = resolution, strides = [1, nx, nx * ny];
    // What a vertex adds to the number of its entry, along each axis.
    this.terms = resolution.map((n, axis) => Int32Array.from({ length: n + 1 },
      (_, v) => (isHashed ? Math.imul(v, PRIMES[axis]) : v * strides[axis])));
    this.sizes = null;  // of the symbols: for each entry min(31, sum of magnitudes)
  }

  setKind(latentDim, budget) {
    const vertices = this.resolution.reduce((product, n) => product * (n + 1), 1);
    const load = this.isHashed && vertices <= 2 ** 28 ? this.loadOf(vertices) : 0;
    this.isSaturated = this.isHashed
      && (budget.walked + vertices > 2 ** 28 || load > 24 * this.numEntries);
    if (this.isHashed && !this.isSaturated) budget.walked += vertices;
    this.hasFeatures = !this.isSaturated
      || (budget.saturated + vertices <= 2 ** 26 && load <= 64 * this.numEntries);
    if (this.isSaturated && this.hasFeatures) budget.saturated += vertices;
    this.hasNeighbours = this.hasFeatures && budget.neighbours + vertices * latentDim <= 2 ** 28;
    if (this.hasNeighbours) budget.neighbours += vertices * latentDim;
  }

  loadOf() { return this.occupancy.load(this.lo); }
  walk() { return new Slab(this); }

  // What all vertices of a row add up to along the other two axes.
  base(y, z) {
    const { terms, isHashed } = this;
    return isHashed ? terms[1][y] ^ terms[2][z] : terms[1][y] + terms[2][z];
  }

  // For each level cell along an axis: the first occupancy cell that touches it, and the one after
  // the last.
  spans(axis) {
    const lo = this.lo[axis], n = this.resolution[axis];
    const begin = new Int32Array(n).fill(-1), end = new Int32Array(n);
    for (let c = 0; c + 1 < lo.length; c++) {
      for (let j = lo[c]; j <= lo[c + 1]; j++) {
        if (begin[j] < 0) begin[j] = c;
        end[j] = c + 1;
      }
    }
    return { begin, end };
  }
}

// The touched cells around the vertices of a slab, which advances along the outer axis. The number of
// a vertex at `place` is below.counts[place] + above.counts[place]; all are 0 outside low … high - 1
// of each row.
class Slab {
  constructor(level) {
    const [nx, ny, nz] = level.resolution, [gx] = level.occupancy.resolution;
    this.level = level;
    this.outer = nz >= ny ? 2 : 1;
    this.middle = 3 - this.outer;
    this.columns = nx + 1;
    this.rows = level.resolution[this.middle] + 1;
    this.count = level.resolution[this.outer] + 1;
    this.outerSpans = level.spans(this.outer);
    this.middleSpans = level.spans(this.middle);
    // Fine levels repeat layers and rows of level cells. Two of each take turns, the third is empty.
    this.layers = [0, 1, 2].map(() => ({
      counts: new Uint8Array(this.rows * this.columns),
      low: new Int32Array(this.rows).fill(this.columns), high: new Int32Array(this.rows),
    }));
    this.pairRows = [0, 1, 2].map(() => ({
      pairs: new Uint8Array(this.columns), low: this.columns, high: 0,
    }));
    this.meets = new Uint8Array(gx * level.occupancy.resolution[this.middle]);
    this.touched = new Uint8Array(nx + 2);  // of a row of level cells, with one 0 on either side
  }

  // What all vertices of a row add up to along the other two axes.
  base(row, at) { return this.outer === 2 ? this.level.base(row, at) : this.level.base(at, row); }

  features(parent, grandparent) { return levelFeatures(this, parent, grandparent); }
  neighbours(magnitudes) { return neighbourMagnitudes(this, magnitudes); }

  moveTo(at) {
    this.below = at === 0 ? this.layers[2] : this.above;
    const { begin, end } = this.outerSpans;
    if (at === this.count - 1) this.above = this.layers[2];
    else if (at === 0 || begin[at] !== begin[at - 1] || end[at] !== end[at - 1]) {
      this.above = this.layers[this.below === this.layers[0] ? 1 : 0];
      this.countLayer(begin[at], end[at], this.above);
    }
  }

  // Which occupancy cells meet a layer of level cells: a plane of them, x fastest.
  flatten(begin, end) {
    const { resolution: [gx, gy], transposed } = this.level.occupancy, { meets, outer } = this;
    const rows = meets.length / gx;
    meets.fill(0);
    for (let c = begin; c < end; c++) {
      for (let row = 0; row < rows; row++) {
        const from = (outer === 2 ? c * gy + row : row * gy + c) * gx;
        for (let x = 0; x < gx; x++) meets[row * gx + x] |= transposed[from + x];
      }
    }
  }

  // Counts the touched cells of one layer around each vertex of the slabs beside it.
  countLayer(firstCell, lastCell, { counts, low, high }) {
    const { columns, rows, pairRows, middleSpans: { begin, end } } = this;
    counts.fill(0);
    this.flatten(firstCell, lastCell);
    let before = null, after = pairRows[2];
    for (let row = 0, place = 0; row < rows; row++, place += columns) {
      const wasSame = before === after;
      before = after;
      if (row === rows - 1) after = pairRows[2];
      else if (row === 0 || begin[row] !== begin[row - 1] || end[row] !== end[row - 1]) {
        after = pairRows[before === pairRows[0] ? 1 : 0];
        this.countRow(begin[row], end[row], after);
      }
      low[row] = Math.min(before.low, after.low);
      high[row] = Math.max(before.high, after.high);
      if (wasSame && before === after) {
        if (low[row] < high[row]) counts.copyWithin(place, place - columns, place);
        continue;
      }
      const lower = before.pairs, upper = after.pairs;
      for (let x = low[row], last = high[row]; x < last; x++) counts[place + x] = lower[x] + upper[x];
    }
  }

  // Counts the touched cells of one row around each vertex of the rows beside it.
  countRow(begin, end, found) {
    const { meets, touched, level } = this, { pairs } = found, lo = level.lo[0], gx = lo.length - 1;
    touched.fill(0);
    pairs.fill(0);
    found.low = this.columns;
    found.high = 0;
    for (let row = begin; row < end; row++) {
      for (let c = 0; c < gx; c++) {
        if (!meets[row * gx + c]) continue;
        for (let j = lo[c]; j <= lo[c + 1]; j++) touched[j + 1] = 1;
        found.low = Math.min(found.low, lo[c]);
        found.high = Math.max(found.high, lo[c + 1] + 2);
      }
    }
    for (let x = found.low; x < found.high; x++) pairs[x] = touched[x] + touched[x + 1];
  }
}

// The magnitudes of a coarser level around the vertices of a finer one: sums over the corners of its
// cells, a row of cells at a time.
class CoarserCells {
  constructor(slab, coarser) {
    const fine = slab.level.resolution, coarse = coarser.resolution;
    this.level = coarser;
    this.cells = fine.map((n, axis) => Int32Array.from({ length: n + 1 }, (_, v) => Math.min(
      Math.floor(((2 * v - 1) * (coarse[axis] - 1) + n - 1) / (2 * (n - 1))), coarse[axis] - 1)));
    this.alongRow = this.cells[0];
    this.slab = slab;
    this.sums = new Uint8Array(coarse[slab.middle] * coarse[0]);
    this.made = new Int32Array(coarse[slab.middle]).fill(-1);  // in which layer each row was summed
  }
  // Where in `sums` the row of cells around a row of vertices begins.
  rowAt(row, at) {
    const { slab, cells, made } = this, y = cells[slab.middle][row], z = cells[slab.outer][at];
    if (made[y] !== z) {
      made[y] = z;
      if (slab.outer === 2) this.sum(y, z, y);
      else this.sum(z, y, y);
    }
    return y * this.level.resolution[0];
  }
  sum(y, z, row) {
    const { level, sums } = this, { sizes, isHashed, numEntries, resolution: [nx] } = level;
    const mask = numEntries - 1, a = level.base(y, z), b = level.base(y + 1, z);
    const c = level.base(y, z + 1), d = level.base(y + 1, z + 1), begin = row * nx - 1;
    for (let x = 0, before = 0; x <= nx; x++) {
      const here = isHashed
        ? sizes[(a ^ x) & mask] + sizes[(b ^ x) & mask] + sizes[(c ^ x) & mask] + sizes[(d ^ x) & mask]
        : sizes[wrap(a + x, numEntries)] + sizes[wrap(b + x, numEntries)]
          + sizes[wrap(c + x, numEntries)] + sizes[wrap(d + x, numEntries)];
      if (x > 0) sums[begin + x] = before + here;
      before = here;
    }
  }
}

// The number of a dense level's vertex, below twice the size of its table, as that of an entry.
function wrap(number, size) { return number >= size ? number - size : number; }

// The coarsest level has no coarser one: all sums are 0.
const noCoarserCells = (level) => ({
  alongRow: new Int32Array(level.resolution[0] + 1), sums: new Uint8Array(1), rowAt: () => 0,
});

// Bytes [T]: touched_cells, parent_magnitude and grandparent_magnitude of the entries.
function levelFeatures(slab, parent, grandparent) {
  const level = slab.level, size = level.numEntries;
  const [touched, itsParent, itsGrandparent] = [0, 1, 2].map(() => new Uint8Array(size));
  const found = { touched, parent: itsParent, grandparent: itsGrandparent };
  const coarser = [parent, grandparent].map((other) => (
    other ? new CoarserCells(slab, other) : noCoarserCells(level)));
  for (let at = 0; at < slab.count; at++) {
    slab.moveTo(at);
    raiseFeatures(slab, at, coarser[0], coarser[1], found);
  }
  return found;
}

function raiseFeatures(slab, at, parentCells, grandparentCells, found) {
  const { level, columns, rows, below, above } = slab, { isHashed, numEntries } = level;
  const { touched, parent, grandparent } = found, low = below.counts, high = above.counts;
  const mask = numEntries - 1, parentAt = parentCells.alongRow, grandparentAt = grandparentCells.alongRow;
  const parentSums = parentCells.sums, grandparentSums = grandparentCells.sums;
  for (let row = 0; row < rows; row++) {
    const begin = Math.min(below.low[row], above.low[row]);
    const end = Math.max(below.high[row], above.high[row]);
    if (begin >= end) continue;
    const base = slab.base(row, at);
    const p = parentCells.rowAt(row, at), g = grandparentCells.rowAt(row, at);
    for (let x = begin, i = row * columns + begin; x < end; x++, i++) {
      const count = low[i] + high[i];
      if (count === 0) continue;
      const entry = isHashed ? (base ^ x) & mask : wrap(base + x, numEntries);
      // Maxima without a branch that nothing could predict.
      let more = count - touched[entry];
      touched[entry] += more & ~(more >> 31);
      more = parentSums[p + parentAt[x]] - parent[entry];
      parent[entry] += more & ~(more >> 31);
      more = grandparentSums[g + grandparentAt[x]] - grandparent[entry];
      grandparent[entry] += more & ~(more >> 31);
    }
  }
}

// Bytes [T]: neighbour_magnitude of the odd entries, from the magnitudes [T] of one channel.
function neighbourMagnitudes(slab, magnitudes) {
  const found = new Uint8Array(slab.level.numEntries);
  for (let at = 0; at < slab.count; at++) {
    slab.moveTo(at);
    raiseNeighbours(slab, at, magnitudes, found);
  }
  return found;
}

function raiseNeighbours(slab, at, magnitudes, found) {
  const { level, columns, rows, below, above, count } = slab, { isHashed, numEntries } = level;
  const low = below.counts, high = above.counts, mask = numEntries - 1;
  const sizeAt = (number) => magnitudes[isHashed ? number & mask : wrap(number, numEntries)];
  for (let row = 0; row < rows; row++) {
    const begin = Math.min(below.low[row], above.low[row]);
    const end = Math.max(below.high[row], above.high[row]);
    if (begin >= end) continue;
    const base = slab.base(row, at), bases = [];
    if (row > 0) bases.push(slab.base(row - 1, at));
    if (row + 1 < rows) bases.push(slab.base(row + 1, at));
    if (at > 0) bases.push(slab.base(row, at - 1));
    if (at + 1 < count) bases.push(slab.base(row, at + 1));
    const first = begin + ((base + begin + 1) & 1);  // tables are even: numbers of entries keep parity
    for (let x = first, i = row * columns + first; x < end; x += 2, i += 2) {
      if (low[i] + high[i] === 0) continue;
      let total = 0;
      if (isHashed) {
        for (let n = 0; n < bases.length; n++) total += magnitudes[(bases[n] ^ x) & mask];
        if (x > 0) total += magnitudes[(base ^ (x - 1)) & mask];
        if (x + 1 < columns) total += magnitudes[(base ^ (x + 1)) & mask];
      } else {
        for (let n = 0; n < bases.length; n++) total += sizeAt(bases[n] + x);
        if (x > 0) total += sizeAt(base + x - 1);
        if (x + 1 < columns) total += sizeAt(base + x + 1);
      }
      const entry = isHashed ? (base ^ x) & mask : wrap(base + x, numEntries);
      if (total > found[entry]) found[entry] = total;
    }
  }
}
