// The .shacira file inside this page, and the worker that decodes it. html.py puts before this:
// FILE_NAME, DECODER (the text of decoder/*.js, gzip as base64) and SHADERS (texts by file name).

function fromBase64(text) {
  const binary = atob(text.trim()), bytes = new Uint8Array(binary.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

// The very bytes of the file, as the page holds them.
function sceneBytes() { return fromBase64(document.getElementById("scene").textContent); }

async function decoderText() {
  if (typeof DecompressionStream === "undefined") {
    throw new Error("expected a browser of 2023 or later, found one without DecompressionStream");
  }
  const stream = new Blob([fromBase64(DECODER)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Decodes a file in a worker. `receive` gets the messages of decoder/scene.js, always ending with one
// of type "done" or "error"; the root element's data-digest or data-error say the same to tests.
async function startDecoder(bytes, receive) {
  const root = document.documentElement;
  const fail = (why) => {
    root.dataset.error = why;
    receive({ type: "error", message: why });
  };
  try {
    const url = URL.createObjectURL(new Blob([await decoderText()], { type: "text/javascript" }));
    const worker = new Worker(url), copy = bytes.slice();
    worker.onerror = (event) => fail(event.message || "the decoder could not be started");
    worker.onmessage = ({ data }) => {
      if (data.type === "error") fail(data.message);
      else {
        if (data.type === "done") root.dataset.digest = data.digest ?? "truncated";
        receive(data);
      }
      if (data.type === "done" || data.type === "error") { worker.terminate(); URL.revokeObjectURL(url); }
    };
    worker.postMessage({ bytes: copy.buffer }, [copy.buffer]);
  } catch (error) {
    fail(error.message);
  }
}
