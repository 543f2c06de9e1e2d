// The stored cameras (codec/FORMAT.md, section 1).

function readCameras(payload) {
  const bytes = new Bytes(payload, "cams"), n = bytes.varint(1, 65536), isShared = bytes.u8(0, 1);
  const optics = [];
  for (let i = isShared ? 1 : n; i > 0; i--) {
    const fx = bytes.f32(2 ** -10, 2 ** 24), fy = bytes.f32(2 ** -10, 2 ** 24);
    const cx = bytes.f32(-(2 ** 24), 2 ** 24), cy = bytes.f32(-(2 ** 24), 2 ** 24);
    const width = within(bytes.u32(), 1, 65536, "a width of cams");
    const height = within(bytes.u32(), 1, 65536, "a height of cams");
    demand(width * height <= 2 ** 27, "cams: expected fewer pixels per camera");
    optics.push({ fx, fy, cx, cy, width, height });
  }
  const elements = bytes.u8(0, 1) ? readRotations(bytes, n) : readMatrices(bytes, n);
  bytes.end();
  const cameras = [];
  for (let i = 0; i < n; i++) {
    const cameraToWorld = Array.from({ length: 12 }, (_, e) => elements[e * n + i]);
    checkPose(cameraToWorld);
    cameras.push({ cameraToWorld, ...optics[isShared ? 0 : i] });
  }
  return cameras;
}

// Elements of the matrices, each for all cameras before the next.
function readMatrices(bytes, n) {
  const planes = [0, 1, 2, 3].map(() => readArray(bytes, 12 * n, 0, 255));
  const view = new DataView(new ArrayBuffer(4));
  return Float32Array.from({ length: 12 * n }, (_, i) => {
    planes.forEach((plane, k) => view.setUint8(k, plane[i]));
    return view.getFloat32(0, true);
  });
}

function readRotations(bytes, n) {
  const step = 2 ** (bytes.u8(0, 80) - 40), missing = readArray(bytes, n, 0, 3);
  const upper = readArray(bytes, 6 * n, 0, 255), lower = readArray(bytes, 6 * n, 0, 255);
  const elements = new Float32Array(12 * n);
  for (let camera = 0; camera < n; camera++) {
    const [a, b, c, i, j, k] = [0, 1, 2, 3, 4, 5].map((row) => within(
      256 * upper[row * n + camera] + lower[row * n + camera] - 32768, -32767, 32767, "a pose of cams"));
    const rest = 46340 * 46340 - a * a - b * b - c * c;
    demand(rest >= 0, "cams: expected unit quaternions");
    const parts = [a / 46340, b / 46340, c / 46340];
    parts.splice(missing[camera], 0, Math.sqrt(rest) / 46340);
    const [w, x, y, z] = parts;
    [
      1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), i * step,
      2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), j * step,
      2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), k * step,
    ].forEach((value, e) => { elements[e * n + camera] = value; });
  }
  return elements;
}

function checkPose(pose) {
  demand(pose.every(Number.isFinite), "cams: expected finite poses");
  const columns = [0, 1, 2, 3].map((k) => [pose[k], pose[k + 4], pose[k + 8]]);
  const dot = (u, v) => u[0] * v[0] + u[1] * v[1] + u[2] * v[2];
  for (let i = 0; i < 3; i++) {
    for (let k = 0; k <= i; k++) {
      const distance = Math.abs(dot(columns[i], columns[k]) - (i === k ? 1 : 0));
      demand(distance <= 1 / 16, "cams: expected rotations, found another pose");
    }
  }
  const [x, y, z, shift] = columns;
  const cross = [y[1] * z[2] - y[2] * z[1], y[2] * z[0] - y[0] * z[2], y[0] * z[1] - y[1] * z[0]];
  demand(dot(x, cross) > 0, "cams: expected rotations, found a mirrored pose");
  for (const value of shift) within(value, -(2 ** 40), 2 ** 40, "a position of cams");
}
