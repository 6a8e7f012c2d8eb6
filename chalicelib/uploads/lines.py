"""Splits an uploaded file into lines of text, using constant memory."""

from __future__ import annotations

import codecs
import io
import re
from collections.abc import Iterable, Iterator

from chalicelib.uploads.detection import SAVE, NotImported

LINE_BYTES = 65_536
# Undefined bytes, and control characters other than tabs and line breaks.
UNLIKELY = re.compile("[\ufffd\0-\x08\x0e-\x1b\x7f]")


class Lines:
    """The lines of a file with their line endings. Raises ``NotImported`` if a line is too long or cannot be decoded.

    If a line is not in UTF-8 but could be in Windows-1252, reading continues, so that the rows show how they would
    read. ``problem`` then says which line is not in UTF-8, and ``looks_like_1252`` whether the whole file so far could
    be in Windows-1252.
    """

    def __init__(self, chunks: Iterable[bytes], encoding: str, *, looks_like_1252: bool) -> None:
        self.problem = ""
        self.looks_like_1252 = looks_like_1252
        self._chunks = chunks
        self._encoding = encoding
        self._number = 0

    def __iter__(self) -> Iterator[str]:
        for block, lines in _whole_lines(self._chunks if self._encoding == "utf-8" else self._in_utf8()):
            try:
                text = block.decode()
            except UnicodeDecodeError:
                text = "\0"
            if "\0" in text or max(map(len, lines)) > LINE_BYTES:
                yield from map(self._checked, lines)
            else:
                self._number += len(lines)
                # Windows-1252 would garble the other characters of a file that is partly in UTF-8.
                self.looks_like_1252 &= text.isascii()
                yield from io.StringIO(text, newline="")

    def _in_utf8(self) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self._encoding)()
        try:
            for chunk in self._chunks:
                yield decoder.decode(chunk).encode()
            yield decoder.decode(b"", final=True).encode()
        except UnicodeDecodeError as error:
            name = "Windows-1252" if self._encoding == "cp1252" else self._encoding.upper()
            raise NotImported(f"the file is not in {name} after line {self._number:,}: {SAVE}") from error

    def _checked(self, line: bytes) -> str:
        self._number += 1
        if len(line) > LINE_BYTES:
            raise NotImported(f"line {self._number:,} is longer than {LINE_BYTES:,} bytes, so this is not an inventory")
        if b"\0" in line:
            raise NotImported(f"line {self._number:,} contains a NUL byte, so this is not a CSV file: {SAVE}")
        try:
            text = line.decode()
            self.looks_like_1252 &= text.isascii()
        except UnicodeDecodeError as error:
            self.problem = self.problem or (
                f"line {self._number:,} is not in UTF-8 (byte {error.start + 1:,} of the line is "
                f"0x{line[error.start]:02X})"
            )
            text = line.decode("cp1252", "replace")
            self.looks_like_1252 &= not UNLIKELY.search(text)
        return text


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Yields blocks of whole lines, each with its lines."""
    rest = b""
    for chunk in chunks:
        data = rest + chunk
        lines = data.splitlines(keepends=True)
        # The last line may continue in the next chunk, even if it ends with CR, because an LF may follow.
        rest = lines.pop() if lines else b""
        if lines:
            yield data[: len(data) - len(rest)], lines
        if len(rest) > LINE_BYTES:
            break
    if rest:
        yield rest, [rest]
