// The page of `kennel ui`. What comes from files, the model or the network is shown as text only.
const LARGEST_SIDE = 2048; // pixels of the smaller copy of an image that is too large
const LARGEST_FILE = 64e6; // bytes that the page's server accepts
const AT_ONCE = 3; // requests
const LONGEST_WAIT = 600; // seconds for which the page tries again by itself
const USUAL_WAIT = 2; // seconds, where the refusal says nothing of when
const STEPS = [["endpoint", "endpoint and model"], ["fetch", "fetching the image"], ["own", "the function itself"], ["way", "network and AWS"]];
const AWS_MESSAGE = /^\{"[Mm]essage": ?"([^"\\]+)"\}/; // how AWS itself refuses
const TITLES = {
  403: "The credentials are not accepted",
  413: "The image is too large",
  415: "This cannot be read as an image",
  422: "No image can be had from this address",
  424: "The model failed on this image",
  504: "The answer took too long",
};
const HINTS = {
  403: "They may have expired, or may not call the function. Renew them and try again; if they are variables of the environment, set those and start kennel ui again.",
  415: "JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are read. Photographs in HEIC: export them as JPEG.",
};
const byId = (id) => document.getElementById(id);
const results = byId("results");
const queue = [];
let running = 0;

function make(tag, className, text, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined) element.textContent = text;
  element.append(...children);
  return element;
}

