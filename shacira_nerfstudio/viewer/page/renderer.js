// WebGL2: a scene in textures, and pixels from it. A picture is drawn in small rectangles, so that no
// single command keeps the GPU for long.

const VERTEX_SHADER = "void main() { gl_Position = vec4(gl_VertexID == 1 ? 3 : -1, gl_VertexID == 2 ? 3 : -1, 0, 1); }";
const MOST_LINES = 2500;  // of an unrolled loop of a shader
const SHOWN = { color: 0, depth: 1, opacity: 2, numbers: 3 };

class Renderer {
  constructor(canvas) {
    this.canvas = canvas;
    // Pictures are drawn at some time and shown at another: no depth, no smoothing of edges.
    this.gl = canvas.getContext("webgl2", {
      alpha: false, antialias: false, depth: false, stencil: false, powerPreference: "high-performance",
    });
    if (!this.gl) {
      throw new Error("This page needs WebGL2, which this browser does not offer. A current Chrome, Edge, Firefox "
        + "or Safari has it, unless hardware acceleration is switched off in its settings.");
    }
    this.scene = null;
    this.levels = [];  // latents that have arrived, coarse to fine
  }

  // Takes the header of a scene and makes all but the latents; again after the context was lost.
  setScene(scene) {
    const { gl } = this, layout = latentLayout(scene), height = layout.rows[scene.numLevels];
    const most = gl.getParameter(gl.MAX_TEXTURE_SIZE), most3d = gl.getParameter(gl.MAX_3D_TEXTURE_SIZE);
    if (Math.max(height, LATENT_WIDTH) > most || Math.max(...scene.occupancy.resolution) > most3d) {
      throw new Error(`This scene needs textures of ${LATENT_WIDTH} × ${height} texels; this GPU has ${most} × ${most}.`);
    }
    Object.assign(this, { scene, layout, latents: null });
    this.networks ??= new PackedNetworks(scene, layout);
    this.gaps ??= emptyGaps(scene.occupancy);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    const constants = this.constants();
    const defines = Object.entries(constants).map(([name, value]) => `#define ${name} ${value}\n`).join("");
    this.presenter = this.program(SHADERS["present.glsl"]);
    this.marcher = this.program(defines + unrolled(SHADERS["march.glsl"], constants, MOST_LINES));
    this.uploadGaps();
    this.uploadWeights();
    this.constantUniforms();
    this.levels.forEach((_, level) => this.uploadLevel(level));
  }

  constants() {
    const { scene, layout, gl } = this, count = this.networks.values.length / 4;
    this.weightsInTexture = 16 * count > gl.getParameter(gl.MAX_UNIFORM_BLOCK_SIZE);
    return {
      NUM_LEVELS: scene.numLevels, CHANNELS: layout.channels, TEXELS: layout.texels,
      WIDTH: LATENT_WIDTH, WIDTH_BITS: LATENT_BITS, SH_DEGREE: scene.shDegree, NUM_WEIGHTS: count,
      WEIGHTS_IN_TEXTURE: +this.weightsInTexture, CONTRACTED: +(scene.march.contraction === "contracted"),
      ...this.networks.sizes,
    };
  }

