// One ray per pixel, as backends/reference.py samples it: equal steps of a spacing, samples in occupied
// cells only, the networks of each sample, sums front to back. renderer.js puts constants before this.
precision highp float;
precision highp int;
precision highp isampler2D;
precision highp usampler3D;

uniform isampler2D latents;  // one entry after another, each level from a row of its own
uniform usampler3D gaps;  // [z, y, x]: 0 in occupied cells, else all cells nearer than this are empty
uniform ivec4 levels[NUM_LEVELS];  // vertices along each axis, row of the first entry
uniform uvec2 tables[NUM_LEVELS];  // entries, and whether they are hashed
uniform int numLevels;  // finer levels read as 0

uniform mat4x3 pose;  // camera to world
uniform vec4 optics;  // fx, fy, cx, cy
uniform float height;
uniform vec3 boxLow, boxSize;
uniform vec4 march;  // near, far, step, knee
uniform vec2 limits;  // transmittance at which a ray ends, weight from which a sample gets a colour
uniform vec4 background;  // colour; w = 1: that of the last sample instead
uniform int show;  // 0 colour, 1 depth, 2 opacity, 3 numbers
uniform float focus;  // distance in the middle of the depth colours

out vec4 pixel;

#if WEIGHTS_IN_TEXTURE
uniform highp sampler2D weights;
#define W(i) texelFetch(weights, ivec2((i) & 1023, (i) >> 10), 0)
#else
layout(std140) uniform Weights { vec4 weights[NUM_WEIGHTS]; };
#define W(i) weights[i]
#endif
#define MATRIX(i) mat4(W(i), W((i) + 1), W((i) + 2), W((i) + 3))

// Interpolated latents of a level: channels 4 part … 4 part + 3. Vertices as in grid.py.
vec4 lookUp(int level, int part, vec3 x) {
  if (level >= numLevels) return vec4(0);
  ivec4 grid = levels[level];
  uvec2 table = tables[level];
  vec3 at = x * vec3(grid.xyz - 1) + 0.5, low = floor(at), upper = at - low, lower = 1.0 - upper;
  uvec3 stride = table.y == 1u ? uvec3(1u, 2654435761u, 805459861u)
    : uvec3(1u, uint(grid.x), uint(grid.x) * uint(grid.y));
  uvec3 a = uvec3(low) * stride, b = a + stride;
  vec4 sum = vec4(0);
  for (int corner = 0; corner < 8; corner++) {
    bvec3 isUpper = bvec3((corner & 1) != 0, (corner & 2) != 0, (corner & 4) != 0);
    uvec3 v = uvec3(isUpper.x ? b.x : a.x, isUpper.y ? b.y : a.y, isUpper.z ? b.z : a.z);
    uint entry;
    if (table.y == 1u) entry = (v.x ^ v.y ^ v.z) & (table.x - 1u);
    else {
      entry = v.x + v.y + v.z;
      if (entry >= table.x) entry -= table.x;  // below twice the table
    }
    int texel = int(entry) * TEXELS + part;
    vec3 w = mix(lower, upper, vec3(isUpper));
    ivec2 place = ivec2(texel & (WIDTH - 1), grid.w + (texel >> WIDTH_BITS));
    sum += w.x * w.y * w.z * vec4(texelFetch(latents, place, 0));
  }
  return sum;
}

// Log density, then geometry. Hidden units are made and used four at a time. renderer.js unrolls the
// loops, so that places of weights are constants: software renderers need that, and compilers like it.
void densityNetwork(vec3 x, out vec4 y[GEO4]) {
  vec4 z[INPUT4];
  for (int i = 0; i < INPUT4; i++) {
#if CHANNELS == 1
    z[i] = vec4(lookUp(4 * i, 0, x).x, lookUp(4 * i + 1, 0, x).x, lookUp(4 * i + 2, 0, x).x,
      lookUp(4 * i + 3, 0, x).x);
#elif CHANNELS == 2
    z[i] = vec4(lookUp(2 * i, 0, x).xy, lookUp(2 * i + 1, 0, x).xy);
#else
    z[i] = lookUp(i / TEXELS, i % TEXELS, x);
#endif
  }
  for (int o = 0; o < GEO4; o++) {  // unrolled
    y[o] = W(DENSITY_OUT + o);
  }
  for (int h = 0; h < HIDDEN4; h++) {  // unrolled
    vec4 v = W(DENSITY_IN + h * (1 + 4 * INPUT4));
    for (int i = 0; i < INPUT4; i++) {  // unrolled
      v += MATRIX(DENSITY_IN + h * (1 + 4 * INPUT4) + 1 + 4 * i) * z[i];
    }
    v = max(v, 0.0);
    for (int o = 0; o < GEO4; o++) {  // unrolled
      y[o] += MATRIX(DENSITY_OUT + GEO4 + 4 * (h * GEO4 + o)) * v;
    }
  }
}

