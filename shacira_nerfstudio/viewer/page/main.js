// Starts the page: decoder, renderer, controls, and window.shacira for tests and the curious.

class Page {
  constructor() {
    this.canvas = byId("view");
    this.options = { show: "color", numLevels: Infinity };
    this.state = { phase: "decoding", levels: 0, numLevels: 0, digest: null, error: null, isSharp: false };
    document.body.dataset.phase = "decoding";
    byId("name").textContent = document.title = FILE_NAME;
    const bytes = sceneBytes();
    byId("size").textContent = inBytes(bytes.length);
    byId("save").onclick = () => this.save();
    byId("about").onclick = () => this.toggleCard();
    byId("strip").onclick = () => this.toggleCard();
    try {
      this.renderer = new Renderer(this.canvas);
    } catch (error) {
      return this.fail(error);
    }
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault();
      this.report();
    });
    this.canvas.addEventListener("webglcontextrestored", () => this.restore());
    startDecoder(bytes, (message) => this.receive(message));
  }

  receive(message) {
    try {
      if (this.state.phase === "error") return;
      if (message.type === "header") this.begin(message.scene);
      if (message.type === "level") this.addLevel(message.latents);
      if (message.type === "done") this.finish(message);
      if (message.type === "error") throw new Error(`The file in this page cannot be shown. ${message.message}.`);
    } catch (error) {
      this.fail(error);
    }
  }

  begin(scene) {
    this.scene = scene;
    this.state.numLevels = scene.numLevelsPresent;
    this.renderer.setScene(scene);
    this.camera = new Camera(scene);
    this.stored = 0;
    const viewOf = (width, height) => ({ ...this.camera.view(width, height), ...this.options });
    this.painter = new Painter(this.renderer, viewOf, () => this.report());
    this.parts = new Parts(scene);
    this.connect();
    new ResizeObserver(() => this.resize()).observe(this.canvas);
    this.resize();
    this.painter.run().catch((error) => this.fail(error));
  }

  connect() {
    const moved = () => this.painter.changed({ isMoving: true });
    this.flight = new Flight(this.camera, moved);
    const byHand = () => {
      this.flight.stop();
      moved();
    };
    new Pointers(this.canvas, this.camera, byHand);
    this.canvas.addEventListener("dblclick", (event) => this.turnAround(event));
    new Keys(this.camera, byHand, {
      Comma: () => this.step(-1), Period: () => this.step(1), Digit1: () => this.show("color"),
      Digit2: () => this.show("depth"), Digit3: () => this.show("opacity"), KeyH: () => this.toggleCard(),
      Escape: () => this.toggleCard(false),
    });
    byId("before").onclick = () => this.step(-1);
    byId("after").onclick = () => this.step(1);
    byId("where").onclick = () => this.step(0);
    byId("cameras").hidden = this.scene.cameras.length === 0;
    for (const button of document.querySelectorAll("[data-show]")) button.onclick = () => this.show(button.dataset.show);
    const levels = byId("levels");
    levels.max = this.state.numLevels;
    levels.value = levels.max;
    levels.oninput = () => {
      this.options.numLevels = +levels.value;
      this.painter.changed({ isMoving: true });
      this.report();
    };
    const rows = Object.entries(this.scene.metadata).map(([name, value]) => {
      const row = document.createElement("tr");
      for (const text of [name.replaceAll("_", " "), value]) row.appendChild(document.createElement("td")).textContent = text;
      return row;
    });
    byId("metadata").replaceChildren(...rows);
    document.body.dataset.phase = "ready";
  }

  addLevel(latents) {
    this.renderer.addLevel(latents);
    this.state.levels++;
    this.painter.changed();
    this.report();
  }

  finish({ digest, truncatedAt }) {
    Object.assign(this.state, { phase: "ready", digest });
    this.aim();
    if (truncatedAt !== null) this.notice = `end of file missing: ${truncatedAt} of ${this.state.numLevels} levels`;
    this.report();
  }

  // Stored view number stored + by.
  step(by) {
    const { cameras } = this.scene;
    if (!cameras.length) return;
    this.stored = (this.stored + by + cameras.length) % cameras.length;
    this.camera.optics = cameras[this.stored];
    this.flight.to(poseOf(cameras[this.stored]), () => this.aim());
    this.report();
  }

  show(what) {
    this.options.show = what;
    for (const button of document.querySelectorAll("[data-show]")) {
      button.setAttribute("aria-pressed", String(button.dataset.show === what));
    }
    this.painter.changed({ isMoving: true });
  }

  // What was clicked becomes what the camera turns around.
  async turnAround({ offsetX, offsetY }) {
    const { canvas, camera } = this, view = camera.view(canvas.clientWidth, canvas.clientHeight);
    const at = { cx: view.cx - offsetX, cy: view.cy - offsetY, width: 1, height: 1 };
    const [depth] = await this.distances({ ...view, ...at });
    if (depth === undefined) return;
    const x = -at.cx / view.fx, y = at.cy / view.fy, above = cross(camera.right, camera.ahead);
    const along = unit(plus(plus(camera.ahead, camera.right, x), above, y));
    Object.assign(camera, { target: plus(camera.position, along, depth), isTargetClear: true });
    this.flight.to(camera.lookFrom(camera.position), () => {});
  }

  // How far away things are that rays of a picture meet, the nearest first.
  async distances(view) {
    const { pixels } = await this.renderer.renderAt({ ...view, show: "numbers" });
    return pixels.filter((_, i) => i % 4 === 0 && pixels[i + 1] > 0.5).sort();
  }

  // Where stored cameras do not look at one place, a camera turns about what is in the middle of its view.
  async aim() {
    const { camera, flight: { number } } = this, side = 12;
    if (camera.isDistanceClear || !this.renderer.levels.length) return;
    const middle = { ...camera.view(2 * side, 2 * side), width: side, height: side, cx: side / 2, cy: side / 2 };
    const found = await this.distances(middle).catch(() => []);  // the context is lost
    if (!found.length || number !== this.flight.number) return;
    camera.distance = found[found.length >> 1];
    camera.isDistanceClear = true;
    if (this.options.show === "depth") this.painter.changed();
  }

  resize() {
    const { canvas, renderer } = this, ratio = Math.min(window.devicePixelRatio || 1, 2);
    const most = renderer.gl.getParameter(renderer.gl.MAX_RENDERBUFFER_SIZE) || 4096;
    const shrink = Math.min(1, Math.sqrt(4e6 / (canvas.clientWidth * canvas.clientHeight * ratio * ratio || 1)));
    const side = (length) => Math.max(1, Math.min(most, Math.round(length * ratio * shrink)));
    const width = side(canvas.clientWidth), height = side(canvas.clientHeight);
    if (canvas.width === width && canvas.height === height) return;
    Object.assign(canvas, { width, height });
    this.painter.show();  // a new size clears the canvas
    this.painter.changed({ isMoving: true });
  }

  restore() {
    try {
      this.renderer.setScene(this.scene);
      this.painter.forget();
      this.painter.changed();
    } catch (error) {
      this.fail(error);
    }
  }

  report() {
    const { state, painter, parts, options, renderer } = this;
    if (state.phase === "error" || !painter) return;
    const shown = Math.min(options.numLevels, state.numLevels);
    Object.assign(state, {
      isSharp: state.phase === "ready" && painter.isSharp, scale: painter.front?.scale ?? 0,
      frameMs: painter.frameMs, msPerPixel: painter.msPerPixel,
    });
    parts.light(state.levels, shown);
    byId("detail").textContent = `${shown} of ${state.numLevels} levels · ${inBytes(parts.upTo(shown))}`;
    byId("where").textContent = `View ${this.stored + 1} / ${this.scene.cameras.length}`;
    byId("status").textContent = renderer.gl.isContextLost() ? "waiting for the graphics driver"
      : state.phase === "decoding" ? `decoding level ${state.levels + 1} of ${state.numLevels}`
      : this.notice ?? (painter.isSharp || painter.isMoving ? "" : "refining");
  }

  save() {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([sceneBytes()], { type: "application/octet-stream" }));
    link.download = FILE_NAME;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  toggleCard(isOpen = byId("card").hidden) {
    byId("card").hidden = !isOpen;
    byId("about").setAttribute("aria-expanded", String(isOpen));
  }

  fail(error) {
    Object.assign(this.state, { phase: "error", error: error.message });
    document.body.dataset.phase = "error";
    byId("problem").textContent = error.message;
    byId("status").textContent = "";
    console.warn(error);
  }
}

const page = new Page();

// renderAt({cameraToWorld [12], fx, fy, cx, cy, width, height, show?, numLevels?}): pixels in full quality.
window.shacira = {
  page,
  get state() { return page.state; },
  renderAt: (view) => page.renderer.renderAt(view),
};
