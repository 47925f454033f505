"""The house rules that no other tool checks, each shown to be able to fail.

The tables below are the rules; ``CHECKS`` at the end of the file lists the
functions that hold the tree to them. Imports are read from the syntax tree,
those inside functions included, so nothing has to be importable to be checked.
"""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

import tinystarcoder
from tinystarcoder.training.recipe import Recipe

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "tinystarcoder"

# A room imports from lower storeys only, and never from its neighbors.
STOREYS = (
    ("errors",),
    ("files", "fim", "hub", "verdict"),
    ("tokenizer",),
    ("corpus",),
    ("model",),
    ("engine", "training"),
    ("generation",),
    ("pretrained",),
    ("completion",),
    ("evaluation", "serving"),
    ("cli",),
)

# These two sides never import each other, whatever their storeys.
TRAINING_SIDE = ("training",)
INFERENCE_SIDE = ("engine", "generation", "pretrained", "completion", "serving")

# Third-party modules that only these files (or folders, with a slash) may import.
RESERVED = {
    "torch": (
        *("model/gpt_bigcode.py", "model/multi_query.py", "training/"),
        *("engine/torch_decoder.py", "evaluation/peers/"),
    ),
    "transformers": ("evaluation/peers/",),
    "peft": ("training/finetune.py",),
    "gguf": ("model/gguf_export.py",),
    "pyarrow": ("corpus/",),
    "detect_secrets": ("corpus/redaction.py",),
    "tree_sitter": ("corpus/syntax.py",),
    "ahocorasick_rs": ("corpus/decontamination.py",),
    "datasets": ("corpus/tables.py",),
    "fastokens": ("corpus/bulk_encoding.py",),
    "datatrove": ("corpus/cluster.py",),
    "typer": ("cli/",),
    "jedi": ("evaluation/peers/",),
    "huggingface_hub": ("hub.py", "evaluation/card.py", "evaluation/card_text.py"),
    "starlette": ("serving/",),
    "uvicorn": ("cli/serve.py",),
    "prometheus_client": ("serving/observe.py",),
    "pygls": ("serving/lsp.py", "serving/lsp_protocol.py"),
    "lsprotocol": ("serving/lsp.py", "serving/lsp_protocol.py"),
    "rich": ("cli/", "training/"),
}

# What the base install does not bring, and the files that need it when imported.
# All others are the runtime: they are imported without, those of RUNTIME_TOO included.
EXTRAS = (
    *("torch", "transformers", "safetensors", "pyarrow", "detect_secrets"),
    *("tree_sitter", "tree_sitter_python", "ahocorasick_rs", "peft", "gguf"),
)
WORKSHOP = (
    "corpus/cluster.py",
    "corpus/decontamination.py",
    "corpus/duplicates.py",
    "corpus/lookup.py",
    "corpus/open_source.py",
    "corpus/parquet.py",
    "corpus/pipeline.py",
    "corpus/redaction.py",
    "corpus/stages.py",
    "corpus/syntax.py",
    "corpus/tables.py",
    "corpus/tokenizing.py",
    "model/gguf_export.py",
    "model/gpt_bigcode.py",
    "model/multi_query.py",
    "engine/torch_decoder.py",
    "training/",
    "evaluation/peers/",
    "cli/corpus.py",
    "cli/export.py",
    "cli/finetune.py",
    "cli/governance.py",
    "cli/tokenizer.py",
)
COMPILED = ("engine/_native.pyi",)  # Present where there was a compiler.
RUNTIME_TOO = (
    *("training/__init__.py", "training/recipe.py", "training/schedule.py"),
    *("training/plan.py", "training/report.py", "training/run_log.py"),
)

# What the package's own __init__ defines, rather than forwards, and may be asked for.
DEFINED_AT_THE_TOP = ("__version__",)

# Hosts that may be named. Examples and loopback aside, an address is a dependency.
HOSTS = ("www.apache.org", "keepachangelog.com", "semver.org", "www.w3.org")
EXAMPLE_HOST = re.compile(r"localhost|127\.0\.0\.1|(.*\.)?(example|test|invalid)(\.(com|org|net))?")

