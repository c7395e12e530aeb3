"""TLS as OpenSSL speaks it: versions, ALPN, key updates, the end."""

import asyncio
import os

from accounts import register
from checks import expect, expect_that, run, step, within
from links import NativeLink, s_client
from server import FOLDER
from session import Session, hello


async def handshake(*options):
    """Connect and leave at once: (worked, what OpenSSL says)."""
    process = await asyncio.create_subprocess_exec(
        *s_client(*options), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    said, _ = await within("openssl ends", process.communicate())
    return process.returncode == 0, said.decode(errors="replace")


async def accepted(options, *lines):
    """A handshake that works, and of which OpenSSL says these lines."""
    worked, said = await handshake(*options)
    expect_that(f"{options} is let in", worked, said)
    for line in lines:
        expect_that(f"{options}: \"{line}\"", line in said, said)


async def alerted(options, alert):
    """A handshake that the server ends with this alert."""
    worked, said = await handshake(*options)
    expect_that(f"{options} is refused", not worked, said)
    expect_that(f"{options}: alert \"{alert}\"", alert in said, said)


async def handshakes():
    """What is let in, and what gets which alert."""
    step("the protocol and its version")
    native = "-alpn", "ringline/1"
    tls_1_3 = "TLSv1.3", "Verification: OK"
    await accepted(native, "ALPN protocol: ringline/1", *tls_1_3)
    await accepted(("-alpn", "h2,http/1.1"), "ALPN protocol: http/1.1",
                   *tls_1_3)
    await accepted((), "No ALPN negotiated", *tls_1_3)
    step("older versions")
    await alerted((*native, "-tls1_2"), "alert protocol version")
    # OpenSSL itself offers TLS 1.1 only at its lowest level of security.
    await alerted((*native, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0"),
                  "SSL alert number")
    step("another protocol")
    await alerted(("-alpn", "ringline/9"), "alert no application protocol")


async def resumption():
    """The second handshake goes by a ticket of the first session."""
    step("a session's ticket")
    ticket = os.path.join(FOLDER, "ticket.pem")
    link = await NativeLink.open("-sess_out", ticket)
    session = Session(link)
    # OpenSSL writes a ticket when it reads one; an answer comes after it.
    await link.send(hello(access_token="none").SerializeToString())
    await session.is_closed("UNAUTHENTICATED", "ERROR_UNAUTHENTICATED", 0)
    await accepted(("-alpn", "ringline/1", "-sess_in", ticket), "Reused,")


async def key_update(account):
    """New keys both ways in the middle of a session, then its end."""
    step("a session with OpenSSL's commands")
    trace = os.path.join(FOLDER, "messages.txt")

    def seen(*words):
        with open(trace, encoding="utf-8") as file:
            return [line for line in file
                    if all(word in line for word in words)]

    link = await NativeLink.open(
        "-msg", "-msgfile", trace,
        options=("-tls1_3", "-alpn", "ringline/1"))
    session = await Session.open(link, access_token=account.access_token)
    expect("key updates so far", seen("KeyUpdate"), [])
    step("a key update")
    await link.send_raw(b"K\n")
    # Whatever is read together with the letter would be dropped with it.
    await link.says("KEYUPDATE")
    for _ in range(3):
        # No frame of these begins with a letter that is a command.
        await session.get("pong", ping={})
    expect("our key update, and the one that it asked for",
           (len(seen(">>>", "KeyUpdate")), len(seen("<<<", "KeyUpdate"))),
           (1, 1))
    step("close_notify")
    await session.get("done", log_out={})
    await session.is_closed("LOGGED_OUT", "ERROR_UNSPECIFIED", 0)
    expect("the server's close_notify",
           len(seen("<<<", "Alert", "close_notify")), 1)


async def main():
    """All of it."""
    await handshakes()
    await resumption()
    await key_update(await register("ada"))


run(main)