  program(fragmentShader) {
    const { gl } = this, program = gl.createProgram();
    const attach = (kind, text) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, `#version 300 es\n${text}`);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      return shader;
    };
    const shaders = [attach(gl.VERTEX_SHADER, VERTEX_SHADER), attach(gl.FRAGMENT_SHADER, fragmentShader)];
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      const logs = shaders.map((shader) => gl.getShaderInfoLog(shader)).join(" ");
      throw new Error(`The graphics driver refuses a shader: ${gl.getProgramInfoLog(program)} ${logs}`);
    }
    const places = {};
    const uniform = (key) => (key in places ? places[key] : places[key] = gl.getUniformLocation(program, key));
    return { program, uniform };
  }

  texture(unit, target = this.gl.TEXTURE_2D, filter = this.gl.NEAREST) {
    const { gl } = this, texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(target, texture);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(target, name, filter);
    for (const name of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(target, name, gl.CLAMP_TO_EDGE);
    return texture;
  }

  uploadGaps() {
    const { gl } = this, [gx, gy, gz] = this.scene.occupancy.resolution;
    this.texture(1, gl.TEXTURE_3D);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8UI, gz, gy, gx, 0, gl.RED_INTEGER, gl.UNSIGNED_BYTE, this.gaps);
  }

  uploadWeights() {
    const { gl, networks: { values } } = this;
    if (!this.weightsInTexture) {
      gl.bindBufferBase(gl.UNIFORM_BUFFER, 0, gl.createBuffer());
      gl.bufferData(gl.UNIFORM_BUFFER, values, gl.STATIC_DRAW);
      return;
    }
    const rows = Math.ceil(values.length / 4096), padded = new Float32Array(4096 * rows);
    padded.set(values);
    this.texture(2);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, 1024, rows, 0, gl.RGBA, gl.FLOAT, padded);
  }

  constantUniforms() {
    const { gl, scene, layout, marcher: { uniform, program } } = this, [low, high] = scene.march.box;
    gl.useProgram(program);
    gl.uniform1i(uniform("latents"), 0);
    gl.uniform1i(uniform("gaps"), 1);
    if (this.weightsInTexture) gl.uniform1i(uniform("weights"), 2);
    const grid = scene.levels.flatMap(({ resolution }, level) => [...resolution, layout.rows[level]]);
    gl.uniform4iv(uniform("levels"), grid);
    gl.uniform2uiv(uniform("tables"), scene.levels.flatMap(({ numEntries, isHashed }) => [numEntries, +isHashed]));
    gl.uniform3fv(uniform("boxLow"), low);
    gl.uniform3fv(uniform("boxSize"), high.map((value, axis) => value - low[axis]));
    const { kind, color } = scene.background, fixed = { white: [1, 1, 1], black: [0, 0, 0] };
    gl.uniform4f(uniform("background"), ...(fixed[kind] ?? color), +(kind === "last_sample"));
  }

  // Takes the latents of the next finer level.
  addLevel(latents) {
    this.levels.push(latents);
    if (!this.gl.isContextLost()) this.uploadLevel(this.levels.length - 1);
  }

  // The texture holds bytes, until a level comes that needs two for each latent.
  uploadLevel(level) {
    const { gl, layout } = this, isWide = this.levels.some((latents) => latents instanceof Int16Array);
    if (!this.latents || this.latents.isWide !== isWide) {
      if (this.latents) gl.deleteTexture(this.latents.texture);
      this.latents = { texture: this.texture(0), isWide };
      const formats = isWide ? [gl.R16I, gl.RG16I, 0, gl.RGBA16I] : [gl.R8I, gl.RG8I, 0, gl.RGBA8I];
      gl.texStorage2D(gl.TEXTURE_2D, 1, formats[layout.channels - 1], LATENT_WIDTH, layout.rows[layout.rows.length - 1]);
      for (let coarser = 0; coarser < level; coarser++) this.uploadLevel(coarser);
    }
    const format = [gl.RED_INTEGER, gl.RG_INTEGER, 0, gl.RGBA_INTEGER][layout.channels - 1];
    const latents = isWide ? Int16Array.from(this.levels[level]) : this.levels[level];
    const texels = latentRows(latents, this.scene.latentDim, layout), row = layout.rows[level];
    gl.activeTexture(gl.TEXTURE0);
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, row, LATENT_WIDTH, layout.rows[level + 1] - row, format,
      isWide ? gl.SHORT : gl.BYTE, texels);
  }

  // A texture that is drawn on.
  target(width, height, format = this.gl.RGBA8) {
    const { gl } = this, texture = this.texture(3, gl.TEXTURE_2D, format === gl.RGBA8 ? gl.LINEAR : gl.NEAREST);
    gl.texStorage2D(gl.TEXTURE_2D, 1, format, width, height);
    const frame = gl.createFramebuffer();
    gl.bindFramebuffer(gl.FRAMEBUFFER, frame);
    gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, texture, 0);
    return { width, height, texture, frame };
  }

  free(target) {
    if (!target) return;
    this.gl.deleteFramebuffer(target.frame);
    this.gl.deleteTexture(target.texture);
  }

  // Renders rectangles [x, y, width, height] of a target, y up.
  // view: {cameraToWorld [12], fx, fy, cx, cy, show, focus, numLevels} in pixels of the target.
  draw(view, quality, target, rectangles) {
    const { gl, scene, marcher: { uniform, program } } = this, m = view.cameraToWorld, { march } = scene;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.viewport(0, 0, target.width, target.height);
    gl.useProgram(program);
    const columns = [0, 1, 2, 3].flatMap((column) => [m[column], m[4 + column], m[8 + column]]);
    gl.uniformMatrix4x3fv(uniform("pose"), false, columns);
    gl.uniform4f(uniform("optics"), view.fx, view.fy, view.cx, view.cy);
    gl.uniform1f(uniform("height"), target.height);
    gl.uniform4f(uniform("march"), march.nearPlane, march.farPlane, march.stepSize * quality.stepScale, march.knee);
    gl.uniform2f(uniform("limits"), Math.max(scene.earlyStop, quality.minThrough), quality.minWeight);
    gl.uniform1i(uniform("show"), SHOWN[view.show]);
    gl.uniform1f(uniform("focus"), view.focus);
    const numLevels = Math.ceil(Math.min(view.numLevels, scene.numLevels) * quality.levels);
    gl.uniform1i(uniform("numLevels"), Math.min(this.levels.length, numLevels));
    gl.enable(gl.SCISSOR_TEST);
    for (const rectangle of rectangles) {
      gl.scissor(...rectangle);
      gl.drawArrays(gl.TRIANGLES, 0, 3);
    }
    gl.disable(gl.SCISSOR_TEST);
  }

  // Draws a picture all over a target, or the window (null).
  present(picture, target) {
    const { gl, presenter: { uniform, program } } = this, { width, height } = target ?? this.canvas;
    gl.bindFramebuffer(gl.FRAMEBUFFER, target ? target.frame : null);
    gl.viewport(0, 0, width, height);
    gl.useProgram(program);
    gl.activeTexture(gl.TEXTURE3);
    gl.bindTexture(gl.TEXTURE_2D, picture.texture);
    gl.uniform1i(uniform("picture"), 3);
    gl.uniform2f(uniform("size"), width, height);
    gl.drawArrays(gl.TRIANGLES, 0, 3);
  }

  // Resolves once the GPU has done all that it was told, to whether it still works.
  finished() {
    const { gl } = this, sync = gl.fenceSync(gl.SYNC_GPU_COMMANDS_COMPLETE, 0);
    gl.flush();
    return new Promise((resolve) => {
      const look = () => {
        const status = gl.isContextLost() || !sync ? gl.WAIT_FAILED : gl.clientWaitSync(sync, 0, 0);
        if (status === gl.TIMEOUT_EXPIRED) setTimeout(look, 2);
        else {
          gl.deleteSync(sync);
          resolve(status !== gl.WAIT_FAILED);
        }
      };
      setTimeout(look, 0);
    });
  }

  // A whole picture of full quality: bytes [height, width, 4] from the top, or floats where the GPU can
  // draw them; of `show: "numbers"` depth, opacity.
  async renderAt(view) {
    const { gl } = this, isFloat = gl.getExtension("EXT_color_buffer_float") !== null;
    const { width, height } = view, target = this.target(width, height, isFloat ? gl.RGBA32F : gl.RGBA8);
    const all = { show: "color", focus: 1, numLevels: this.scene.numLevels, ...view };
    for (const tile of tilesOf(width, height, 32)) {
      this.draw(all, FULL, target, [tile]);
      if (!(await this.finished())) throw new Error("the graphics context is lost");
    }
    const pixels = isFloat ? new Float32Array(4 * width * height) : new Uint8Array(4 * width * height);
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame);
    gl.readPixels(0, 0, width, height, gl.RGBA, isFloat ? gl.FLOAT : gl.UNSIGNED_BYTE, pixels);
    this.free(target);
    const rows = Array.from({ length: height }, (_, y) => pixels.subarray(4 * width * (height - 1 - y), 4 * width * (height - y)));
    const flipped = new pixels.constructor(pixels.length);
    rows.forEach((row, y) => flipped.set(row, 4 * width * y));
    return { width, height, pixels: flipped };
  }
}

// Rectangles that cover a picture, those in its middle first.
function tilesOf(width, height, side) {
  const tiles = [];
  for (let y = 0; y < height; y += side) {
    for (let x = 0; x < width; x += side) tiles.push([x, y, Math.min(side, width - x), Math.min(side, height - y)]);
  }
  const off = ([x, y, w, h]) => Math.hypot(x + w / 2 - width / 2, y + h / 2 - height / 2);
  return tiles.sort((a, b) => off(a) - off(b));
}
