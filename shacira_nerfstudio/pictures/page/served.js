// Parts of the picture come from the server that this page came from.
async function loadPart({ box, size, frame, levels }) {
  const query = new URLSearchParams({ box: box.join(), size: size.join(), frame, levels });
  const answer = await fetch(`part.png?${query}`);
  if (!answer.ok) throw new Error(await answer.text());
  return createImageBitmap(await answer.blob());
}
