// Runs the page's decoder of pixels outside a page: node run_pixels.mjs DECODER < JOBS
//
// DECODER is the text of the page's worker. JOBS and the output have one line of JSON per part:
// {"path", "box", "size", "frame", "levels"}, and the digest of the symbols and the pixels.
import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";
import vm from "node:vm";

const names = "({ openPicture, asRgba })";
const { openPicture, asRgba } = vm.runInThisContext(`${readFileSync(process.argv[2], "utf8")}\n${names}`);

for await (const line of createInterface({ input: process.stdin })) {
  const { path, box, size, frame, levels } = JSON.parse(line);
  try {
    const { decoder, digest } = openPicture(new Uint8Array(readFileSync(path)));
    const pixels = decoder.pixels(box, size, frame, levels);
    console.log(JSON.stringify({ digest, pixels: [...pixels], rgba: [...asRgba(pixels, decoder)] }));
  } catch (error) {
    console.log(JSON.stringify({ message: error.message }));
  }
}
