import { formatClock, formatTranscript, retime, writeWords } from "./formats.js";

const find = (selector, root = document) => root.querySelector(selector);
const STORE = "asr-transcripts", KEY = "asr-key";
const UPLOAD_SHARE = 0.3; // of a progress bar
const AT_ONCE = 2; // files sent at the same time
const DOUBTFUL = 0.8, VERY_DOUBTFUL = 0.5; // confidences
const cards = [];
let model = "";

// --- the server ---------------------------------------------------------------------------------

const readKey = () => sessionStorage.getItem(KEY) ?? "";

async function greet() {
  const headers = readKey() ? { Authorization: `Bearer ${readKey()}` } : {};
  const answer = await fetch("v1/models", { headers }).catch(() => null);
  if (!answer) return report("The server does not answer.");
  find("#key-form").hidden = answer.status !== 401;
  find("#inputs").hidden = answer.status === 401;
  if (answer.status === 401) {
    find("#key-fault").textContent = readKey() ? "This is not the key." : "";
    find("#key").focus();
    return;
  }
  model = (await answer.json()).data[0].id;
  find("#model").textContent = `model: ${model}`;
}

find("#key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem(KEY, find("#key").value.trim());
  greet();
});

function report(message) {
  find("#fault").textContent = message;
}

// --- transcripts --------------------------------------------------------------------------------

class Card {
  constructor(name, sound) {
    this.transcript = { name, duration: 0, model, segments: [] };
    this.root = find("#transcript").content.cloneNode(true).firstElementChild;
    this.audio = find("audio", this.root);
    this.player = null; // stops a word's stretch
    find("h2", this.root).textContent = name;
    this.root.setAttribute("aria-label", `Transcript of ${name}`);
    if (sound) this.setSound(sound);
    find(".edit", this.root).addEventListener("click", () => this.toggleEditing());
    find(".remove", this.root).addEventListener("click", () => this.remove());
    for (const button of this.root.querySelectorAll("[data-format]")) {
      button.setAttribute("aria-label", `Download as ${button.dataset.format}`);
      button.addEventListener("click", () => this.download(button.dataset.format));
    }
    this.audio.addEventListener("timeupdate", () => this.follow());
    cards.unshift(this);
    find("#transcripts").prepend(this.root);
  }

  setSound(blob) {
    this.audio.src = URL.createObjectURL(blob);
    this.audio.hidden = false;
  }

  setState(text, progress = null) {
    find(".state", this.root).textContent = text;
    const bar = find("progress", this.root);
    bar.hidden = progress === null;
    bar.setAttribute("aria-label", `${this.transcript.name}: ${text}`);
    if (progress !== null) bar.value = progress;
  }

  add(segment) {
    this.transcript.segments.push(segment);
    find(".segments", this.root).append(this.draw(segment));
  }

  draw(segment) {
    const item = document.createElement("li");
    const time = document.createElement("time");
    time.textContent = formatClock(segment.start, ".").replace(/^00:/, "").replace(/\.\d+$/, "");
    const text = document.createElement("p");
    segment.words.forEach((word, place) => {
      const button = document.createElement("button");
      button.type = "button";
      button.className = "word";
      button.textContent = word.word;
      const sure = Math.round(100 * word.confidence);
      button.title = `${word.start.toFixed(2)} s, ${sure} % sure`;
      if (word.confidence < DOUBTFUL) {
        button.classList.add("doubtful");
        button.setAttribute("aria-label", `${word.word}, ${sure} percent sure`);
      }
      if (word.confidence < VERY_DOUBTFUL) button.classList.add("very");
      button.addEventListener("click", () => this.play(word));
      button.dataset.start = word.start;
      button.dataset.end = word.end;
      text.append(place ? " " : "", button);
    });
    item.append(time, text);
    return item;
  }

  play(word) {
    if (this.audio.hidden) return;
    clearInterval(this.player);
    this.audio.currentTime = Math.max(0, word.start - 0.05);
    this.audio.play().catch(() => {}); // paused before it began
    this.player = setInterval(() => {
      if (this.audio.currentTime < word.end + 0.05 && !this.audio.paused) return;
      this.audio.pause();
      clearInterval(this.player);
    }, 20);
  }

  follow() {
    const now = this.audio.currentTime;
    for (const button of this.root.querySelectorAll(".word"))
      button.classList.toggle("now", !this.audio.paused && button.dataset.start <= now && now < button.dataset.end);
  }

  finish(duration) {
    this.transcript.duration = duration;
    const words = this.transcript.segments.reduce((sum, segment) => sum + segment.words.length, 0);
    this.setState(words ? `${formatClock(duration, ".").replace(/^00:/, "").replace(/\.\d+$/, "")}, ${words} word${words === 1 ? "" : "s"}`
      : "No words were found.");
    find(".tools", this.root).hidden = false;
    keep();
  }

