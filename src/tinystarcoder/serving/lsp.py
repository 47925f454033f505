"""The Language Server Protocol: grey text and completion items, over standard input and output.

- ``textDocument/inlineCompletion`` (3.18), for editors that draw grey text;
- ``textDocument/completion``, the same suggestion as one item, for those that do not;
- commands to accept a word or a line, and to switch everything off and on.

A newer request of a document cancels the older one, and so does the editor's
own cancellation: the engine stops within a step. A request waits a moment
(``debounce``) for the next key, but not where the suggestion is known already.
Other open Python files may tell the model something (``snippets``). It gives up
documents that were not opened: nothing is read from the disk.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatch
from pathlib import PurePath
from typing import get_args

from lsprotocol import types
from pygls.lsp.server import LanguageServer
from pygls.workspace import TextDocument

from .. import __version__
from ..completion.accept import first_line, first_word
from ..completion.documents import Documents
from ..completion.repository import Neighbors
from ..completion.request import CompletionRequest, Mode, Snippet
from ..completion.service import CompletionService
from ..errors import RequestError, TinyStarcoderError
from ..generation.sampling import SamplingOptions
from .lsp_protocol import REFUSED, Protocol, refuse

SECTION = "tinystarcoder"  # The name of the settings, and the prefix of commands.
ACCEPT_WORD, ACCEPT_LINE = f"{SECTION}.acceptWord", f"{SECTION}.acceptLine"
ENABLE, DISABLE = f"{SECTION}.enable", f"{SECTION}.disable"

# Lines as the protocol counts them: Python's splitlines() also breaks at form feeds and others.
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
_IDENTIFIER = re.compile(r"\w*\Z")
_LABEL = 60  # Characters of a suggestion in a list.


@dataclass(frozen=True)
class Settings:
    """What an editor may set, by ``initializationOptions`` or ``didChangeConfiguration``.

    ``debounce``: milliseconds. ``never``: patterns of paths, whole, within the
    workspace or their last part, whose text never reaches the model; ``*``
    matches slashes too. ``snippets``: whether other open files are read for a
    suggestion.
    """

    enabled: bool = True
    debounce: int = 60
    max_tokens: int = 64
    mode: Mode = "auto"
    snippets: bool = False
    never: Sequence[str] = (
        *(".env", ".env.*", "*.pem", "*.key", "*.p12", "*.pfx", "id_rsa*", "id_ed25519*"),
        *(".netrc", ".pypirc", "credentials*", "secrets.*"),
    )

    def updated(self, values: object) -> "Settings":
        """These settings with an editor's values. Raises RequestError, which names the field.

        Beside them other programs' sections may stand, which are objects.
        """
        if values is None:
            return self
        if not isinstance(values, dict):
            raise RequestError(f"{SECTION}: settings must be an object, not {values!r}")
        if SECTION in values:
            return self.updated(values[SECTION])
        known = [f.name for f in fields(self)]
        own = {n: v for n, v in values.items() if n in known or not isinstance(v, dict | None)}
        for name, value in own.items():
            if name not in known:
                raise RequestError(f"{SECTION}.{name}: no such setting; known: {', '.join(known)}")
            if not _is_valid(name, value):
                raise RequestError(f"{SECTION}.{name}: {value!r} is not a valid value")
        return replace(self, **own)

    def allows(self, path: str, workspace: str = "") -> bool:
        """Whether a file's text may be read."""
        names = {path, within(workspace, path), PurePath(path).name}
        return not any(fnmatch(name, glob) for glob in self.never for name in names)


def _is_valid(name: str, value: object) -> bool:
    if name in ("enabled", "snippets"):
        return isinstance(value, bool)
    if name == "mode":
        return value in get_args(Mode)
    if name == "never":
        return isinstance(value, list) and all(isinstance(glob, str) for glob in value)
    least = {"debounce": 0, "max_tokens": 1}[name]
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= 10_000


def within(workspace: str, path: str) -> str:
    """A path as it is called in the workspace."""
    try:
        return PurePath(path).relative_to(workspace).as_posix()
    except ValueError:
        return path


class Document(TextDocument):
    """An open document whose lines are the protocol's own."""

    @property
    def lines(self) -> Sequence[str]:
        return tuple(_LINE.findall(self.source))


