// The playground: a text area over a drawn copy of its text, which holds the grey suggestion.
// Text only ever becomes text nodes; nothing is asked of any other host.
"use strict";

const START = `import os


def list_files(path):
    `;

const code = document.getElementById("code");
const behind = document.getElementById("behind");
const status = document.getElementById("status");
const attribution = document.getElementById("attribution");
const settings = document.getElementById("settings").elements;

let suggestion = null; // {text, tokens: [{text, probability}], at}: shown at this place.
let asking = null; // The request on its way.
let timer = 0;

function ask() {
  clearTimeout(timer);
  if (asking) asking.abort();
  const at = code.selectionStart;
  if (at !== code.selectionEnd) return;
  asking = new AbortController();
  const body = {
    prefix: code.value.slice(0, at),
    suffix: code.value.slice(at),
    mode: settings.mode.value,
    max_tokens: Number(settings.max_tokens.value),
    temperature: Number(settings.temperature.value),
    top_p: Number(settings.top_p.value),
    top_k: Number(settings.top_k.value),
    seed: Number(settings.seed.value),
  };
  send(body, asking.signal).then(
    (answer) => show(answer, at, body.prefix),
    (error) => { if (error.name !== "AbortError") fail(error.message); },
  );
}

async function send(body, signal) {
  const headers = { "content-type": "application/json" };
  if (settings.key.value) headers.authorization = `Bearer ${settings.key.value}`;
  const response = await fetch("playground/suggest", {
    method: "POST", headers, body: JSON.stringify(body), signal,
  });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.error.message);
  return answer;
}

function show(answer, at, prefix) {
  asking = null;
  if (code.value.slice(0, at) !== prefix || code.selectionStart !== at) return;
  suggestion = answer.text ? { text: answer.text, tokens: answer.tokens, at } : null;
  status.classList.remove("failed");
  status.textContent = answer.text ? told(answer.timings) : "no suggestion here";
  attribution.textContent = answer.attribution.length
    ? `stands verbatim in: ${answer.attribution.join("; ")}` : "";
  draw();
}

function told(timings) {
  if (!timings.tokens) return "known already: nothing was computed";
  const rate = timings.tokens_per_second ? `, ${timings.tokens_per_second.toFixed(0)} tokens/s` : "";
  return `first token after ${timings.first_token_ms.toFixed(0)} ms${rate}; ` +
    `${timings.prompt_tokens - timings.reused_tokens} of ${timings.prompt_tokens} prompt tokens computed`;
}

function fail(message) {
  asking = null;
  status.classList.add("failed");
  status.textContent = message;
}

function draw() {
  const at = suggestion ? suggestion.at : code.value.length;
  const parts = [document.createTextNode(code.value.slice(0, at))];
  if (suggestion) {
    for (const token of suggestion.tokens) {
      const span = document.createElement("span");
      span.className = `suggested ${settings.colors.checked ? shade(token.probability) : ""}`;
      span.textContent = token.text;
      span.title = `${(100 * token.probability).toFixed(1)}%`;
      parts.push(span);
    }
  }
  parts.push(document.createTextNode(`${code.value.slice(at)}\n`)); // A last line break takes a line, too.
  behind.replaceChildren(...parts);
  behind.scrollTop = code.scrollTop;
}

function shade(probability) {
  return `p${[0.1, 0.3, 0.6, 0.9].filter((limit) => probability >= limit).length}`;
}

// Takes so many characters off the suggestion's beginning; they stand in the text now.
function advance(count) {
  suggestion.text = suggestion.text.slice(count);
  suggestion.at += count;
  while (count > 0) {
    const first = suggestion.tokens[0];
    const taken = Math.min(count, first.text.length);
    first.text = first.text.slice(taken);
    if (!first.text) suggestion.tokens.shift();
    count -= taken;
  }
  if (!suggestion.text) suggestion = null;
}

function accept(part) {
  const shown = suggestion;
  const inserted = part.exec(shown.text)[0];
  code.focus();
  // The one way to insert that the browser can undo; it fires an input event.
  document.execCommand("insertText", false, inserted);
}

const ALL = /^[^]*/;
const WORD = /^\s*(?:\w+|[^\w\s]+)|^\s+/;
const LINE = /^[\r\n]*[^\n]*/;

code.addEventListener("keydown", (event) => {
  if (event.key === "Tab" && suggestion && !event.shiftKey) accept(ALL);
  else if (event.key === "ArrowRight" && event.altKey && suggestion) accept(WORD);
  else if (event.key === "ArrowDown" && event.altKey && suggestion) accept(LINE);
  else if (event.key === "Escape") { suggestion = null; draw(); }
  else if (event.key === "Enter" && event.altKey) ask();
  else if (event.key === "Enter") indent();
  else return;
  event.preventDefault();
});

function indent() {
  const line = code.value.slice(0, code.selectionStart).split("\n").pop();
  const deeper = line.trimEnd().endsWith(":") ? "    " : "";
  document.execCommand("insertText", false, `\n${/^[ \t]*/.exec(line)[0]}${deeper}`);
}

code.addEventListener("input", () => {
  const typed = suggestion ? code.selectionStart - suggestion.at : 0;
  if (typed > 0 && suggestion.text.startsWith(code.value.slice(suggestion.at, code.selectionStart))) {
    advance(typed);
  } else {
    suggestion = null;
  }
  attribution.textContent = suggestion ? attribution.textContent : "";
  draw();
  clearTimeout(timer);
  if (!suggestion && settings.automatic.checked) timer = setTimeout(ask, Number(settings.wait.value));
});

code.addEventListener("scroll", () => { behind.scrollTop = code.scrollTop; });
document.addEventListener("selectionchange", () => {
  if (suggestion && document.activeElement === code && code.selectionStart !== suggestion.at) {
    suggestion = null;
    draw();
  }
});
document.getElementById("settings").addEventListener("submit", (event) => event.preventDefault());
settings.colors.addEventListener("change", draw);

code.value = START;
code.setSelectionRange(START.length, START.length);
draw();
fetch("v1/models").then((response) => response.json()).then((answer) => {
  document.getElementById("model").textContent = answer.data ? answer.data[0].id : "behind a key";
});