  fail(message) {
    this.setState(message);
    find(".state", this.root).classList.add("fault");
    this.audio.hidden = true;
    find(".tools", this.root).hidden = false;
    for (const part of [".edit", ".downloads"]) find(part, this.root).hidden = true;
  }

  toggleEditing() {
    const button = find(".edit", this.root), list = find(".segments", this.root);
    const isEditing = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", String(!isEditing));
    button.textContent = isEditing ? "Edit" : "Done";
    if (isEditing) {
      this.readEdits();
      list.replaceChildren(...this.transcript.segments.map((segment) => this.draw(segment)));
      return;
    }
    list.querySelectorAll("li p").forEach((text, place) => {
      const segment = this.transcript.segments[place];
      const area = document.createElement("textarea");
      area.rows = Math.ceil(segment.text.length / 60);
      area.value = segment.text;
      area.setAttribute("aria-label", `Text from ${formatClock(segment.start, ".")}`);
      area.addEventListener("input", () => this.readEdits());
      text.replaceWith(area);
    });
    find("textarea", list)?.focus();
  }

  readEdits() {
    find(".segments", this.root).querySelectorAll("textarea").forEach((area, place) => {
      const segment = this.transcript.segments[place];
      if (segment.text !== area.value.split(/\s+/).filter(Boolean).join(" "))
        this.transcript.segments[place] = retime(segment, area.value);
    });
    keep();
  }

  download(format) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([formatTranscript(this.transcript, format)], { type: "text/plain" }));
    link.download = this.transcript.name.replace(/\.[^.]*$/, "").replace(/[\\/:*?"<>|]/g, "_") + `.${format}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  }

  remove() {
    URL.revokeObjectURL(this.audio.src);
    this.request?.abort();
    cards.splice(cards.indexOf(this), 1);
    this.root.remove();
    keep();
  }
}

// What was transcribed and edited outlives a reload; the sound does not, and both go with the tab.
function keep() {
  const done = cards.filter((card) => card.transcript.duration).map((card) => card.transcript);
  try {
    sessionStorage.setItem(STORE, JSON.stringify(done));
  } catch { /* full: nothing is kept beyond this page */ }
}

function restore() {
  for (const transcript of JSON.parse(sessionStorage.getItem(STORE) ?? "[]").reverse()) {
    const card = new Card(transcript.name);
    transcript.segments.forEach((segment) => card.add(segment));
    card.finish(transcript.duration);
  }
}

// --- files --------------------------------------------------------------------------------------

const waiting = [];
let sending = 0;

function take(files) {
  report("");
  for (const file of files) {
    const card = new Card(file.name, file);
    card.setState("Waiting", 0);
    waiting.push([file, card]);
  }
  while (sending < AT_ONCE && waiting.length) send(...waiting.shift());
}

function send(file, card) {
  if (!card.root.isConnected) return next(); // removed while it waited
  sending++;
  const form = new FormData();
  form.append("file", file);
  form.append("stream", "true");
  form.append("include[]", "segments");
  form.append("include[]", "progress");
  form.append("prompt", find("#hotwords").value);
  const request = (card.request = new XMLHttpRequest());
  let read = 0, isOver = false;
  request.open("POST", "v1/audio/transcriptions");
  if (readKey()) request.setRequestHeader("Authorization", `Bearer ${readKey()}`);
  request.upload.onprogress = (event) => card.setState("Sending", UPLOAD_SHARE * event.loaded / event.total);
  request.upload.onload = () => card.setState("Transcribing", UPLOAD_SHARE);
  request.onprogress = () => {
    if (request.status !== 200) return;
    const end = request.responseText.lastIndexOf("\n\n");
    for (const line of request.responseText.slice(read, Math.max(read, end)).split("\n"))
      if (line.startsWith("data: {")) isOver = hear(card, JSON.parse(line.slice(6))) || isOver;
    read = Math.max(read, end);
  };
  request.onload = () => {
    request.onprogress();
    if (request.status !== 200) card.fail(explain(request));
    else if (!isOver) card.fail("The server ended early.");
  };
  request.onerror = () => card.fail("The connection broke.");
  request.onloadend = () => { sending--; next(); };
  request.send(form);
}

function next() {
  if (waiting.length) send(...waiting.shift());
}

function hear(card, event) {
  if (event.error) card.fail(event.error.message);
  else if (event.type === "transcript.progress" && event.duration)
    card.setState("Transcribing", UPLOAD_SHARE + (1 - UPLOAD_SHARE) * event.seconds / event.duration);
  else if (event.type === "transcript.text.segment")
    card.add(writeWords({ start: event.start, end: event.end, text: event.text, words: event.words }));
  else if (event.type === "transcript.text.done") card.finish(event.duration);
  return Boolean(event.error) || event.type === "transcript.text.done";
}

function explain(request) {
  if (request.status === 503) return `The server is busy; try again in ${request.getResponseHeader("Retry-After")} s.`;
  try {
    return JSON.parse(request.responseText).error.message;
  } catch {
    return `The server refused it (status ${request.status}).`;
  }
}

find("#choose").addEventListener("click", () => find("#files").click());
find("#files").addEventListener("change", (event) => { take(event.target.files); event.target.value = ""; });
for (const kind of ["dragover", "dragleave", "drop"])
  addEventListener(kind, (event) => {
    event.preventDefault();
    find("#drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop" && !find("#inputs").hidden) take(event.dataTransfer.files);
  });

// --- the microphone -----------------------------------------------------------------------------

let session = null;

async function speak() {
  report("");
  if (!navigator.mediaDevices) return report("The browser gives the microphone only to pages over HTTPS or from this machine.");
  let media;
  try {
    const audio = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
    media = await navigator.mediaDevices.getUserMedia({ audio });
  } catch {
    return report("The browser does not give this page the microphone.");
  }
  const context = new AudioContext();
  await context.audioWorklet.addModule("page/recorder.js");
  const recorder = new AudioWorkletNode(context, "recorder", { numberOfOutputs: 0 });
  const address = new URL("v1/stream", location.href);
  address.protocol = address.protocol.replace("http", "ws");
  const socket = new WebSocket(address, ["asr-stream", ...(readKey() ? [`asr-key.${readKey()}`] : [])]);
  session = { media, context, recorder, socket, blocks: [], segments: [], fault: "" };
  recorder.port.onmessage = ({ data }) => capture(data);
  socket.onopen = () => {
    socket.send(JSON.stringify({ type: "start", rate: context.sampleRate, hotwords: find("#hotwords").value }));
    context.createMediaStreamSource(media).connect(recorder);
  };
  socket.onmessage = ({ data }) => caption(JSON.parse(data));
  socket.onclose = () => endSpeaking();
  find("#live-finals").textContent = find("#live-partial").textContent = "";
  showSpeaking(true);
}

function capture(block) {
  if (!session) return;
  const { socket, blocks } = session;
  if (block === null) {
    if (socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "stop" }));
    return;
  }
  blocks.push(block);
  if (socket.readyState === WebSocket.OPEN && block.length) socket.send(block.buffer);
  const loudest = block.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
  find("#level").value = Math.sqrt(loudest / 32768);
}

