// The .shacira file inside this page, and the worker that decodes it. html.py puts before this:
// FILE_NAME, DECODER (the text of decoder/*.js) and SHADERS (texts by file name).

// The very bytes of the file, as the page holds them; none where they are not even base64.
function sceneBytes() {
  try {
    return fromBase64(document.getElementById("scene").textContent);
  } catch {
    return new Uint8Array(0);
  }
}

// Decodes a file in a worker. `receive` gets the messages of decoder/scene.js, always ending with one
// of type "done" or "error"; the root element's data-digest or data-error say the same to tests.
function startDecoder(bytes, receive) {
  const root = document.documentElement, copy = bytes.slice();
  const fail = (why) => {
    root.dataset.error = why;
    receive({ type: "error", message: why });
  };
  try {
    const url = URL.createObjectURL(new Blob([DECODER], { type: "text/javascript" }));
    const worker = new Worker(url), end = () => {
      worker.terminate();
      URL.revokeObjectURL(url);
    };
    worker.onerror = (event) => {
      end();
      fail(event.message || "the decoder could not be started");
    };
    worker.onmessage = ({ data }) => {
      if (data.type === "done" || data.type === "error") end();
      if (data.type === "error") return fail(data.message);
      if (data.type === "done") root.dataset.digest = data.digest ?? "truncated";
      return receive(data);
    };
    worker.postMessage({ bytes: copy.buffer }, [copy.buffer]);
  } catch (error) {
    fail(error.message);
  }
}
