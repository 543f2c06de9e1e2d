"use strict";
// viser's page draws its whole window with each refresh of the screen, although what it shows, a
// picture that was sent, changes a few times a second. Where WebGL runs in software that takes the
// very cores that pictures are rendered with, and elsewhere the battery. So the canvas, which keeps
// what was drawn, is drawn anew only after something has come for it, while somebody moves
// something, and now and then.
{
  const RESTING_MS = 500;
  const MOVING_MS = 120; // what moves over the picture moves with it, no more often than it comes
  const AFTER_INPUT_MS = 400; // the camera swings on for a moment
  const INPUTS = ["pointerdown", "pointermove", "pointerup", "wheel", "keydown", "keyup", "resize"];

  let isWanted = true, isIdle = false;
  let lastInput = -Infinity, lastDrawn = -Infinity, lastFrame = -Infinity;
  const noteInput = () => { lastInput = performance.now(); };
  for (const name of INPUTS) addEventListener(name, noteInput, { capture: true, passive: true });

  const decide = (time) => {
    lastFrame = time;
    const pause = time - lastInput < AFTER_INPUT_MS ? MOVING_MS : RESTING_MS;
    isIdle = !isWanted && time - lastDrawn < pause;
    if (isIdle) return;
    lastDrawn = time;
    isWanted = false;
  };

  const request = window.requestAnimationFrame;
  window.requestAnimationFrame = (callback) => request.call(window, (time) => {
    if (time !== lastFrame) decide(time);
    callback(time);
  });

  // Software takes several times as long for smooth edges, and for pictures in all smaller sizes.
  const getContext = HTMLCanvasElement.prototype.getContext;
  const isSoftware = () => {
    const probe = getContext.call(document.createElement("canvas"), "webgl2");
    const names = probe?.getExtension("WEBGL_debug_renderer_info");
    const name = names ? probe.getParameter(names.UNMASKED_RENDERER_WEBGL) : "";
    probe?.getExtension("WEBGL_lose_context")?.loseContext();
    return /SwiftShader|llvmpipe|softpipe|Software|Basic Render/i.test(name);
  };
  HTMLCanvasElement.prototype.getContext = function (kind, attributes) {
    if (kind !== "webgl2" || !attributes?.antialias || !isSoftware()) return getContext.call(this, kind, attributes);
    const gl = getContext.call(this, kind, { ...attributes, antialias: false });
    const { texParameteri } = gl;
    gl.texParameteri = (target, name, value) => {
      const isSmall = name === gl.TEXTURE_MIN_FILTER && value === gl.LINEAR_MIPMAP_LINEAR;
      texParameteri.call(gl, target, name, isSmall ? gl.LINEAR : value);
    };
    gl.generateMipmap = () => {};
    return gl;
  };

  const context = WebGL2RenderingContext.prototype;
  const offScreen = new WeakMap(); // contexts that draw into a texture, which is never left out
  const bind = context.bindFramebuffer;
  context.bindFramebuffer = function (target, buffer) {
    if (target !== this.READ_FRAMEBUFFER) offScreen.set(this, buffer !== null);
    bind.call(this, target, buffer);
  };
  for (const name of ["clear", "drawArrays", "drawElements", "drawArraysInstanced", "drawElementsInstanced"]) {
    const draw = context[name];
    context[name] = function (...values) {
      if (!isIdle || offScreen.get(this)) draw.apply(this, values);
    };
  }
  // What comes is made a texture or a buffer when a frame finds it: the next frame shows it. A
  // canvas of another size is empty.
  for (const name of ["texImage2D", "texSubImage2D", "bufferData", "viewport"]) {
    const take = context[name];
    context[name] = function (...values) {
      isWanted = true;
      if (name === "viewport") isIdle = false;
      return take.apply(this, values);
    };
  }
}
