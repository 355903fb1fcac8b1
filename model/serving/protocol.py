"""HTTP of which the headers are limited, as the body is: uvicorn keeps however many a caller sends."""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

#: In bytes, of headers and of what may follow a body; servers elsewhere take 8 to 64 KB.
MAX_HEADERS = 65_536


class LimitedProtocol(HttpToolsProtocol):
    """The protocol of one connection; it is closed when more has come than allowed and none of it was a body."""

    _headers = 0

    def data_received(self, data: bytes) -> None:
        self._headers += len(data)
        super().data_received(data)
        if self._headers > MAX_HEADERS:
            self.send_400_response(f"More than {MAX_HEADERS:,} bytes of headers.")

    def on_message_begin(self) -> None:
        self._headers = 0
        super().on_message_begin()

    def on_body(self, body: bytes) -> None:
        self._headers = 0
        super().on_body(body)
