// A whole file: the header of the scene, then its levels, coarse to fine.

// Layers of one network from the tensors of WGTS; refuses what does not have these widths.
function networkLayers(tensors, name, widths) {
  return widths.slice(1).map((outputs, index) => {
    const inputs = widths[index];
    const [weight, bias] = ["weight", "bias"].map((part) => tensors[`${name}.${index}.${part}`]);
    const fits = weight && bias && weight.shape.join() === `${outputs},${inputs}`
      && bias.shape.join() === `${outputs}`;
    demand(fits, `WGTS: expected ${name}.${index} from ${inputs} to ${outputs} channels`);
    return { inputs, outputs, weight: weight.values, bias: bias.values };
  });
}

// The two networks that HEAD's architecture describes.
function readNetworks(tensors, architecture, numInputs) {
  const size = (name, most) => {
    demand(Number.isInteger(architecture[name]), `HEAD: expected a number ${name}`);
    return within(architecture[name], 1, most, `${name} of HEAD`);
  };
  const width = size("hidden_dim", 4096), geoFeatures = size("geo_feat_dim", 4096);
  const numHidden = size("num_color_layers", 16), shDegree = size("sh_degree", 4);
  const density = networkLayers(tensors, "density_mlp", [numInputs, width, 1 + geoFeatures]);
  const color = networkLayers(tensors, "color_mlp",
    [shDegree ** 2 + geoFeatures, ...new Array(numHidden).fill(width), 3]);
  const numLayers = density.length + color.length;
  demand(Object.keys(tensors).length === 2 * numLayers, "WGTS: expected no other tensors");
  return { density, color, geoFeatures, shDegree };
}

function readHeader(data, { payloads, levels, parts }, isField) {
  const head = readHead(payloads.HEAD, isField), grid = readGrid(payloads.GRID, head, data.length);
  const rendering = payloads.RNDR ? readRendering(payloads.RNDR) : {};
  const occupancy = payloads.OCCU ? readOccupancy(payloads.OCCU, data.length) : null;
  const tensors = readWeights(payloads.WGTS), numLevels = grid.levels.length;
  const cameras = payloads.cams ? readCameras(payloads.cams) : [];
  const metadata = payloads.meta ? readJson(payloads.meta, 2 ** 20, "meta") : {};
  const psnr = payloads.psnr ? new Bytes(payloads.psnr, "psnr") : null;
  const prefixPsnr = psnr && grid.levels.map(() => psnr.u16() / 100);
  if (psnr) psnr.end();
  demand(!isField || (!head.isVideo && payloads.RNDR && occupancy),
    "HEAD: expected a radiance field with sections RNDR and OCCU");
  const networks = isField
    ? readNetworks(tensors, head.architecture, numLevels * grid.latentDim) : { tensors, architecture: head.architecture };
  const scene = {
    formatVersion: 1, totalBytes: data.length, numLevels, numLevelsPresent: head.numPresent,
    latentDim: grid.latentDim,
    log2HashmapSize: Math.ceil(Math.log2(Math.max(...grid.levels.map((level) => level.numEntries)))),
    levels: grid.levels, ...networks, appearance: null, occupancy, ...rendering, cameras, metadata,
    prefixPsnr, parts,
  };
  return { head, scene };
}

function smallestArray(symbols) {
  for (let i = 0; i < symbols.length; i++) if (symbols[i] > 127 || symbols[i] < -128) return symbols;
  return new Int8Array(symbols);
}

function decodeLevels(payloads, { levels, latentDim, occupancy }, post) {
  const everywhere = { resolution: [1, 1, 1], cells: Uint8Array.of(1) };
  const cells = new Occupancy(occupancy ?? everywhere), hash = new Sha256();
  cells.isStored = occupancy !== null;
  const budget = { walked: 0, saturated: 0, neighbours: 0 };
  let parent = null, grandparent = null;
  payloads.forEach((payload, number) => {
    const level = new (levels[number].resolution[2] ? Level : FlatLevel)(levels[number], latentDim, cells, budget);
    const symbols = readLevel(payload, level, latentDim, parent, grandparent, `LATN ${number}`);
    hash.update(new Uint8Array(symbols.buffer));  // lower byte first, as on every browser's machine
    const latents = smallestArray(symbols);
    post({ type: "level", level: number, latents }, [latents.buffer]);
    grandparent = parent;
    parent = level;
  });
  return hash.hex();
}

// Decodes a file and posts what it finds: {type: "header", scene}, for each level {type: "level",
// level, latents}, and at the end {type: "done", digest, crcOk, truncatedAt}; or {type: "error",
// message} at any time, after which all that came before it is void. Options:
//   allowTruncated  a file without its end gives the levels that it has; its digest is null
//   isField         false takes other files, too; their scene has `tensors` and `architecture`
function decodeScene(bytes, post, { allowTruncated = false, isField = true } = {}) {
  try {
    const sections = readSections(bytes, allowTruncated);
    const { head, scene } = readHeader(bytes, sections, isField);
    const count = sections.levels.length, isTruncated = count < head.numPresent;
    demand(count <= head.numPresent && (!isTruncated || allowTruncated),
      `LATN: expected ${head.numPresent} levels, found ${count}`);
    post({ type: "header", scene }, []);
    const digest = decodeLevels(sections.levels, scene, post);
    demand(isTruncated || digest === head.digest, "HEAD: expected another digest of the symbols");
    const end = isTruncated ? { digest: null, truncatedAt: count } : { digest, truncatedAt: null };
    post({ type: "done", crcOk: true, ...end }, []);
  } catch (error) {
    const message = error instanceof Refusal ? error.message : `${error.name}: ${error.message}`;
    post({ type: "error", message }, []);
  }
}

// In a worker: one message {bytes: ArrayBuffer, allowTruncated} asks for one file.
if (typeof WorkerGlobalScope !== "undefined" && self instanceof WorkerGlobalScope) {
  self.onmessage = ({ data: { bytes, allowTruncated = true } }) => {
    const post = (message, transfer) => self.postMessage(message, transfer);
    decodeScene(new Uint8Array(bytes), post, { allowTruncated });
  };
}
