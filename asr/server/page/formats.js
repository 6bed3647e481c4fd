// A transcript as txt, srt, vtt and json, and edited text brought back to the times of its words.
// A transcript is { name, duration, model, segments: [{ start, end, text, words: [{ word, start, end, confidence }] }] }.

const LINE_WIDTH = 42, LINES = 2, PAUSE_SECONDS = 1;

export function formatTranscript(transcript, format) {
  return { txt: formatText, srt: formatSrt, vtt: formatVtt, json: formatJson }[format](transcript);
}

function formatText({ segments }) {
  return segments.map((segment) => segment.text + "\n").join("");
}

function formatJson({ name, duration, model, segments }) {
  const text = segments.map((segment) => segment.text).filter(Boolean).join(" ");
  return JSON.stringify({ audio: name, text, duration, model, segments }, null, 2) + "\n";
}

function formatSrt(transcript) {
  return makeCues(transcript).map((cue, i) =>
    `${i + 1}\n${formatClock(cue.start, ",")} --> ${formatClock(cue.end, ",")}\n${cue.lines.join("\n")}\n\n`).join("");
}

function formatVtt(transcript) {
  const escape = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  return "WEBVTT\n\n" + makeCues(transcript).map((cue) =>
    `${formatClock(cue.start, ".")} --> ${formatClock(cue.end, ".")}\n${escape(cue.lines.join("\n"))}\n\n`).join("");
}

export function makeCues({ segments }) {
  const cues = [];
  for (const segment of segments) {
    let lines = [], start = 0, end = 0;
    const flush = () => { if (lines.length) cues.push({ start, end, lines }); lines = []; };
    for (const word of segment.words) {
      if (lines.length && word.start - end > PAUSE_SECONDS) flush();
      const last = lines.at(-1);
      if (last !== undefined && (last + " " + word.word).length <= LINE_WIDTH) lines[lines.length - 1] += " " + word.word;
      else {
        if (lines.length === LINES) flush();
        if (!lines.length) start = word.start;
        lines.push(word.word);
      }
      end = word.end;
    }
    flush();
  }
  return cues;
}

export function formatClock(seconds, point) {
  const all = Math.floor(seconds * 1000 + 1e-6);
  const pad = (number, width = 2) => String(number).padStart(width, "0");
  return `${pad(Math.floor(all / 3600000))}:${pad(Math.floor(all / 60000) % 60)}:${pad(Math.floor(all / 1000) % 60)}` +
    `${point}${pad(all % 1000, 3)}`;
}

// A segment with its words as its text writes them, with capitals and marks.
export function writeWords(segment) {
  const written = segment.text.split(/\s+/).filter(Boolean);
  if (written.length !== segment.words.length) return segment;
  return { ...segment, words: segment.words.map((word, i) => ({ ...word, word: written[i] })) };
}

// The words of an edited segment: those that were there keep their times (longest common subsequence), new ones
// share the time between their neighbours.
export function retime(segment, text) {
  const old = segment.words, words = text.split(/\s+/).filter(Boolean);
  const lengths = Array.from({ length: old.length + 1 }, () => new Uint16Array(words.length + 1));
  for (let i = old.length - 1; i >= 0; i--)
    for (let j = words.length - 1; j >= 0; j--)
      lengths[i][j] = old[i].word === words[j] ? lengths[i + 1][j + 1] + 1 : Math.max(lengths[i + 1][j], lengths[i][j + 1]);
  const matches = new Map();
  for (let i = 0, j = 0; i < old.length && j < words.length;) {
    if (old[i].word === words[j]) matches.set(j++, old[i++]);
    else if (lengths[i + 1][j] >= lengths[i][j + 1]) i++;
    else j++;
  }
  const result = [];
  for (let j = 0; j < words.length; j++) {
    if (matches.has(j)) { result.push(matches.get(j)); continue; }
    let next = j;
    while (next < words.length && !matches.has(next)) next++;
    const begin = result.length ? result.at(-1).end : segment.start;
    const end = next < words.length ? matches.get(next).start : segment.end;
    const share = (end - begin) / (next - j);
    for (let k = j; k < next; k++)
      result.push({ word: words[k], start: begin + share * (k - j), end: begin + share * (k - j + 1), confidence: 1 });
    j = next - 1;
  }
  return { ...segment, text: words.join(" "), words: result };
}
