"""A model card's plain text, its marks lost, to Markdown: what is what is read from its shape.

Blocks are divided by blank lines. In this order, a block is

- code, where it parses as Python and does something that prose does not (a call,
  an import, an assignment, a comment above code), or is JSON, BibTeX or a shell
  command; the blocks after it that go on with it join it;
- a list, where each line has a bullet or a number, or is ``Key: value``;
- a heading, where it is one short line without an end mark;
- else a paragraph.

Levels of headings: the first is the title; one that another follows at once, and
those that every card has (License, Citation …), are sections; one inside a
section that began so is a subsection. Marks that are there already are kept. It
gives up tables and nested lists, which lose their shape with their marks.
"""

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from huggingface_hub import constants

_SECTIONS = {
    *("use", "usage", "uses", "how to use", "training", "evaluation", "results", "limitations"),
    *("license", "licence", "citation", "attribution", "acknowledgements", "acknowledgments"),
    *("model summary", "table of contents", "references", "contact", "model description"),
    *("bias, risks, and limitations", "training data", "attribution & other requirements"),
}
_MAX_HEADING = 60
_END_MARKS = tuple(".,:;!?…")

_BULLET = re.compile(r"[ \t]*(?:[-*•\u2013·▪◦]|(\d+)[.)])[ \t]+(?=\S)")
_PAIR = re.compile(r"[A-Z][^:.!?]{0,39}: \S")
_SHELL = re.compile(
    r"(?:[$%] )?(?:pip3? install|git clone|conda |curl |wget |cd |export |npm |apt(?:-get)? |"
    r"python3? -?[\w./-]+|docker |huggingface-cli |hf )"
)
# Of code that does not parse: an elision, another version's, another language's.
_CODE_LINE = re.compile(
    r"\s*(?:(?:def|class|import|from|return|for|if|elif|else|with|try|print|const|let|var)\b.*[:;({\w)]$"
    r"|[\w.\[\]]+ *[-+*/|]?= *\S|[\w.]+\(.*\);?$|@\w|[})\]]|//|# )"
)
_URL = re.compile(r"(?<![<(\[\"'`])https?://[^\s<>)\]\"'`]+[^\s<>)\]\"'`.,;:!?]")
_REPOSITORY = re.compile(r"[\"']([\w-]+/[\w.-]+)[\"']")
_TOKEN = re.compile(r"(?<!`)<\|?[A-Za-z_][\w|-]*\|?>(?!`)")
_HERE = re.compile(r"\bhere\b(?=\W|$)")


@dataclass(frozen=True)
class Block:
    """``kind``: title, section, subsection, heading, code, list or paragraph.

    ``above``: blank lines before it, which code keeps.
    """

    kind: str
    text: str
    language: str = ""
    above: int = 0


def to_markdown(text: str) -> str:
    """The card as GitHub-flavored Markdown."""
    blocks = list(_leveled(_joined(list(_blocks(text)))))
    repository = _repository(blocks)
    parts, section = [], ""
    for block in blocks:
        if block.kind in ("section", "subsection"):
            section = block.text.lower()
        parts.append(_written(block, repository if section.startswith("licen") else ""))
    return "\n\n".join(parts) + "\n"


def _blocks(text: str) -> Iterator[Block]:
    lines: list[str] = []
    fence = language = ""
    blank = 0
    for line in [*text.expandtabs(4).splitlines(), ""]:
        mark = re.match(r"(```|~~~)(\w*)", line)
        if fence and line.startswith(fence):
            yield Block("code", "\n".join(lines), language)
            fence, lines = "", []
        elif fence:
            lines.append(line)
        elif mark:
            yield from _block(lines, blank)
            (fence, language), lines = mark.groups(), []
        elif line.strip():
            lines.append(line.rstrip())
        else:
            yield from _block(lines, blank)
            blank, lines = 1 if lines else blank + 1, []
    yield from _block(lines, blank)