class SuggestionServer(LanguageServer):
    """A language server around a completion service, which is made once the editor is connected.

    ``load`` makes it: it may take a while, and is called in another thread.
    """

    def __init__(self, load: Callable[[], CompletionService]) -> None:
        super().__init__("tinystarcoder", __version__, protocol_cls=Protocol)
        self.settings = Settings()
        self._load = load
        self._service: asyncio.Future[CompletionService] | None = None
        self._documents = Documents()
        self._neighbors: dict[str, Neighbors] = {}
        for add in (_add_life, _add_documents, _add_suggestions, _add_commands):
            add(self)

    @property
    def service(self) -> CompletionService | None:
        """The completion service, once it is there."""
        made = self._service
        return made.result() if made and made.done() and not made.exception() else None

    def change_settings(self, values: object) -> None:
        """Takes an editor's settings; what is wrong with them is shown, and nothing changes."""
        try:
            self.settings = self.settings.updated(values)
        except RequestError as error:
            self.say(str(error))
        if not self.settings.enabled:
            self.cancel_all()

    def cancel_all(self) -> None:
        """Stops whatever is being computed."""
        self._documents.cancel_all()

    async def start(self) -> None:
        """Loads the model, telling the editor of the progress where it can show it."""
        token = f"{SECTION}-load"
        window = self.client_capabilities.window
        shows = window is not None and bool(window.work_done_progress)
        loop = asyncio.get_running_loop()
        self._service = loop.run_in_executor(None, self._load)
        if shows:
            await self.work_done_progress.create_async(token)
            begin = types.WorkDoneProgressBegin(title="tinystarcoder: loading the model")
            self.work_done_progress.begin(token, begin)
        try:
            await self._service
        except (TinyStarcoderError, OSError) as error:
            self.say(str(error))
        if shows:
            self.work_done_progress.end(token, types.WorkDoneProgressEnd())

    async def suggest(self, uri: str, request: CompletionRequest, *, wait: bool) -> str:
        """What belongs at a document's place; nothing where that is out of date, or not to be had.

        With ``wait``, a newer request may come first. The editor's cancellation ends the work too.
        """
        if self._service is None:
            return ""
        try:
            with self._documents.newest(uri) as cancelled:
                service = await asyncio.shield(self._service)
                request = _limited(request, service)
                known = service.known(request)
                if known is not None:
                    return known.text
                if wait:
                    await asyncio.sleep(self.settings.debounce / 1000)
                if cancelled.is_set():
                    return ""
                made = await asyncio.to_thread(service.suggest, request, cancelled)
                return "" if made.finish == "cancelled" else made.text
        except (TinyStarcoderError, OSError) as error:
            self.say(str(error))
            return ""

    def known_text(self, uri: str, position: types.Position) -> str:
        """The suggestion already made for a place."""
        request, service = self.request_at(uri, types.Range(position, position)), self.service
        found = service.known(_limited(request, service)) if request and service else None
        return found.text if found else ""

    def request_at(
        self, uri: str, place: types.Range, selected: str = ""
    ) -> CompletionRequest | None:
        """The request at a place of an open document; None where none may be made.

        ``selected``: a text of the editor's own that would stand there instead.
        """
        document = self.workspace.text_documents.get(uri)
        if document is None or not self.settings.enabled or not self._allows(document):
            return None
        start, end = map(document.offset_at_position, (place.start, place.end))
        before, after = document.source[:start] + selected, document.source[end:]
        path = self._short(document)
        return CompletionRequest(
            before,
            after,
            path,
            self.settings.mode,
            SamplingOptions(max_tokens=self.settings.max_tokens),
            snippets=self._snippets(uri, path, before, after) if self.settings.snippets else (),
        )

    def _snippets(self, uri: str, path: str, before: str, after: str) -> tuple[Snippet, ...]:
        """What the other open Python files tell, as far as they may be read."""
        others = [
            Snippet(self._short(other), other.source)
            for name, other in self.workspace.text_documents.items()
            if name != uri and other.language_id == "python" and self._allows(other)
        ]
        return self._neighbors.setdefault(uri, Neighbors()).choose(path, before, after, others)

    def _allows(self, document: TextDocument) -> bool:
        return self.settings.allows(document.path, self.workspace.root_path or "")

    def _short(self, document: TextDocument) -> str:
        return within(self.workspace.root_path or "", document.path)

    def forget(self, uri: str) -> None:
        """Drops what is kept of a document that was closed."""
        self._neighbors.pop(uri, None)

    def say(self, message: str) -> None:
        """Shows a message to the person."""
        self.window_show_message(types.ShowMessageParams(types.MessageType.Warning, message))


def _limited(request: CompletionRequest, service: CompletionService) -> CompletionRequest:
    """A request for as many tokens as the model writes at most, where it is for more."""
    tokens = min(request.sampling.max_tokens, service.most_tokens)
    return replace(request, sampling=replace(request.sampling, max_tokens=tokens))


