"""The two ways in: a WebSocket, and the native port by `openssl s_client`.

Both carry whole frames as bytes; what is in them is not looked at here.
"""

import asyncio

import websockets

from checks import Failure, expect, within
from server import CERTIFICATE, HOST, NAME, PORT, trust


class WebSocketLink:
    """Each frame is one binary message."""

    def __init__(self, socket):
        self.socket = socket

    @classmethod
    async def open(cls, **more):
        """Upgrade, with everything else as the library does it."""
        socket = await within("the WebSocket opens", websockets.connect(
            f"wss://{NAME}:{PORT}/v1/socket", host=HOST, ssl=trust(),
            subprotocols=["ringline.v1"], **more,
        ))
        expect("the subprotocol", socket.subprotocol, "ringline.v1")
        expect("no extension is agreed on", socket.extensions, [])
        return cls(socket)

    async def send(self, frame):
        """Send one frame, or a text message if it is a str."""
        await self.socket.send(frame)

    async def receive(self):
        """The next frame; None when the server closed."""
        try:
            message = await self.socket.recv()
        except websockets.ConnectionClosed:
            return None
        if isinstance(message, str):
            raise Failure(f"the server sent text: {message!r}")
        return message

    async def close(self):
        """Close as RFC 6455 says; the server answers with the same code."""
        await within("the close is answered", self.socket.close(1000))
        expect("the close code", self.socket.close_code, 1000)

    async def end(self):
        """How the server ended it: the close code."""
        await within("the WebSocket closes", self.socket.wait_closed())
        return self.socket.close_code

    def said(self):
        """What is known about how it ended."""
        return f"close code {self.socket.close_code}"


def s_client(*more):
    """The command line of a TLS client that trusts our certificate alone."""
    return [
        "openssl", "s_client", "-connect", f"{HOST}:{PORT}",
        "-servername", NAME, "-verify_hostname", NAME,
        "-CAfile", CERTIFICATE, "-verify_return_error", *more,
    ]


class NativeLink:
    """Each frame stands behind its length, a varint of 1 to 3 bytes.

    `-brief` keeps stdout for what the server sends; with `-nocommands` no
    letter of ours is taken for a command.
    """

    def __init__(self, process):
        self.process = process
        self._said = ""
        self._more = asyncio.Event()
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def open(cls, *more, options=("-tls1_3", "-nocommands", "-alpn",
                                        "ringline/1")):
        """Start the TLS client; the handshake goes on by itself."""
        return cls(await asyncio.create_subprocess_exec(
            *s_client("-brief", *options, *more),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        ))

    async def _listen(self):
        while line := await self.process.stderr.readline():
            self._said += line.decode(errors="replace")
            self._more.set()

    def said(self):
        """What the TLS client told about the connection."""
        return self._said

    async def says(self, word):
        """Wait until the TLS client has told that."""
        while word not in self._said:
            self._more.clear()
            await within(f"openssl says {word}", self._more.wait())

    async def send_raw(self, data):
        """Send bytes as they are."""
        try:
            self.process.stdin.write(data)
            await self.process.stdin.drain()
        except ConnectionError:
            # The server closed; what it said last is still to be read.
            pass

    async def send(self, frame):
        """Send one frame."""
        await self.send_raw(varint(len(frame)) + frame)

    async def receive(self):
        """The next frame; None when the server closed."""
        length = 0
        for shift in (0, 7, 14):
            byte = await self.process.stdout.read(1)
            if not byte and shift == 0:
                return None
            if not byte:
                raise Failure(f"ended within a length: {self.said()}")
            length |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                break
        else:
            raise Failure("a length of more than three bytes")
        try:
            return await self.process.stdout.readexactly(length)
        except asyncio.IncompleteReadError as error:
            raise Failure(f"{error}: {self.said()}") from None

    async def close(self):
        """End of input: the TLS client sends close_notify and goes."""
        self.process.stdin.close()
        await within("openssl ends", self.process.wait())

    async def end(self):
        """How the server ended it: 0 is a close_notify, else no such."""
        return await within("openssl ends", self.process.wait())


def varint(number):
    """The shortest form, seven bits a byte, lowest first."""
    data = bytearray()
    while number >= 0x80:
        data.append(number & 0x7F | 0x80)
        number >>= 7
    data.append(number)
    return bytes(data)
