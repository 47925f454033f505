// The playground: a text area over a drawn copy of its text, which holds the grey suggestion.
// Text only ever becomes text nodes; nothing is asked of any other host.
"use strict";

// Where the cursor stands, there is a bar.
const EXAMPLES = {
  "a function": `import os


def list_files(path):
    """The names of the files in a folder."""
    |`,
  "between two lines": `def mean(values):
    total = 0
    for value in values:
        |
    return total / len(values)
`,
  "a method": `class Stack:
    def __init__(self):
        self.items = []

    def push(self, item):
        self.items.append(item)

    def pop(self):
        |`,
  "arguments of a call": `import argparse

parser = argparse.ArgumentParser()
parser.add_argument(|)
args = parser.parse_args()
`,
};

const byId = (id) => document.getElementById(id);
const [code, behind, numbers, status] = ["code", "behind", "numbers", "status"].map(byId);
const [tokens, attribution, example] = ["tokens", "attribution", "example"].map(byId);
const settings = byId("settings").elements;
const buttons = [...document.querySelectorAll("[data-does]")];

let suggestion = null; // {text, tokens: [{text, probability}], at}: shown at this place.
let asking = null; // The request on its way.
let timer = 0;

// Asking

function ask() {
  clearTimeout(timer);
  if (asking) asking.abort();
  const at = code.selectionStart;
  if (at !== code.selectionEnd) return;
  asking = new AbortController();
  const body = {
    prefix: code.value.slice(0, at),
    suffix: settings.behind.checked ? code.value.slice(at) : "",
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
  suggestion = answer.text ? { ...answer, at } : null;
  status.classList.remove("failed");
  status.replaceChildren(...(answer.text ? figures(answer) : ["no suggestion here"]));
  draw();
  reveal();
}

function figures({ timings, probability }) {
  const told = [[`${(100 * probability).toFixed(0)}%`, "to be right"]];
  if (timings.tokens) {
    told.unshift([`${timings.first_token_ms.toFixed(0)} ms`, "to the first token"]);
    if (timings.tokens_per_second) told.splice(1, 0, [timings.tokens_per_second.toFixed(0), "tokens/s"]);
    const computed = timings.prompt_tokens - timings.reused_tokens;
    told.push([`${computed} of ${timings.prompt_tokens}`, "prompt tokens computed"]);
  } else {
    told.push(["known already", "nothing was computed"]);
  }
  return told.flatMap(([figure, name]) => [element("span", "", element("b", "", figure), ` ${name}`), " "]);
}

function fail(message) {
  asking = null;
  status.classList.add("failed");
  status.textContent = message;
}

// Drawing

function element(kind, className, ...children) {
  const made = document.createElement(kind);
  if (className) made.className = className;
  made.append(...children);
  return made;
}

function draw() {
  const at = suggestion ? suggestion.at : code.value.length;
  const before = code.value.slice(0, at), after = code.value.slice(at);
  const grey = suggestion ? suggestion.tokens : [];
  behind.replaceChildren(
    ...colored(before), ...grey.map((token) => element("span", `suggested ${shade(token)}`, token.text)),
    ...colored(after), "\n", // A last line break takes a line, too.
  );
  const lines = (code.value + (suggestion ? suggestion.text : "")).split("\n").length;
  numbers.textContent = Array.from({ length: lines }, (_, line) => line + 1).join("\n");
  tokens.replaceChildren(...grey.map(chip));
  attribution.classList.toggle("found", Boolean(suggestion && suggestion.attribution && suggestion.attribution.length));
  attribution.textContent = suggestion ? whose(suggestion.attribution) : "";
  for (const button of buttons) button.disabled = button.dataset.does !== "ask" && !suggestion;
  follow();
}

const KEYWORDS = "False|None|True|and|as|assert|async|await|break|class|continue|def|del|elif|else|except|finally|" +
  "for|from|global|if|import|in|is|lambda|nonlocal|not|or|pass|raise|return|try|while|with|yield";
const KINDS = ["comment", "string", "keyword", "name", "number"];
const PYTHON = new RegExp([
  "(#.*)",
  `((?:\\b[rbfuRBFU]{1,2})?(?:"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:\\\\.|[^"\\\\\\n])*"?|'(?:\\\\.|[^'\\\\\\n])*'?))`,
  `\\b(${KEYWORDS})\\b`,
  "((?<=\\b(?:def|class)\\s+)\\w+|@[\\w.]+)",
  "\\b(\\d[\\w.]*)",
].join("|"), "g");

// Python in the colors of its words, near enough for a page.
function colored(text) {
  const parts = [];
  let end = 0;
  for (const found of text.matchAll(PYTHON)) {
    parts.push(text.slice(end, found.index));
    parts.push(element("span", KINDS[found.slice(1).findIndex((group) => group !== undefined)], found[0]));
    end = found.index + found[0].length;
  }
  return [...parts, text.slice(end)];
}

function chip(token) {
  const shown = token.text.replaceAll("\n", "↵").replaceAll("\t", "→").replaceAll(" ", "·");
  return element("li", shade(token), element("code", "", shown), `${(100 * token.probability).toFixed(0)}%`);
}

function shade({ probability }) {
  if (!settings.colors.checked) return "p4";
  return `p${[0.1, 0.3, 0.6, 0.9].filter((limit) => probability >= limit).length}`;
}

function whose(sources) {
  if (!sources) return "No index of the training corpus lies beside this model.";
  if (!sources.length) return "Not known to stand verbatim in the training corpus.";
  return `Stands verbatim in the training corpus: ${sources.join("; ")}`;
}

function follow() {
  behind.scrollTop = numbers.scrollTop = code.scrollTop;
  behind.scrollLeft = code.scrollLeft;
}

// Scrolls so far that the suggestion's last line can be seen.
function reveal() {
  const last = behind.querySelector(".suggested:last-of-type");
  if (!last) return;
  const below = last.offsetTop + last.offsetHeight - code.scrollTop - code.clientHeight;
  if (below > 0) code.scrollTop += below;
}

// Accepting

const PARTS = {
  all: /^[^]*/,
  word: /^\s*(?:\w+|[^\w\s]+)|^\s+/,
  line: /^[\r\n]*[^\n]*/,
};

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

function act(what) {
  code.focus();
  if (what === "ask") ask();
  else if (what === "dismiss") { suggestion = null; draw(); }
  else insert(PARTS[what].exec(suggestion.text)[0]);
}

// The one way to insert that the browser can undo; it fires an input event.
function insert(text) {
  document.execCommand("insertText", false, text);
}

function indent() {
  const line = code.value.slice(0, code.selectionStart).split("\n").pop();
  const deeper = line.trimEnd().endsWith(":") ? "    " : "";
  insert(`\n${/^[ \t]*/.exec(line)[0]}${deeper}`);
}

function wanted(event) {
  if (event.key === "Enter") return event.altKey ? "ask" : "indent";
  if (!suggestion) return null;
  if (event.key === "Tab" && !event.shiftKey) return "all";
  if (event.altKey) return { ArrowRight: "word", ArrowDown: "line" }[event.key];
  return event.key === "Escape" ? "dismiss" : null;
}

code.addEventListener("keydown", (event) => {
  const what = event.isComposing ? null : wanted(event);
  if (!what) return;
  event.preventDefault();
  if (what === "indent") indent();
  else act(what);
});

for (const button of buttons) {
  button.addEventListener("mousedown", (event) => event.preventDefault()); // The cursor stays where it is.
  button.addEventListener("click", () => act(button.dataset.does));
}

code.addEventListener("input", () => {
  const typed = suggestion ? code.selectionStart - suggestion.at : 0;
  if (typed > 0 && suggestion.text.startsWith(code.value.slice(suggestion.at, code.selectionStart))) {
    advance(typed);
  } else {
    suggestion = null;
  }
  draw();
  clearTimeout(timer);
  if (!suggestion && settings.automatic.checked) timer = setTimeout(ask, Number(settings.wait.value));
});

code.addEventListener("scroll", follow);
document.addEventListener("selectionchange", () => {
  if (suggestion && document.activeElement === code && code.selectionStart !== suggestion.at) {
    suggestion = null;
    draw();
  }
});
byId("settings").addEventListener("submit", (event) => event.preventDefault());
settings.colors.addEventListener("change", draw);

// The beginning

function open(name) {
  const [before, after] = EXAMPLES[name].split("|");
  code.value = before + after;
  code.setSelectionRange(before.length, before.length);
  suggestion = null;
  draw();
}

example.append(...Object.keys(EXAMPLES).map((name) => element("option", "", name)));
example.addEventListener("change", () => { open(example.value); act("ask"); });
open(example.value);
fetch("v1/models").then((response) => response.json()).then((answer) => {
  byId("model").textContent = answer.data ? answer.data[0].id : "behind a key";
});
