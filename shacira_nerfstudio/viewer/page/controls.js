// Mouse, touch and keys on the canvas; buttons, sliders and the strip of the file's parts around it.

const byId = (id) => document.getElementById(id);

function inBytes(count) {
  if (count < 1000) return `${count} B`;
  const [value, name] = count < 1e6 ? [count / 1e3, "kB"] : [count / 1e6, "MB"];
  return `${value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : Math.round(value)} ${name}`;
}

// Drags, wheel and pinches. moved() is called after each change of the camera.
class Pointers {
  constructor(canvas, camera, moved) {
    Object.assign(this, { canvas, camera, moved, down: new Map() });
    const on = (name, listener) => canvas.addEventListener(name, listener, { passive: false });
    on("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      this.down.set(event.pointerId, [event.clientX, event.clientY]);
    });
    on("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) on(name, (event) => this.down.delete(event.pointerId));
    on("contextmenu", (event) => event.preventDefault());
    on("wheel", (event) => {
      event.preventDefault();
      const pixels = event.deltaY * (event.deltaMode === 0 ? 1 : 24);
      camera.zoom(Math.exp(Math.max(-200, Math.min(200, pixels)) * (event.ctrlKey ? 0.008 : 0.0015)));
      moved();
    });
  }

  // So that what is at the distance of the target follows the pointer.
  pan(x, y) {
    const { camera, canvas } = this;
    const perPixel = camera.distance / camera.view(canvas.clientWidth, canvas.clientHeight).fy;
    camera.move(-x * perPixel, y * perPixel, 0);
  }

  move(event) {
    const before = this.down.get(event.pointerId);
    if (!before) return;
    const after = [event.clientX, event.clientY], x = after[0] - before[0], y = after[1] - before[1];
    if (this.down.size === 2) {
      const other = [...this.down].find(([id]) => id !== event.pointerId)[1];
      const apart = ([a, b]) => Math.max(10, Math.hypot(a - other[0], b - other[1]));
      this.camera.zoom(apart(before) / apart(after));
      this.pan(x / 2, y / 2);
    } else if (this.down.size === 1) {
      if (event.buttons & 6 || event.shiftKey) this.pan(x, y);
      else this.camera.orbit(...[-x, -y].map((value) => 5 * value / Math.min(700, this.canvas.clientHeight)));
    }
    this.down.set(event.pointerId, after);
    this.moved();
  }
}

// Keys that are held down fly; the others do what `once` says.
class Keys {
  constructor(camera, moved, once) {
    Object.assign(this, { camera, moved, held: new Set() });
    addEventListener("keydown", (event) => {
      const { code } = event, isTyped = event.ctrlKey || event.metaKey || event.altKey;
      if (isTyped || /^(INPUT|TEXTAREA)$/.test(event.target.tagName)) return;
      if (code in Keys.FLY || code in Keys.LOOK) {
        event.preventDefault();
        if (this.held.size === 0) requestAnimationFrame((now) => this.step(now, now));
        this.held.add(code);
      } else if (code in once && !event.repeat) once[code]();
      this.isFast = event.shiftKey;
    });
    addEventListener("keyup", (event) => {
      this.held.delete(event.code);
      this.isFast = event.shiftKey;
    });
    addEventListener("blur", () => this.held.clear());
  }

  step(now, before) {
    if (this.held.size === 0) return;
    const seconds = Math.min(0.1, (now - before) / 1000);
    const sum = (table) => [...this.held].reduce((total, code) => plus(total, table[code] ?? [0, 0, 0]), [0, 0, 0]);
    const { camera } = this, speed = (this.isFast ? 3 : 0.7) * Math.max(camera.distance, 0.1 * camera.radius);
    camera.move(...sum(Keys.FLY).map((value) => value * speed * seconds));
    const [sideways, upwards] = sum(Keys.LOOK);
    if (sideways || upwards) camera.orbit(1.2 * seconds * sideways, 1.2 * seconds * upwards, camera.position);
    this.moved();
    requestAnimationFrame((next) => this.step(next, now));
  }
}
Keys.FLY = {
  KeyW: [0, 0, 1], KeyS: [0, 0, -1], KeyA: [-1, 0, 0], KeyD: [1, 0, 0], KeyE: [0, 1, 0], KeyQ: [0, -1, 0],
};
Keys.LOOK = { ArrowLeft: [1, 0, 0], ArrowRight: [-1, 0, 0], ArrowUp: [0, 1, 0], ArrowDown: [0, -1, 0] };