#define COLOR_UNITS(h) (COLOR_IN + (h) * (1 + 4 * (SH4 + GEO4)))
#define MIDDLE_UNITS(layer, h) (COLOR_MIDDLE + ((layer) * HIDDEN4 + (h)) * (1 + 4 * HIDDEN4))

vec3 colorNetwork(vec4 sh[SH4], vec4 y[GEO4]) {
  vec4 units[HIDDEN4], next[HIDDEN4];
  for (int h = 0; h < HIDDEN4; h++) {  // unrolled
    vec4 v = W(COLOR_UNITS(h));
    for (int i = 0; i < SH4; i++) {  // unrolled
      v += MATRIX(COLOR_UNITS(h) + 1 + 4 * i) * sh[i];
    }
    for (int o = 0; o < GEO4; o++) {  // unrolled
      v += MATRIX(COLOR_UNITS(h) + 1 + 4 * (SH4 + o)) * y[o];
    }
    units[h] = max(v, 0.0);
  }
  for (int layer = 0; layer < MIDDLE_LAYERS; layer++) {  // unrolled
    for (int h = 0; h < HIDDEN4; h++) {  // unrolled
      vec4 v = W(MIDDLE_UNITS(layer, h));
      for (int i = 0; i < HIDDEN4; i++) {  // unrolled
        v += MATRIX(MIDDLE_UNITS(layer, h) + 1 + 4 * i) * units[i];
      }
      next[h] = max(v, 0.0);
    }
    units = next;
  }
  vec4 rgb = W(COLOR_OUT);
  for (int h = 0; h < HIDDEN4; h++) {  // unrolled
    rgb += MATRIX(COLOR_OUT + 1 + 4 * h) * units[h];
  }
  return 1.0 / (1.0 + exp(-rgb.xyz));
}

// Real spherical harmonics of a unit vector, padded with zeros, as in radiance_field.py.
void harmonics(vec3 d, out vec4 sh[SH4]) {
  float x = d.x, y = d.y, z = d.z, xx = x * x, yy = y * y, zz = z * z;
  sh[0] = vec4(0.28209479, 0, 0, 0);
#if SH_DEGREE > 1
  sh[0].yzw = 0.48860251 * vec3(-y, z, -x);
#endif
#if SH_DEGREE > 2
  sh[1] = vec4(1.09254843 * x * y, -1.09254843 * y * z, 0.94617470 * zz - 0.31539157, -1.09254843 * x * z);
  sh[2] = vec4(0.54627422 * (xx - yy), 0, 0, 0);
#endif
#if SH_DEGREE > 3
  sh[2].yzw = vec3(0.59004359 * y * (yy - 3.0 * xx), 2.89061144 * x * y * z, 0.45704580 * y * (1.0 - 5.0 * zz));
  sh[3] = vec4(0.37317633 * z * (5.0 * zz - 3.0), 0.45704580 * x * (1.0 - 5.0 * zz),
    1.44530572 * z * (xx - yy), 0.59004359 * x * (3.0 * yy - xx));
#endif
}

float spacing(float t) { return march.w == 0.0 || t <= march.w ? t : march.w * (2.0 - march.w / t); }

float spacingInverse(float u) {
  if (march.w == 0.0 || u <= march.w) return u;
  return march.w * march.w / max(2.0 * march.w - u, 1e-6 * march.w);
}

float largest(vec3 v) { return max(v.x, max(v.y, v.z)); }
float smallest(vec3 v) { return min(v.x, min(v.y, v.z)); }

// A distance along the ray within which it surely stays among empty cells.
// at: position in cells. y: position in the box scaled to [-1, 1]^3, speed: what it gains per unit.
float emptyDistance(vec3 at, vec3 cell, float gap, vec3 y, vec3 speed, vec3 size) {
#if CONTRACTED
  // The contraction moves a point at L∞ radius r by at most (4 r - 3) / r² per unit, which has its
  // maximum of 4/3 at 1.5. From r >= 3 on, r does not halve within r / (2 speed).
  float r = largest(abs(y)), s = largest(abs(speed)), rho = 0.5 * r;
  vec3 inside = at - cell;
  float room = smallest((gap - 1.0 + min(inside, 1.0 - inside)) * 4.0 / size);
  return r < 3.0 ? 0.75 * room / s : min(rho, room * rho * rho / (4.0 * rho - 3.0)) / s;
#else
  vec3 border = cell + mix(vec3(1.0 - gap), vec3(gap), greaterThan(speed, vec3(0)));
  return smallest((border - at) / (0.5 * speed * size));
#endif
}

