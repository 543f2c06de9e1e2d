// Parts of the picture come from the file inside this page, which a worker decodes. html.py puts before
// this DECODER, the text of the worker.

function fileBytes() {
  const binary = atob(document.getElementById("data").textContent.trim()), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

const waiting = new Map();
const opened = new Promise((resolve, reject) => {
  const worker = new Worker(URL.createObjectURL(new Blob([DECODER], { type: "text/javascript" })));
  const fail = (error) => {
    document.documentElement.dataset.error = error.message;
    reject(error);
  };
  worker.onerror = (event) => fail(new Error(event.message || "the decoder could not be started"));
  worker.onmessage = ({ data }) => {
    const asked = waiting.get(data.number);
    waiting.delete(data.number);
    if (data.type === "level") document.getElementById("status").textContent = `decoding level ${data.count} of ${INFO.levels}`;
    if (data.type === "opened") {
      document.documentElement.dataset.digest = data.digest ?? "truncated";
      resolve(worker);
    }
    if (data.type === "part") asked.resolve(data.pixels);
    if (data.type === "error") (asked ? asked.reject : fail)(new Error(data.message));
  };
  const bytes = fileBytes();
  worker.postMessage({ bytes: bytes.buffer }, [bytes.buffer]);
});

// One part at a time: of those that wait meanwhile, the last one is wanted.
let busy = Promise.resolve(), numAsked = 0;
async function loadPart(part) {
  const number = ++numAsked, before = busy;
  let done;
  busy = new Promise((resolve) => { done = resolve; });
  try {
    const worker = await opened;
    await before;
    if (number !== numAsked) throw new Error("another part is wanted by now");
    const pixels = await new Promise((resolve, reject) => {
      waiting.set(number, { resolve, reject });
      worker.postMessage({ number, ...part });
    });
    return await createImageBitmap(new ImageData(pixels, ...part.size));
  } finally {
    done();
  }
}

const save = document.getElementById("save");
save.hidden = false;
save.onclick = () => {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([fileBytes()], { type: "application/octet-stream" }));
  link.download = INFO.name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60000);
};
