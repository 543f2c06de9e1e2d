// When what is drawn. While something moves: whole pictures, as large and as fine as a time allows. At
// rest: the same picture again and again, finer each time, in batches of rectangles that keep the page
// responsive. While levels still come each one is shown once, so that the decoder has the processor.

const MOVING_MS = 33, BATCH_MS = 25, REST_MS = 160;
const LEAST_SHARE = 1 / 64;  // of the window's pixels while moving, however slow the GPU is
// As the library renders: length of steps, weight from which a sample gets a colour of its own, share
// of the levels, transmittance at which a ray ends if that is above the scene's.
const FULL = { stepScale: 1, minWeight: 1 / 1024, levels: 1, minThrough: 0 };
// While moving: how fine, and what that takes of the time of FULL, roughly.
const MOVING = [
  { quality: FULL, cost: 1 },
  { quality: { stepScale: 1.5, minWeight: 1 / 128, levels: 0.9, minThrough: 1e-3 }, cost: 0.5 },
  { quality: { stepScale: 2, minWeight: 1 / 24, levels: 0.7, minThrough: 1e-2 }, cost: 0.25 },
];

const nextFrame = () => new Promise(requestAnimationFrame);

class Painter {
  // viewOf(width, height): what to draw in so many pixels. report(state): what is shown by now.
  constructor(renderer, viewOf, report) {
    Object.assign(this, { renderer, viewOf, report, version: 0, movedAt: -Infinity, msPerPixel: 0, batch: 4096 });
    this.forget();
    this.tier = MOVING.length - 1;
    this.isComplete = false;  // no level is missing
    this.wake = () => {};
  }

  // Pictures are gone, with the context that held them.
  forget() { Object.assign(this, { front: null, spare: null, isSharp: false }); }

  // Something else is to be seen; isMoving: and more of that follows.
  changed({ isMoving = false } = {}) {
    if (isMoving && !this.isMoving) this.chooseTier();
    if (isMoving) this.movedAt = performance.now();
    this.version++;
    this.isSharp = false;
    this.wake();
  }

  get isMoving() { return performance.now() - this.movedAt < REST_MS; }

  get pixels() { return this.renderer.canvas.width * this.renderer.canvas.height; }

  chooseTier() {
    const room = MOVING_MS / (this.msPerPixel * this.pixels / 4 || Infinity);  // for half of each side
    const tier = MOVING.findIndex(({ cost }) => cost < room);
    this.tier = tier < 0 ? MOVING.length - 1 : tier;
  }

  // Draws for as long as the page lives.
  async run() {
    for (;;) {
      const { renderer, front } = this;
      if (renderer.gl.isContextLost() || !renderer.levels.length) await new Promise((wake) => { this.wake = wake; });
      else if (!front || front.version !== this.version) await this.moveOn();
      else if (this.isMoving) await new Promise((wake) => { setTimeout(wake, REST_MS); this.wake = wake; });
      else if (!this.isComplete) await new Promise((wake) => { this.wake = wake; });
      else if (front.scale < this.finestScale || !front.isFull) await this.refine();
      else {
        this.isSharp = true;
        this.report();
        await new Promise((wake) => { this.wake = wake; });
      }
    }
  }

  // A picture to draw on, of a share of the window's sides.
  async takeTarget(scale) {
    const { renderer: { canvas } } = this, side = (length) => Math.max(1, Math.round(length * scale));
    const width = side(canvas.width), height = side(canvas.height), { spare } = this;
    this.spare = null;
    if (spare && spare.width === width && spare.height === height) return Object.assign(spare, { scale });
    this.renderer.free(spare);
    return Object.assign(this.renderer.target(width, height), { scale });
  }

  put(picture, details) {
    this.spare = this.front;
    this.front = Object.assign(picture, details);
  }

  show() {
    if (this.front && !this.renderer.gl.isContextLost()) this.renderer.present(this.front, null);
    this.report();
  }

  // Finer than the window, where that is cheap: the mean of four rays per pixel.
  get finestScale() {
    return window.devicePixelRatio < 1.5 && this.msPerPixel > 0 && 4 * this.pixels * this.msPerPixel < 1500 ? 2 : 1;
  }

  // Time of a pixel of full quality, smoothed.
  measure(ms, pixels, cost) {
    const found = ms / pixels / cost;
    this.msPerPixel = this.msPerPixel ? this.msPerPixel + 0.3 * (found - this.msPerPixel) : found;
  }

  // A whole picture in about MOVING_MS, shown once it is done.
  async moveOn() {
    await nextFrame();
    const { renderer, version } = this, { quality, cost } = MOVING[this.tier];
    const share = Math.max(LEAST_SHARE, this.msPerPixel ? MOVING_MS / (this.msPerPixel * cost * this.pixels) : 0);
    const scale = Math.min(1, 2 ** (Math.floor(2 * Math.log2(share)) / 4));
    const picture = await this.takeTarget(scale), view = this.viewOf(picture.width, picture.height);
    const began = performance.now(), side = 2 ** Math.ceil(Math.log2(Math.sqrt(2 * this.batch)));
    const tiles = tilesOf(picture.width, picture.height, Math.min(256, Math.max(32, side)));
    while (tiles.length) if (!(await this.drawBatch(view, quality, picture, tiles, 4 * this.batch))) return;
    const ms = performance.now() - began;
    this.measure(ms, picture.width * picture.height, cost);
    this.frameMs = ms;
    this.put(picture, { version, isFull: quality === FULL });
    this.show();
  }

  // Draws the first of some rectangles; false once the context is lost.
  async drawBatch(view, quality, picture, tiles, most) {
    const batch = [];
    let pixels = 0;
    while (tiles.length && (pixels === 0 || pixels + tiles[0][2] * tiles[0][3] <= most)) {
      batch.push(tiles.shift());
      pixels += batch[batch.length - 1][2] * batch[batch.length - 1][3];
    }
    const began = performance.now();
    this.renderer.draw(view, quality, picture, batch);
    if (!(await this.renderer.finished())) return false;
    const ms = performance.now() - began;
    if (quality === FULL) {
      const wanted = pixels * Math.max(0.3, Math.min(1.5, BATCH_MS / ms));
      if (tiles.length || wanted < this.batch) this.batch = Math.max(256, Math.min(1 << 20, wanted));
      if (pixels > 2000) this.measure(ms, pixels, 1);
    }
    return true;
  }

  // The same view with twice the pixels along each side, over what is shown already.
  async refine() {
    const { renderer, version, front } = this;
    const scale = front.scale < 1 ? Math.min(1, 2 * front.scale) : front.isFull ? this.finestScale : 1;
    const picture = await this.takeTarget(scale), view = this.viewOf(picture.width, picture.height);
    renderer.present(front, picture);
    this.put(picture, { version, isFull: false, scale });
    const side = 2 ** Math.floor(Math.log2(Math.sqrt(this.batch)));
    const tiles = tilesOf(picture.width, picture.height, Math.min(128, Math.max(16, side)));
    while (tiles.length) {
      if (!(await this.drawBatch(view, FULL, picture, tiles, this.batch))) return;
      this.show();
      if (this.version !== version) return;
    }
    picture.isFull = true;
  }
}