MAX_LINES = 600


@dataclass(frozen=True)
class Module:
    """One source file: ``path`` is relative to the package's folder, ``name`` is dotted."""

    name: str
    path: str
    text: str
    syntax: ast.Module

    @property
    def room(self) -> str:
        """``model`` for tinystarcoder.model.config; empty for the package's own __init__."""
        return (*self.name.split("."), "")[1]

    @property
    def is_package(self) -> bool:
        return self.path.rsplit("/", 1)[-1] == "__init__.py"


@dataclass(frozen=True)
class Import:
    """``target`` is a module; ``name`` what is taken out of it, if that is no module."""

    line: int
    target: str
    name: str | None


@dataclass(frozen=True)
class Tree:
    """A repository, or a small one made up to break a rule."""

    root: Path

    def modules(self) -> dict[str, Module]:
        source = self.root / "src"
        found = {}
        for path in sorted((source / PACKAGE).rglob("*.py*")):
            if path.suffix not in {".py", ".pyi"}:  # A stub stands for a compiled module.
                continue
            parts = path.relative_to(source).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            text = path.read_text(encoding="utf-8")
            inside = path.relative_to(source / PACKAGE).as_posix()
            found[name] = Module(name, inside, text, ast.parse(text))
        return found

    def written(self) -> Iterator[tuple[str, str]]:
        """Path and text of every file that a person wrote: code, pages, recipes, scripts."""
        folders = ("src", "tests", "scripts", "docs", "recipes", "benchmarks", "examples", ".ci")
        paths = [path for folder in folders for path in (self.root / folder).rglob("*")]
        for path in sorted([*paths, *self.root.glob("*")]):
            text_like = path.suffix in {"", ".py", ".md", ".toml", ".txt", ".yaml", ".yml"}
            if path.is_file() and text_like and "__pycache__" not in path.parts:
                yield path.relative_to(self.root).as_posix(), path.read_text(encoding="utf-8")


def imports(module: Module, modules: dict[str, Module]) -> Iterator[Import]:
    """Everything that a file imports, relative names resolved."""
    for node in ast.walk(module.syntax):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(node.lineno, alias.name, None)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.name.split(".")
                up = node.level - 1 if module.is_package else node.level
                base = ".".join([*parts[: len(parts) - up], *filter(None, [node.module])])
            for alias in node.names:
                if f"{base}.{alias.name}" in modules:
                    yield Import(node.lineno, f"{base}.{alias.name}", None)
                else:
                    yield Import(node.lineno, base, alias.name)


def internal_imports(
    modules: dict[str, Module],
) -> Iterator[tuple[Module, Import]]:
    """Imports of our own modules, but for the package's __init__, which only forwards."""
    for module in modules.values():
        for item in imports(module, modules):
            if module.name != PACKAGE and item.target.split(".")[0] == PACKAGE:
                yield module, item


def upwards_only(tree: Tree) -> Iterator[str]:
    """A room imports from lower storeys only."""
    storey = {room: level for level, rooms in enumerate(STOREYS) for room in rooms}
    modules = tree.modules()
    for module in modules.values():
        if module.room and module.room not in storey:
            yield f"{module.path}: {module.room} has no storey; give it one in STOREYS"
    for module, item in internal_imports(modules):
        room = (*item.target.split("."), "")[1]
        above, below = storey.get(module.room), storey.get(room)
        if above is not None and below is not None and room != module.room and below >= above:
            yield f"{module.path}:{item.line}: {module.room} stands below or beside {room}"


def training_and_inference_apart(tree: Tree) -> Iterator[str]:
    """Neither of the two sides imports the other."""
    for module, item in internal_imports(tree.modules()):
        room = (*item.target.split("."), "")[1]
        for side, other in (
            (TRAINING_SIDE, INFERENCE_SIDE),
            (INFERENCE_SIDE, TRAINING_SIDE),
        ):
            if module.room in side and room in other:
                yield f"{module.path}:{item.line}: {module.room} imports {room}"


