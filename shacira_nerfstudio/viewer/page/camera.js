// Where a scene is looked at from. Vectors are arrays of 3; axes as in a file: x right, y up, looking
// along -z.

const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const plus = (a, b, factor = 1) => a.map((value, axis) => value + factor * b[axis]);
const cross = (a, b) => [a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
const unit = (a) => a.map((value) => value / Math.hypot(...a));
const mix = (a, b, share) => a.map((value, axis) => value + share * (b[axis] - value));

// v turned about a unit axis (Rodrigues).
function turned(v, axis, angle) {
  const along = dot(v, axis) * (1 - Math.cos(angle)), across = cross(axis, v);
  return v.map((value, i) => value * Math.cos(angle) + across[i] * Math.sin(angle) + axis[i] * along);
}

const det = (a, b, c) => dot(a, cross(b, c));
const times = (rows, v) => rows.map((row) => dot(row, v));

// The two smallest eigenvalues of a symmetric matrix without negative ones, and a vector of the first.
function spread(rows) {
  const [a, b, c] = rows.map((row, i) => row.map((value, j) => value + 1e-9 * (i === j)));
  const inverse = [cross(b, c), cross(c, a), cross(a, b)];  // but for a factor; columns
  let v = unit([1, 0.9, 0.8]);
  for (let n = 0; n < 60; n++) {
    v = unit(plus(plus(inverse[0].map((x) => x * v[0]), inverse[1], v[1]), inverse[2], v[2]));
  }
  const least = dot(v, times(rows, v)), rest = a[0] + b[1] + c[2] - least;
  const pair = (i, j) => rows[i][i] * rows[j][j] - rows[i][j] ** 2;
  const product = pair(0, 1) + pair(0, 2) + pair(1, 2) - least * rest;
  return [least, (rest - Math.sqrt(Math.max(0, rest ** 2 - 4 * product))) / 2, v];
}

// The point nearest to the lines of sight of all cameras (least squares), null if they hardly meet or
// most cameras have it behind them.
function pointLookedAt(cameras) {
  const rows = [[0, 0, 0], [0, 0, 0], [0, 0, 0]], right = [0, 0, 0];
  const lines = cameras.map(({ cameraToWorld: m }) => ({ at: [m[3], m[7], m[11]], along: [-m[2], -m[6], -m[10]] }));
  for (const { at, along } of lines) {
    for (let i = 0; i < 3; i++) {
      for (let j = 0; j < 3; j++) {
        const value = +(i === j) - along[i] * along[j];
        rows[i][j] += value / lines.length;
        right[i] += value * at[j] / lines.length;
      }
    }
  }
  const whole = det(...rows);
  if (spread(rows)[0] < 0.02) return null;
  const point = [0, 1, 2].map((k) => det(...rows.map((row, i) => row.map((value, j) => (j === k ? right[i] : value)))) / whole);
  const ahead = lines.filter(({ at, along }) => dot(plus(point, at, -1), along) > 0).length;
  return ahead >= 0.8 * lines.length ? point : null;
}

// Which way is up, by cameras that nobody has tilted sideways: their right sides are level. Where all
// point the same way, the mean of their own upward axes; the axis of the world that is near it.
function upAxis(cameras) {
  if (cameras.length === 0) return [0, 0, 1];
  const mean = (column) => cameras.reduce((sum, { cameraToWorld: m }) => (
    plus(sum, [m[column], m[4 + column], m[8 + column]], 1 / cameras.length)), [0, 0, 0]);
  const upward = mean(1), back = mean(2), length = Math.hypot(...upward), rights = cameras.map(poseOf);
  const rows = [0, 1, 2].map((i) => [0, 1, 2].map((j) => (
    rights.reduce((sum, { right }) => sum + right[i] * right[j] / cameras.length, 0))));
  const [least, next, level] = spread(rows), along = dot(level, upward), toward = along + 0.5 * dot(level, back);
  const isClear = next >= 0.1 && least < 0.5 * next && (Math.abs(along) >= 0.5 * length || length < 0.3);
  const up = isClear && Math.abs(toward) > 1e-6 ? level.map((value) => value * Math.sign(toward))
    : length > 1e-6 ? unit(upward) : [0, 0, 1];
  const axis = up.map((value) => (Math.abs(value) > 0.978 ? Math.sign(value) : 0));
  return axis.some(Boolean) ? axis : up;
}

// Where a stored camera stands and looks.
function poseOf({ cameraToWorld: m }) {
  return { position: [m[3], m[7], m[11]], right: [m[0], m[4], m[8]], ahead: [-m[2], -m[6], -m[10]] };
}

class Camera {
  constructor({ cameras, march: { box: [low, high] } }) {
    this.up = upAxis(cameras);
    const centre = mix(low, high, 0.5);
    const meeting = pointLookedAt(cameras);
    Object.assign(this, { target: meeting ?? centre, isTargetClear: meeting !== null || cameras.length === 0 });
    this.radius = Math.hypot(...plus(high, low, -1)) / 2;
    const aside = unit(cross(this.up, Math.abs(this.up[0]) < 0.8 ? [1, 0, 0] : [0, 1, 0]));
    const position = plus(plus(this.target, aside, 1.2 * this.radius), this.up, 0.5 * this.radius);
    this.setPose(cameras.length ? poseOf(cameras[0]) : this.lookFrom(position));
    this.optics = cameras[0] ?? { fx: 1.2, fy: 1.2, width: 1, height: 1 };  // of which stored camera
  }

  // The pose at a position that has the target in its middle.
  lookFrom(position) {
    const ahead = unit(plus(this.target, position, -1)), right = unit(cross(ahead, this.up));
    return { position, right, ahead };
  }

  setPose({ position, right, ahead }) {
    Object.assign(this, { position, ahead: unit(ahead) });
    this.right = unit(plus(right, this.ahead, -dot(right, this.ahead)));
    const distance = dot(plus(this.target, position, -1), this.ahead);
    // Where cameras do not look at one place, the page has to look at what they see.
    this.isDistanceClear = this.isTargetClear && distance > 0.05 * this.radius;
    this.distance = distance > 0.05 * this.radius ? distance : this.radius;
  }

  get pose() {
    const { position, right, ahead } = this, above = cross(right, ahead);
    return [0, 1, 2].flatMap((i) => [right[i], above[i], -ahead[i], position[i]]);
  }

  // For a picture of so many pixels, which shows at least what the stored camera does.
  view(width, height) {
    const { fx, fy, width: w, height: h } = this.optics, scale = Math.min(width / w, height / h);
    return { cameraToWorld: this.pose, fx: fx * scale, fy: fy * scale, cx: width / 2, cy: height / 2, focus: this.distance };
  }

  get pivot() { return plus(this.position, this.ahead, this.distance); }

  turn(axis, angle, centre) {
    this.position = plus(centre, turned(plus(this.position, centre, -1), axis, angle));
    this.ahead = turned(this.ahead, axis, angle);
    this.right = turned(this.right, axis, angle);
  }

  // Around what is looked at, or, with a centre at the camera, looking around. Angles in radians.
  orbit(sideways, upwards, centre = this.pivot) {
    this.turn(this.up, sideways, centre);
    const rise = Math.asin(Math.max(-1, Math.min(1, dot(this.ahead, this.up))));
    this.turn(this.right, Math.max(-1.54 - rise, Math.min(1.54 - rise, upwards)), centre);
    // What a stored camera was rolled goes away little by little.
    const level = cross(this.ahead, this.up);
    if (Math.hypot(...level) > 0.05 && dot(level, this.right) > 0) this.right = mix(this.right, unit(level), 0.1);
    this.ahead = unit(this.ahead);
    this.right = unit(plus(this.right, this.ahead, -dot(this.right, this.ahead)));
  }

  // Along its own axes, world units.
  move(rightwards, upwards, ahead) {
    const above = cross(this.right, this.ahead);
    this.position = plus(plus(plus(this.position, this.right, rightwards), above, upwards), this.ahead, ahead);
  }

  zoom(factor) {
    const nearer = Math.max(1e-3 * this.radius, Math.min(100 * this.radius, this.distance * factor));
    this.move(0, 0, this.distance - nearer);
    this.distance = nearer;
  }
}
