"""What a language client is told about a request that no handler can take.

The library drops a request whose parameters are none of the protocol's, and
answers one that comes before ``initialize`` with a traceback. Here each gets the
protocol's own error: such a request is handed on as one that is refused.
"""

from typing import Any

from lsprotocol import types
from pygls.exceptions import JsonRpcException, JsonRpcInvalidParams, JsonRpcServerNotInitialized
from pygls.protocol import JsonRPCRequestMessage, LanguageServerProtocol
from pygls.protocol.json_rpc import RPCMessage, RPCRequest

REFUSED = "tinystarcoder/refused"  # The method of requests whose parameters are an error.


def refuse(error: JsonRpcException) -> None:
    """The handler of :data:`REFUSED`."""
    raise error


class Protocol(LanguageServerProtocol):
    """The library's protocol, with an answer to every request."""

    _is_initialized = False

    def structure_message(self, data: dict[str, Any]) -> Any:
        """A JSON object as a message; one with wrong parameters as a request to be refused."""
        try:
            return super().structure_message(data)
        except JsonRpcException:
            if "id" not in data or "method" not in data:
                raise
            message = f"{data['method']}: the parameters are not those of the protocol"
            return _refused(data["id"], JsonRpcInvalidParams(message))

    def handle_message(self, message: RPCMessage) -> None:
        """Handles a message; before ``initialize``, requests are refused, notifications dropped."""
        method = getattr(message, "method", None)
        if method == types.INITIALIZE:
            self._is_initialized = True
        elif not self._is_initialized and method not in (None, REFUSED, types.EXIT):
            if not isinstance(message, RPCRequest):
                return
            error = JsonRpcServerNotInitialized(f"{method}: initialize comes first")
            message = _refused(message.id, error)
        super().handle_message(message)


def _refused(message_id: Any, error: JsonRpcException) -> JsonRPCRequestMessage:
    return JsonRPCRequestMessage(
        id=message_id, method=REFUSED, jsonrpc=Protocol.VERSION, params=error
    )