// From one pose to another, unless the viewer's system asks for less motion.
class Flight {
  constructor(camera, moved) { Object.assign(this, { camera, moved, number: 0 }); }

  stop() { this.number++; }

  // Calls arrived() at the end, unless something else has moved the camera.
  to(goal, arrived) {
    const { camera, moved } = this, number = ++this.number, { position, right, ahead } = camera;
    const duration = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0 : 450, began = performance.now();
    const step = (now) => {
      if (number !== this.number) return;
      const time = duration ? Math.max(0, Math.min(1, (now - began) / duration)) : 1;
      const between = (a, b) => mix(a, b, time * time * (3 - 2 * time));
      camera.setPose(time < 1 ? {
        position: between(position, goal.position), right: between(right, goal.right), ahead: between(ahead, goal.ahead),
      } : goal);
      moved();
      if (time < 1) requestAnimationFrame(step);
      else arrived();
    };
    step(began);
  }
}

// What the file consists of: a strip of segments as wide as their bytes, and a table of the same.
class Parts {
  constructor(scene) {
    this.total = scene.totalBytes;
    const small = ["contents", "head", "grid", "rendering", "metadata", "psnr"], rest = { name: "rest", bytes: 0 };
    const shown = scene.parts.filter((part) => !small.includes(part.name));
    for (const part of scene.parts) if (small.includes(part.name)) rest.bytes += part.bytes;
    const levels = shown.filter(({ name }) => name.startsWith("level")).length;
    const parts = [rest, ...shown].filter(({ bytes }) => bytes > 0);
    this.segments = parts.map((part) => this.segment(part, levels));
    byId("strip").replaceChildren(...this.segments.map(({ bar }) => bar));
    byId("parts").replaceChildren(...this.segments.map(({ row }) => row));
    this.say(null);
  }

  segment({ name, bytes }, levels) {
    const isLevel = name.startsWith("level "), level = isLevel ? +name.slice(6) : -1;
    const share = levels > 1 ? level / (levels - 1) : 1;
    const color = isLevel ? `hsl(${200 + 35 * share} ${60 - 10 * share}% ${40 + 28 * share}%)`
      : { weights: "#d9a066", occupancy: "#7fae8b", cameras: "#a88bb8" }[name] ?? "#6d727c";
    const bar = document.createElement("span"), row = document.createElement("tr");
    bar.style.cssText = `flex-grow:${bytes};background:${color}`;
    bar.onpointerenter = () => this.say({ name, bytes });
    bar.onpointerleave = () => this.say(null);
    const dot = document.createElement("i");
    dot.style.background = color;
    for (const text of [name, inBytes(bytes), `${(100 * bytes / this.total).toFixed(1)} %`]) {
      row.appendChild(document.createElement("td")).textContent = text;
    }
    row.firstChild.prepend(dot);
    return { bar, row, level, bytes };
  }

  say(part) {
    byId("part").textContent = part
      ? `${part.name} · ${inBytes(part.bytes)} · ${(100 * part.bytes / this.total).toFixed(1)} %`
      : `${inBytes(this.total)} in ${this.segments.length} parts`;
  }

  // Levels that are decoded and shown are bright.
  light(decoded, shown) {
    for (const { bar, row, level } of this.segments) {
      bar.className = row.className = level >= decoded ? "coming" : level >= shown ? "hidden" : "";
    }
  }

  // Bytes of a file that ends with this many levels.
  upTo(numLevels) {
    return this.segments.reduce((sum, { level, bytes }) => sum + (level < numLevels ? bytes : 0), 0);
  }
}