function caption(event) {
  if (event.type === "partial") {
    const words = event.text.split(" ");
    const stable = document.createElement("b");
    stable.textContent = words.slice(0, event.stable).join(" ");
    find("#live-partial").replaceChildren(stable, ` ${words.slice(event.stable).join(" ")}`);
  } else if (event.type === "final") {
    session.segments.push(writeWords({ start: event.start, end: event.end, text: event.text, words: event.words }));
    find("#live-finals").append(`${event.text} `);
    find("#live-partial").textContent = "";
  } else if (event.type === "endpoint") find("#live-partial").textContent = "";
  else if (event.type === "error") session.fault = event.error;
}

function stopSpeaking() {
  find("#live-state").textContent = "Finishing";
  session.recorder.port.postMessage("stop");
}

function endSpeaking() {
  const { media, context, blocks, segments, fault } = session;
  session = null;
  media.getTracks().forEach((track) => track.stop());
  const rate = context.sampleRate;
  context.close();
  showSpeaking(false);
  if (fault) report(fault);
  const seconds = blocks.reduce((sum, block) => sum + block.length, 0) / rate;
  if (!segments.length) return fault || report("No words were heard.");
  const card = new Card(`Microphone, ${new Date().toLocaleTimeString()}`, makeWav(blocks, rate));
  segments.forEach((segment) => card.add(segment));
  card.finish(seconds);
}

function makeWav(blocks, rate) {
  const size = 2 * blocks.reduce((sum, block) => sum + block.length, 0);
  const view = new DataView(new ArrayBuffer(44));
  const write = (place, text) => [...text].forEach((letter, i) => view.setUint8(place + i, letter.charCodeAt(0)));
  write(0, "RIFF"); write(8, "WAVEfmt "); write(36, "data");
  view.setUint32(4, 36 + size, true); view.setUint32(16, 16, true); view.setUint16(20, 1, true);
  view.setUint16(22, 1, true); view.setUint32(24, rate, true); view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true); view.setUint16(34, 16, true); view.setUint32(40, size, true);
  return new Blob([view, ...blocks], { type: "audio/wav" });
}

function showSpeaking(isOn) {
  find("#live").hidden = !isOn;
  find("#live-state").textContent = "Listening";
  find("#speak").setAttribute("aria-pressed", String(isOn));
  find("#speak-label").textContent = isOn ? "Stop" : "Speak";
}

find("#speak").addEventListener("click", () => (session ? stopSpeaking() : speak()));
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, textarea")) return;
  if (find("#inputs").hidden) return;
  if (event.key === "r") find("#speak").click();
  if (event.key === "o") find("#choose").click();
});

restore();
greet();
