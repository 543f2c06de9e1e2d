// The same of a picture's levels: two axes, and no occupancy, so that every cell is touched
// (codec/FORMAT.md, section 6).

class FlatLevel extends Level {
  constructor(shape, latentDim, occupancy, budget) {
    demand(!occupancy.isStored, "OCCU: expected none in a picture");
    super(shape, latentDim, occupancy, budget);
  }
  loadOf(vertices) { return vertices; }
  walk() { return new FlatWalk(this); }
  entry(x, y) {
    const number = this.isHashed ? x ^ this.terms[1][y] : x + this.terms[1][y];
    return this.isHashed ? number & (this.numEntries - 1) : wrap(number, this.numEntries);
  }
}

// The magnitudes of a coarser level around the vertices of a finer one, summed over the corners of its
// cells; all 0 without a coarser one.
class FlatCoarserCells {
  constructor({ resolution }, coarser) {
    const [width, height] = coarser?.resolution ?? [1, 1];
    this.width = width;
    [this.alongRow, this.rows] = resolution.map((n, axis) => Int32Array.from({ length: n + 1 }, (_, v) => {
      const coarse = coarser?.resolution[axis] ?? 1;
      return Math.min(Math.floor(((2 * v - 1) * (coarse - 1) + n - 1) / (2 * (n - 1))), coarse - 1);
    }));
    this.sums = new Uint8Array(width * height);
    if (coarser) this.sum(coarser, height);
  }
  sum(level, height) {
    const { sizes } = level, { width, sums } = this;
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < width; x++) {
        sums[y * width + x] = sizes[level.entry(x, y)] + sizes[level.entry(x + 1, y)]
          + sizes[level.entry(x, y + 1)] + sizes[level.entry(x + 1, y + 1)];
      }
    }
  }
}

class FlatWalk {
  constructor(level) { this.level = level; }

  // Bytes [T]: touched_cells, parent_magnitude and grandparent_magnitude of the entries.
  features(itsParent, itsGrandparent) {
    const { level } = this, [nx, ny] = level.resolution;
    const [touched, parent, grandparent] = [0, 1, 2].map(() => new Uint8Array(level.numEntries));
    const [p, g] = [itsParent, itsGrandparent].map((other) => new FlatCoarserCells(level, other));
    for (let y = 0; y <= ny; y++) {
      const rows = (y > 0) + (y < ny), pRow = p.rows[y] * p.width, gRow = g.rows[y] * g.width;
      for (let x = 0; x <= nx; x++) {
        const entry = level.entry(x, y), count = rows * ((x > 0) + (x < nx));
        if (count > touched[entry]) touched[entry] = count;
        const above = p.sums[pRow + p.alongRow[x]], farAbove = g.sums[gRow + g.alongRow[x]];
        if (above > parent[entry]) parent[entry] = above;
        if (farAbove > grandparent[entry]) grandparent[entry] = farAbove;
      }
    }
    return { touched, parent, grandparent };
  }

  // Bytes [T]: neighbour_magnitude of the odd entries, from the magnitudes [T] of one channel.
  neighbours(magnitudes) {
    const { level } = this, [nx, ny] = level.resolution, found = new Uint8Array(level.numEntries);
    for (let y = 0; y <= ny; y++) {
      for (let x = 0; x <= nx; x++) {
        const entry = level.entry(x, y);
        if (entry % 2 === 0) continue;
        let total = 0;
        if (x > 0) total += magnitudes[level.entry(x - 1, y)];
        if (x < nx) total += magnitudes[level.entry(x + 1, y)];
        if (y > 0) total += magnitudes[level.entry(x, y - 1)];
        if (y < ny) total += magnitudes[level.entry(x, y + 1)];
        if (total > found[entry]) found[entry] = total;
      }
    }
    return found;
  }
}
