// Runs the page's decoder outside a page: node run_page_decoder.mjs DECODER < JOBS
//
// DECODER is the text of viewer/html.py's decoder_source. JOBS and the output have one line of JSON
// per file: {"path", "options", "wants_scene"} and what the decoder posted.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import vm from "node:vm";

const decodeScene = vm.runInThisContext(`${readFileSync(process.argv[2], "utf8")}\ndecodeScene`);
const plain = (key, value) => (ArrayBuffer.isView(value) ? Array.from(value) : value);
const sha256 = (arrays) => {
  const hash = createHash("sha256");
  for (const array of arrays) hash.update(new Uint8Array(array.buffer));
  return hash.digest("hex");
};

for await (const line of createInterface({ input: process.stdin })) {
  const { path, options, wants_scene } = JSON.parse(line), file = readFileSync(path);
  const found = { types: [], levels: [], array_types: [], array_bytes: 0 }, begin = performance.now();
  decodeScene(new Uint8Array(file), (message) => {
    found.types.push(message.type);
    found.array_bytes = Math.max(found.array_bytes, process.memoryUsage().arrayBuffers);
    if (message.type === "header") {
      const { scene } = message;
      found.occupancy = scene.occupancy && sha256([scene.occupancy.cells]);
      found.scene = wants_scene ? scene : null;
    } else if (message.type === "level") {
      found.levels.push(sha256([Int16Array.from(message.latents)]));
      found.array_types.push(message.latents.constructor.name);
    } else Object.assign(found, message);
  }, options);
  found.seconds = (performance.now() - begin) / 1000;
  console.log(JSON.stringify(found, plain));
}