def _add_life(server: SuggestionServer) -> None:
    """Registers what begins and ends a connection."""

    @server.feature(types.INITIALIZE)
    def initialize(params: types.InitializeParams) -> None:
        server.change_settings(params.initialization_options)

    @server.feature(types.INITIALIZED)
    async def initialized(_: types.InitializedParams) -> None:
        await server.start()

    @server.feature(types.SHUTDOWN)
    def shutdown(_: None) -> None:
        server.cancel_all()
        if server.service is not None:
            server.service.close()

    server.feature(REFUSED)(refuse)


def _add_documents(server: SuggestionServer) -> None:
    """Registers what an editor tells of itself and of its documents."""

    @server.feature(types.WORKSPACE_DID_CHANGE_CONFIGURATION)
    def changed(params: types.DidChangeConfigurationParams) -> None:
        server.change_settings(params.settings)

    @server.feature(types.TEXT_DOCUMENT_DID_OPEN)
    def opened(params: types.DidOpenTextDocumentParams) -> None:
        # The library makes documents itself, with lines of its own.
        server.workspace.text_documents[params.text_document.uri].__class__ = Document

    @server.feature(types.TEXT_DOCUMENT_DID_CLOSE)
    def closed(params: types.DidCloseTextDocumentParams) -> None:
        server.forget(params.text_document.uri)


def _add_suggestions(server: SuggestionServer) -> None:
    """Registers the two forms of a suggestion."""

    @server.feature(types.TEXT_DOCUMENT_INLINE_COMPLETION)
    async def inline(params: types.InlineCompletionParams) -> types.InlineCompletionList:
        uri, context = params.text_document.uri, params.context
        # What the editor's own list offers there is not typed yet, but will stand before the text.
        chosen = context.selected_completion_info
        here = chosen.range if chosen else types.Range(params.position, params.position)
        selected = chosen.text if chosen else ""
        request = server.request_at(uri, here, selected)
        wait = context.trigger_kind == types.InlineCompletionTriggerKind.Automatic
        text = await server.suggest(uri, request, wait=wait) if request else ""
        items = [types.InlineCompletionItem(insert_text=selected + text, range=here)]
        return types.InlineCompletionList(items=items if text else [])

    @server.feature(types.TEXT_DOCUMENT_COMPLETION)
    async def completion(params: types.CompletionParams) -> types.CompletionList:
        uri, at = params.text_document.uri, params.position
        request = server.request_at(uri, types.Range(at, at))
        text = await server.suggest(uri, request, wait=True) if request else ""
        document = server.workspace.text_documents.get(uri)  # It may have been closed meanwhile.
        items = [_item(document, at, text)] if text and document else []
        return types.CompletionList(is_incomplete=True, items=items)


def _add_commands(server: SuggestionServer) -> None:
    """Registers the commands."""

    @server.command(ACCEPT_WORD)
    async def accept_word(uri: str, position: types.Position) -> str:
        return await _insert(server, uri, position, first_word)

    @server.command(ACCEPT_LINE)
    async def accept_line(uri: str, position: types.Position) -> str:
        return await _insert(server, uri, position, first_line)

    @server.command(ENABLE)
    def enable() -> None:
        server.change_settings({"enabled": True})

    @server.command(DISABLE)
    def disable() -> None:
        server.change_settings({"enabled": False})


async def _insert(
    server: SuggestionServer, uri: str, at: types.Position, part: Callable[[str], str]
) -> str:
    """Inserts a part of the suggestion that the editor shows at a place; returns that part."""
    text = part(server.known_text(uri, at))
    if text:
        edit = types.TextEdit(types.Range(at, at), text)
        params = types.ApplyWorkspaceEditParams(types.WorkspaceEdit(changes={uri: [edit]}))
        await server.workspace_apply_edit_async(params)
    return text


def _item(document: TextDocument, position: types.Position, text: str) -> types.CompletionItem:
    """A suggestion for a list: it replaces the word at the cursor, by which editors filter."""
    at = document.offset_at_position(position)
    found = _IDENTIFIER.search(document.source[max(0, at - _LABEL) : at])
    word = found[0] if found else ""
    # An identifier's characters may be two units each.
    units = document.position_codec.client_num_units(word)
    start = types.Position(position.line, position.character - units)
    label = (word + text).strip().partition("\n")[0].strip() or text
    return types.CompletionItem(
        label=label if len(label) <= _LABEL else label[: _LABEL - 1] + "…",
        kind=types.CompletionItemKind.Text,
        detail="tinystarcoder",
        documentation=word + text,
        sort_text="\0",
        filter_text=word + text,
        preselect=True,
        insert_text_format=types.InsertTextFormat.PlainText,
        text_edit=types.TextEdit(types.Range(start, position), word + text),
    )