function button(text, action) {
  const made = make("button", "button", text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

const percent = (part) => `${(100 * part).toFixed(part < 0.1 ? 1 : 0)} %`;
const milliseconds = (count) => `${Math.round(count).toLocaleString("en")} ms`;

// One image: `content` is a file, or the address of one.
class Entry {
  constructor(content, before) {
    this.content = content;
    this.name = typeof content === "string" ? content : content.name || "pasted image";
    const card = byId("card").content.cloneNode(true).firstElementChild;
    card.querySelector("h2").textContent = this.name;
    this.body = card.querySelector(".body");
    if (typeof content !== "string") {
      const preview = card.querySelector("img");
      preview.alt = this.name;
      preview.src = URL.createObjectURL(content);
      preview.addEventListener("load", () => { preview.hidden = false; URL.revokeObjectURL(preview.src); });
    }
    results.insertBefore(card, before);
    this.since = Date.now();
    this.send();
  }

  send() {
    clearInterval(this.clock);
    const buttonHadFocus = this.body.contains(document.activeElement);
    this.body.replaceChildren(make("p", "busy", "Asking the classifier …"));
    if (buttonHadFocus) { this.body.tabIndex = -1; this.body.focus(); }
    queue.push(this);
    work();
  }

  async ask() {
    if (typeof this.content !== "string" && this.content.type && !this.content.type.startsWith("image/")) {
      return { title: "This file is not an image", error: `It is of the type ${this.content.type}, and was not sent.`, useless: true };
    }
    if (this.content.size > LARGEST_FILE) {
      return { error: `The file has ${this.content.size.toLocaleString("en")} bytes, and was not sent.`, status: 413 };
    }
    const type = typeof this.content === "string" ? "text/uri-list" : "application/octet-stream";
    let response;
    try {
      response = await fetch("classify", { method: "POST", headers: { "Content-Type": type }, body: this.content });
      return await response.json();
    } catch {
      return response
        ? { title: "This page was opened at another address", error: "The server refuses it.", hint: "Open the address that kennel ui prints.", useless: true }
        : { title: "The page's server does not answer", error: "kennel ui has ended, or the file cannot be read any more.", hint: "In a terminal: kennel ui" };
    }
  }

  show(outcome) {
    if (outcome.error) this.showProblem(outcome);
    else this.showBreeds(outcome);
  }

  showBreeds({ predictions, known, ood_score, model, milliseconds: spent, samples }) {
    const [best] = predictions;
    const parts = [];
    if (known === false) {
      const why = ood_score === undefined ? [] : [make("span", "", `The image is unlike those that the model learned from (score ${ood_score.toFixed(2)}; 1 is the limit).`)];
      parts.push(make("p", "note", "Probably none of these", ...why));
    }
    const bars = make("ol", known === false ? "bars" : "bars sure");
    for (const { label, probability } of predictions) {
      const filled = make("i");
      filled.style.width = `${100 * probability}%`;
      bars.append(make("li", "", undefined, make("span", "", label), make("b", "", percent(probability)), make("div", "bar", undefined, filled)));
    }
    parts.push(bars);
    if (samples.length) {
      const strip = make("div", "samples");
      for (const number of samples) {
        const image = make("img");
        image.alt = `${best.label}, sample ${Number(number) + 1}`;
        image.addEventListener("error", () => image.remove());
        image.src = `sample?${new URLSearchParams({ label: best.label, number })}`;
        strip.append(image);
      }
      parts.push(make("figure", "", undefined, make("figcaption", "", `${best.label} in the data set on this machine`), strip));
    }
    parts.push(...this.split(spent), make("p", "model", `Model ${model.name}, version ${model.version.slice(0, 19)}`));
    this.body.replaceChildren(...parts);
    announce(`${this.name}: ${known === false ? "probably none of these; most similar: " : ""}${best.label}, ${percent(best.probability)}`);
  }

  // Where the time went. A function of an earlier version says nothing of its own.
  split(spent) {
    const whole = make("p", "model", `Answered in ${milliseconds(spent.round_trip)}`);
    if (spent.total === undefined) return [whole];
    const shares = { ...spent, own: spent.total - (spent.endpoint ?? 0) - (spent.fetch ?? 0), way: spent.round_trip - spent.total };
    const strip = make("div", "split"), legend = make("ul", "time");
    strip.setAttribute("aria-hidden", "true");
    for (const [index, [key, words]] of STEPS.entries()) {
      if (shares[key] === undefined) continue;
      const share = Math.max(shares[key], 0);
      const part = make("i", `step-${index + 1}`);
      part.style.flexGrow = share;
      strip.append(part);
      legend.append(make("li", `step-${index + 1}`, `${words} ${milliseconds(share)}`));
    }
    return [whole, strip, legend];
  }

  showProblem(problem) {
    const { error, status, busy, retry_after } = problem;
    const waits = busy && Date.now() - this.since < 1000 * LONGEST_WAIT;
    const title = problem.title ?? busy ?? TITLES[status] ?? (status ? "The classifier failed" : "The classifier cannot be asked");
    const hint = problem.hint || HINTS[status];
    const actions = make("div", "actions");
    if (!problem.useless && status !== 413 && status !== 415) { // the same file gets the same answer
      actions.append(button(waits ? "Try now" : "Try again", () => { if (!waits) this.since = Date.now(); this.send(); }));
    }
    const box = make("div", waits ? "waiting" : "problem", undefined, make("strong", "", title), make("p", "", error.replace(AWS_MESSAGE, "$1")));
    if (hint) box.append(make("p", "", hint));
    const wait = retry_after ?? USUAL_WAIT;
    if (waits) {
      const countdown = make("p", "countdown");
      const due = Date.now() + 1000 * wait; // by the clock: a tab in the background counts late
      const tick = () => {
        const left = Math.ceil((due - Date.now()) / 1000);
        if (left <= 0) this.send();
        else countdown.textContent = `Next try in ${left} s`;
      };
      tick();
      this.clock = setInterval(tick, 250);
      actions.append(button("Stop waiting", () => {
        clearInterval(this.clock);
        this.showProblem({ ...problem, title, busy: null });
        this.body.querySelector("button").focus();
      }));
      box.append(countdown);
    }
    if (status === 413 && typeof this.content !== "string") {
      actions.append(button(`Send a smaller copy (${LARGEST_SIDE} pixels)`, () => this.shrink()));
    }
    box.append(actions);
    this.body.replaceChildren(box);
    announce(`${this.name}: ${title}.${waits ? ` Next try in ${Math.ceil(wait)} seconds.` : ""}`);
  }

  async shrink() {
    try {
      const image = await createImageBitmap(this.content);
      const scale = Math.min(1, LARGEST_SIDE / Math.max(image.width, image.height));
      const canvas = make("canvas");
      canvas.width = Math.round(image.width * scale);
      canvas.height = Math.round(image.height * scale);
      canvas.getContext("2d").drawImage(image, 0, 0, canvas.width, canvas.height);
      this.content = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
      this.send();
    } catch {
      this.showProblem({ title: "No smaller copy can be made", error: "The browser cannot read this file as an image.", useless: true });
    }
  }
}

function work() {
  while (running < AT_ONCE && queue.length) {
    const entry = queue.shift();
    running += 1;
    entry.ask().then((outcome) => entry.show(outcome)).finally(() => { running -= 1; work(); });
  }
}

function announce(text) { byId("news").textContent = text; }

function classify(contents) {
  const first = results.firstElementChild; // the newest are on top, in the order in which they were given
  for (const content of contents) new Entry(content, first);
}

const isAddress = (text) => /^https:\/\/\S+$/i.test(text);

for (const id of ["files", "camera"]) {
  byId(id).addEventListener("change", ({ target }) => { classify([...target.files]); target.value = ""; });
}
byId("by-address").addEventListener("submit", (event) => {
  event.preventDefault();
  classify([byId("address").value.trim()]);
  event.target.reset();
});
function take(event, data) {
  const address = data.getData("text/uri-list") || data.getData("text").trim();
  if (data.files.length) classify([...data.files]);
  else if (event.type === "paste" && event.target.id === "address") return;
  else if (isAddress(address)) classify([address]);
  else announce("Neither an image nor an address that begins with https:// was given.");
  event.preventDefault();
}
addEventListener("paste", (event) => take(event, event.clipboardData));
addEventListener("drop", (event) => { document.body.classList.remove("dragging"); take(event, event.dataTransfer); });
addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
