// Starts the page.
document.title = FILE_NAME;
startDecoder(sceneBytes(), (message) => {
  const text = { done: message.digest, error: message.message }[message.type] ?? `level ${message.level}`;
  document.getElementById("status").textContent = text;
});
