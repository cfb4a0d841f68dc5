"""Messages over a socket between two processes, each told how long it may take.

Guaranteed: a message comes whole or not at all; many small ones cost little more than one large one to receive.
Not guaranteed: a bound on the time of a message whose bytes trickle; the time is between two arrivals.
"""

from __future__ import annotations

import socket
import struct

_SIZE = struct.Struct("<Q")
_BUFFER_BYTES = 1 << 18
LONGEST_MESSAGE = 1 << 32


class Channel:
    """One end."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._incoming = end.makefile("rb", _BUFFER_BYTES)

    def send(self, message: bytes) -> None:
        """Send a message, waiting for as long as the other end is busy; raises OSError once that is gone."""
        self._socket.settimeout(None)
        self._socket.sendall(_SIZE.pack(len(message)) + message)

    def receive(self, seconds: float) -> bytes:
        """Return the next message; raises TimeoutError, EOFError or OSError once the other end is gone, ValueError."""
        self._socket.settimeout(seconds)
        (size,) = _SIZE.unpack(self._exactly(_SIZE.size))
        if size > LONGEST_MESSAGE:
            raise ValueError(f"a message of {size} bytes: expected {LONGEST_MESSAGE} at most")
        return self._exactly(size)

    def close(self) -> None:
        """Close it; the other end sees that."""
        self._incoming.close()
        self._socket.close()

    def _exactly(self, size: int) -> bytes:
        data: bytes = self._incoming.read(size)
        if len(data) < size:
            raise EOFError
        return data