def names_from_their_own_file(tree: Tree) -> Iterator[str]:
    """Names are imported from the file that defines them, never through an __init__."""
    modules = tree.modules()
    for module, item in internal_imports(modules):
        target = modules.get(item.target)
        if target is None:
            yield f"{module.path}:{item.line}: there is no module {item.target}"
        elif target.is_package and item.name not in DEFINED_AT_THE_TOP:
            yield f"{module.path}:{item.line}: imports {item.name or 'all'} through {target.path}"


def no_cycles(tree: Tree) -> Iterator[str]:
    """No file imports itself by way of others."""
    modules = tree.modules()
    targets: dict[str, set[str]] = {name: set() for name in modules}
    for module, item in internal_imports(modules):
        targets[module.name].add(item.target)
    # Whatever cannot be taken away, leaves first, stands in or above a circle.
    while leaves := [name for name, below in targets.items() if not below & set(targets)]:
        for name in leaves:
            del targets[name]
    for name in targets:
        yield f"{modules[name].path}: is in, or imports, a circle"


def reserved_modules(tree: Tree) -> Iterator[str]:
    """Heavy or single-purpose libraries stay in the files that RESERVED names."""
    modules = tree.modules()
    for module in modules.values():
        for item in imports(module, modules):
            library = item.target.split(".")[0]
            if library in RESERVED and not _lies_in(module.path, RESERVED[library]):
                yield f"{module.path}:{item.line}: {library} is for {', '.join(RESERVED[library])}"


def runtime_without_extras(tree: Tree) -> Iterator[str]:
    """The base install imports every runtime module; none of them needs torch."""
    names = [
        name
        for name, module in tree.modules().items()
        if not _lies_in(module.path, (*WORKSHOP, *COMPILED)) or _lies_in(module.path, RUNTIME_TOO)
    ]
    program = (
        "import importlib, sys\n"
        # An editable installation would come before the tree that is asked about.
        "sys.meta_path = [one for one in sys.meta_path if 'editable' not in repr(one)]\n"
        f"sys.modules.update(dict.fromkeys({EXTRAS!r}))\n"  # None: importing it fails.
        f"for name in {names!r}:\n"
        "    try:\n"
        "        importlib.import_module(name)\n"
        "    except ImportError as error:\n"
        "        print(f'{name}: {error}')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tree.root / "src"), "PATH": ""},
        capture_output=True,
        text=True,
    )
    yield from [*done.stdout.splitlines(), *done.stderr.splitlines()]


def docstrings(tree: Tree) -> Iterator[str]:
    """Every file says what it is."""
    for module in tree.modules().values():
        if not ast.get_docstring(module.syntax):
            yield f"{module.path}: no module docstring"


def printing_is_for_the_cli(tree: Tree) -> Iterator[str]:
    """A library that prints cannot be used by a server."""
    for module in tree.modules().values():
        for node in ast.walk(module.syntax):
            is_print = isinstance(node, ast.Call) and ast.unparse(node.func) == "print"
            if is_print and module.room != "cli":
                yield f"{module.path}:{node.lineno}: print()"


def files_that_can_be_read(tree: Tree) -> Iterator[str]:
    """A file past MAX_LINES holds two subjects."""
    for path, text in tree.written():
        if path.endswith(".py") and text.count("\n") > MAX_LINES:
            yield f"{path}: {text.count(chr(10))} lines, more than {MAX_LINES}"


def no_hosts(tree: Tree) -> Iterator[str]:
    """No address of a registry or a service, and no path of one machine."""
    for path, text in tree.written():
        for number, line in enumerate(text.splitlines(), 1):
            # A pattern for an address escapes its dots.
            for host in re.findall(r"\w+://([\w.-]*\w)", line.replace("\\.", ".")):
                if host not in HOSTS and not EXAMPLE_HOST.fullmatch(host):
                    yield f"{path}:{number}: names the host {host}"
            if re.search(r"(?<![\w.])/(?:root|work)/\w", line):
                yield f"{path}:{number}: names a path of one machine"