def _block(lines: Sequence[str], above: int) -> Iterator[Block]:
    """What a run of lines is; a heading directly above a list or code is one of its own."""
    if not lines:
        return
    text = "\n".join(lines)
    if marked := re.fullmatch(r"(#{1,6}) +(.+?)(?: +#+)?", text):
        kinds = {1: "title", 2: "section"}
        yield Block(kinds.get(len(marked[1]), "subsection"), marked[2])
    elif len(lines) == 2 and re.fullmatch(r"=+|-{3,}", lines[1]):
        yield Block("title" if lines[1][0] == "=" else "section", lines[0])
    elif language := _language(text):
        yield Block("code", text, language, above)
    elif all(map(_BULLET.match, lines)) or _is_pairs(lines):
        yield Block("list", text)
    elif len(lines) > 1 and _is_heading(lines[0]) and _is_lists_or_code(lines[1:]):
        yield Block("heading", lines[0])
        yield from _block(lines[1:], 0)
    elif len(lines) == 1 and _is_heading(lines[0]):
        yield Block("heading", lines[0].strip())
    else:
        yield Block("paragraph", text, above=above)


def _is_lists_or_code(lines: Sequence[str]) -> bool:
    return all(map(_BULLET.match, lines)) or _is_pairs(lines) or bool(_language("\n".join(lines)))


def _is_pairs(lines: Sequence[str]) -> bool:
    return len(lines) > 1 and all(map(_PAIR.match, lines))


def _is_heading(line: str) -> bool:
    text = line.strip()
    is_short = 0 < len(text) <= _MAX_HEADING and len(text.split()) <= 8
    has_letters = any(map(str.isalpha, text)) and (text[0].isupper() or text[0].isdigit())
    return is_short and has_letters and not text.endswith(_END_MARKS) and "://" not in text


def _language(text: str) -> str:
    """The tag of a fence; empty for what is no code."""
    first = text.lstrip().splitlines()[0]
    if first.startswith((">>> ", "In [")):
        return "pycon"
    if re.match(r"@\w+\{", first):
        return "bibtex"
    if _is_json(text):
        return "json"
    if all(_SHELL.match(line) or line.startswith(("#", " ")) for line in text.splitlines()):
        return "bash" if _SHELL.search(text) else ""
    if _is_python(text):
        return "python"
    lines = text.splitlines()
    is_code = sum(map(bool, map(_CODE_LINE.match, lines))) * 2 > len(lines) > 1
    return "text" if is_code else ""


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False