vec3 depthColor(float t) {
  float v = 3.0 * t / (t + focus);
  vec3 near = vec3(0.99, 0.93, 0.78), middle = vec3(0.90, 0.50, 0.36), far = vec3(0.36, 0.20, 0.44);
  return v < 1.0 ? mix(near, middle, v) : v < 2.0 ? mix(middle, far, v - 1.0) : mix(far, vec3(0.05, 0.06, 0.12), v - 2.0);
}

void main() {
  vec2 at2 = vec2(gl_FragCoord.x, height - gl_FragCoord.y);
  vec3 d = normalize(mat3(pose) * vec3((at2.x - optics.z) / optics.x, (optics.w - at2.y) / optics.y, -1));
  vec3 origin = (pose[3] - boxLow) / boxSize * 2.0 - 1.0, speed = d / boxSize * 2.0;  // box: [-1, 1]^3
  float begin = march.x, end = march.y;
#if !CONTRACTED
  speed = mix(speed, vec3(1e-12), lessThan(abs(speed), vec3(1e-12)));
  vec3 a = (-1.0 - origin) / speed, b = (1.0 - origin) / speed;
  begin = max(begin, largest(min(a, b)));
  end = min(end, smallest(max(a, b)));
#endif
  vec4 sh[SH4], y[GEO4];
  harmonics(d, sh);
  vec3 size = vec3(textureSize(gaps, 0).zyx), color = vec3(0), last = vec3(0);
  float first = spacing(begin), through = 1.0, carried = 0.0, reach = 0.0;
  int n = 0, count = end > begin ? int(ceil((spacing(end) - first) / march.z)) : 0;
  bool hasColor = true, isDone = false;  // of the last sample; of the ray
  while (!isDone) {
    vec3 x = vec3(0);
    float edge = 0.0;
    for (;;) {  // to the next sample in an occupied cell
      edge = first + float(n) * march.z;
      float u = edge + 0.5 * march.z, t = spacingInverse(u);
      isDone = n >= count || !(t < end);
      if (isDone) break;
      vec3 z = origin + t * speed;
#if CONTRACTED
      float r = max(1.0, largest(abs(z)));
      x = (z * ((2.0 - 1.0 / r) / r) + 2.0) / 4.0;
#else
      x = z * 0.5 + 0.5;
#endif
      vec3 cell = clamp(floor(x * size), vec3(0), size - 1.0);
      float gap = float(texelFetch(gaps, ivec3(cell.zyx), 0).x);
      if (gap == 0.0) break;
      float ahead = (spacing(t + emptyDistance(x * size, cell, gap, z, speed, size)) - u) / march.z;
      n += max(1, int(min(ahead - 1e-3, 1e6)) + 1);
    }
    bool wantsColor = !hasColor && through >= limits.x;  // a ray that one can see through ends here
    if (!isDone) {
      densityNetwork(clamp(x, 0.0, 1.0), y);
      float start = spacingInverse(edge), stop = spacingInverse(edge + march.z);
      float passes = exp(-exp(min(y[0].x, 15.0)) * (stop - start)), weight = through * (1.0 - passes);
      reach += weight * 0.5 * (start + stop);
      carried += weight;
      through *= passes;
      wantsColor = carried > limits.y;
      hasColor = wantsColor;
      isDone = through < limits.x;
      n++;
    }
    if (wantsColor) {
      last = colorNetwork(sh, y);
      color += carried * last;
      carried = 0.0;
      hasColor = true;
    }
  }
  color += carried * last + through * (background.w == 1.0 ? last : background.xyz);
  float opacity = 1.0 - through, depth = opacity > 1e-3 ? reach / opacity : clamp(end, 0.0, 1e3);
  pixel = vec4(color, 1);
  if (show == 1) pixel.xyz = opacity * depthColor(depth);
  if (show == 2) pixel.xyz = vec3(opacity);
  if (show == 3) pixel = vec4(depth, opacity, 0, 1);
}