def _lies_in(path: str, places: Sequence[str]) -> bool:
    return any(path == place or (place[-1] == "/" and path.startswith(place)) for place in places)


Check = Callable[[Tree], Iterator[str]]

# Each rule, and files that break it: the self-test writes them and expects a complaint.
CHECKS: dict[Check, dict[str, str]] = {
    upwards_only: {"model/config.py": "from ..engine.decoder import Decoder"},
    training_and_inference_apart: {"generation/generate.py": "from ..training import trainer"},
    names_from_their_own_file: {"model/config.py": "from . import PRESETS"},
    no_cycles: {
        "model/one.py": "from . import two",
        "model/two.py": "def late():\n    from .one import thing",
    },
    reserved_modules: {"engine/numpy_decoder.py": "def late():\n    import torch.nn"},
    runtime_without_extras: {"engine/numpy_decoder.py": "import torch"},
    docstrings: {"engine/bare.py": ""},
    printing_is_for_the_cli: {"engine/loud.py": "print('done')"},
    files_that_can_be_read: {"engine/long.py": "x = 1\n" * (MAX_LINES + 1)},
    no_hosts: {"engine/hub.py": "URL = 'https:" + "//registry.elsewhere.io/simple'"},
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_house_keeps(check: Check) -> None:
    assert list(check(Tree(ROOT))) == []


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_breach_is_seen(check: Check, tmp_path: Path) -> None:
    """Each check is silent on a small sound tree and speaks once the breach is in it."""
    sound = ("__init__", "errors", "model/__init__", "engine/__init__", "engine/decoder")
    sound += ("training/__init__", "training/trainer", "generation/__init__")
    package = tmp_path / "src" / PACKAGE
    for name in sound:
        path = package / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text('"""Sound."""\n')
    assert list(check(Tree(tmp_path))) == []
    breach = CHECKS[check]
    for name, text in breach.items():
        (package / name).write_text(text)
    complaints = "\n".join(check(Tree(tmp_path)))
    assert all(name in complaints or _dotted(name) in complaints for name in breach)


def _dotted(path: str) -> str:
    return f"{PACKAGE}.{path.removesuffix('.py').replace('/', '.')}"


def test_a_machine_path_is_seen(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "page.md").write_text("look into /" + "root/data\n")
    assert list(no_hosts(Tree(tmp_path))) == ["docs/page.md:1: names a path of one machine"]


def test_public_names_resolve() -> None:
    """What the package lists is there, has a docstring, and is all that dir() adds."""
    names = getattr(tinystarcoder, "__all__", [])
    if not names:
        pytest.skip("the package has no public names yet")
    assert list(names) == sorted(names)
    for name in names:
        if name != "__version__":
            assert getattr(tinystarcoder, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError):
        _ = tinystarcoder.no_such_name


def test_every_dependency_has_its_reason() -> None:
    """pyproject.toml and the tables of docs/architecture.md name the same libraries."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = pyproject["project"]
    lists = {"": project["dependencies"] + pyproject["build-system"]["requires"]}
    needed = {
        (re.split("[<>=]", requirement)[0], extra)
        for extra, requirements in (lists | project["optional-dependencies"]).items()
        for requirement in requirements
        if not requirement.startswith(f"{PACKAGE}[")
    }
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = page.split("## Dependencies")[1].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line[:2] == "| "]
    told = {
        (name, extra)
        for package, *extras, _ in rows
        for name in package.split(", ")
        for extra in (extras[0].split(", ") if extras else [""])
    }
    assert {pair for pair in told if pair[0] != "package" and pair[1] != "none"} == needed


@pytest.mark.parametrize(
    "recipe", sorted((ROOT / "recipes").glob("*.toml")), ids=lambda path: path.name
)
def test_recipes_parse(recipe: Path) -> None:
    assert Recipe.read(recipe).total_tokens() > 0