def _is_python(text: str) -> bool:
    """Whether it parses, and prose would not: words and commas make expressions too."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return False
    telling = (ast.Call, ast.Import, ast.ImportFrom, ast.Assign, ast.FunctionDef, ast.ClassDef)
    return any(isinstance(node, telling) for node in ast.walk(tree)) and not _reads_as_prose(text)


def _reads_as_prose(text: str) -> bool:
    """``Note (see below)`` parses as a call; a name before a space and a bracket is no code."""
    return len(text.splitlines()) == 1 and bool(re.match(r"[A-Z]\w* \(", text))


def _joined(blocks: Sequence[Block]) -> Iterator[Block]:
    """Code that blank lines divide, in one fence: where both halves are code, or only together."""
    waiting: Block | None = None
    for block in blocks:
        if waiting is not None:
            whole = waiting.text + "\n" * (block.above + 1) + block.text
            if waiting.language == "python" and (
                block.language == "python" or (block.text.startswith(" ") and _is_python(whole))
            ):
                waiting = replace(waiting, text=whole)
                continue
            yield waiting
            waiting = None
        if block.kind == "code":
            waiting = block
        else:
            yield block
    if waiting is not None:
        yield waiting


def _leveled(blocks: Iterator[Block]) -> Iterator[Block]:
    found = list(blocks)
    # The title, unless marks say which it is.
    untitled = all(block.kind != "title" for block in found)
    inside = False
    for index, block in enumerate(found):
        following = found[index + 1].kind if index + 1 < len(found) else ""
        if block.kind != "heading":
            yield block
        elif untitled:
            untitled = False
            yield replace(block, kind="title")
        elif following == "heading":
            inside = True
            yield replace(block, kind="section")
        elif block.text.lower() in _SECTIONS or not inside:
            inside = False
            yield replace(block, kind="section")
        else:
            yield replace(block, kind="subsection")


def _repository(blocks: Sequence[Block]) -> str:
    """The hub id that the code loads; empty where there is none."""
    for block in blocks:
        if block.kind == "code" and (found := _REPOSITORY.search(block.text)):
            return found[1]
    return ""


def _written(block: Block, repository: str) -> str:
    if block.kind == "code":
        fence = "````" if "```" in block.text else "```"
        return f"{fence}{block.language}\n{block.text}\n{fence}"
    heads = {"title": "# ", "section": "## ", "subsection": "### "}
    if block.kind in heads:
        return heads[block.kind] + _prose(block.text)
    if block.kind == "list":
        return "\n".join(_item(line, repository) for line in block.text.splitlines())
    return _linked(_prose(block.text), repository)


def _item(line: str, repository: str) -> str:
    found = _BULLET.match(line)
    content = line[found.end() :] if found else line
    mark = f"{found[1]}. " if found and found[1] else "- "
    return mark + _linked(_prose(content), repository)


def _prose(text: str) -> str:
    """Text that Markdown shows as it is: its marks escaped, control tokens as code, addresses."""
    kept: list[str] = []

    def keep(mark: str) -> str:
        kept.append(mark)
        return f"\x00{len(kept) - 1}\x00"

    text = re.sub(
        r"`[^`\n]+`|\[[^\]\n]+\]\([^)\s]+\)|<https?://[^>\s]+>", lambda m: keep(m[0]), text
    )
    text = _URL.sub(lambda found: keep(f"<{found[0]}>"), text)
    text = _TOKEN.sub(lambda found: keep(f"`{found[0]}`"), text)
    text = re.sub(r"(?<!\w)_|_(?!\w)|[*\\\[\]<|]", lambda found: f"\\{found[0]}", text)
    if text.count("~") > 1:  # A pair of them strikes out what is between.
        text = text.replace("~", "\\~")
    text = re.sub(r"(?m)^([ \t]*)([#>+-])", r"\1\\\2", text)
    return re.sub(r"\x00(\d+)\x00", lambda found: kept[int(found[1])], text)


def _linked(text: str, repository: str) -> str:
    """In a license's section, ``here`` led to the repository's LICENSE, unless it names another."""
    if not repository or "://" in text:
        return text
    return _HERE.sub(f"[here]({constants.ENDPOINT}/{repository}/blob/main/LICENSE)", text)


# Labels that are suggested where the user gives none. ``{Key}`` is what the card says of Key.
LABELS: Mapping[str, str] = {
    "llm-pretrained-model": "Relating to a pre-trained large language model such as {Architecture}",
    "llm-fine-tuned-model": "Relating to a fine-tuned large language model such as {Architecture}",
    "llm-quantized-model": "Relating to a quantized large language model such as {Architecture}",
    "code-generation": "Relating to models that write code",
    "code-completion": "Relating to models that complete code",
    "fill-in-the-middle": "Relating to models that write what stands between two texts",
    "text-classification": "Relating to models that sort texts into classes",
    "text-embedding": "Relating to models that turn texts into vectors",
    "image-generation": "Relating to models that draw images",
    "speech-recognition": "Relating to models that write down what is said",
}

# Words of labels that tell nothing, and what else is said for one.
_SAID_FOR = {
    "llm": ("llm", "language model", "gpt", "starcoder", "llama", "attention"),
    "pretrained": ("pretrain", "pre-train", "trained on"),
    "fine": ("fine-tun", "finetun"),
    "tuned": ("fine-tun", "finetun", "instruction-tun"),
    "quantized": ("quantiz", "int8", "int4", "gguf"),
}
_SILENT = {"in", "the", "of", "a", "for", "to", "and"}


def suggest_labels(text: str, labels: Mapping[str, str] = LABELS) -> list[dict[str, str]]:
    """``{"key", "value"}`` of each label all of whose words the card says, in its own forms."""
    lowered = text.lower()
    return [
        {"key": key, "value": _filled(value, text)}
        for key, value in labels.items()
        if all(_is_said(word, lowered) for word in re.split(r"[-_\s]+", key.lower()))
    ]


def _is_said(word: str, text: str) -> bool:
    # Longer words by their beginning: generation, generate, generates.
    forms = _SAID_FOR.get(word, (word[:6] if len(word) > 6 else word,))
    return word in _SILENT or any(re.search(rf"\b{re.escape(form)}", text) for form in forms)


def _filled(value: str, text: str) -> str:
    def fact(found: re.Match[str]) -> str:
        line = re.search(rf"(?m)^\W*{re.escape(found[2])}: *(.+)$", text)
        if line is None:
            return ""
        words = line[1].strip()
        # "a GPT-2 model with …" inside a sentence that speaks of models already.
        return found[1] + re.sub(r"\s+model\b", "", words)

    return re.sub(r"( such as )\{(.+?)\}", fact, value)
