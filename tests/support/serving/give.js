// Drops or pastes an address, or the image of these bytes in base64.
([kind, address, image]) => {
  const given = new DataTransfer();
  if (address) given.setData("text/plain", address);
  else given.items.add(new File([Uint8Array.from(atob(image), (c) => c.charCodeAt(0))], "dog.png", { type: "image/png" }));
  const options = { bubbles: true, cancelable: true, dataTransfer: given, clipboardData: given };
  document.body.dispatchEvent(kind === "paste" ? new ClipboardEvent(kind, options) : new DragEvent(kind, options));
}
