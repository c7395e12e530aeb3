"""The server under test: where it is, how it is killed and started again."""

import asyncio
import os
import ssl
import sys

from checks import expect, within

HOST = "127.0.0.1"
# The name in the development certificate.
NAME = "localhost"
PORT = int(os.environ["RINGLINE_PORT"])
CERTIFICATE = os.environ["RINGLINE_CERTIFICATE"]
# A folder for this run's files.
FOLDER = os.environ["RINGLINE_FOLDER"]
# The kinds of processes that it consists of: "gateway", which holds all there
# is, or that and "storage".
SERVERS = os.environ["RINGLINE_SERVERS"].split()

# What the test says of what it was asked for.
_answers = None


def trust():
    """Trust that one certificate, and speak nothing older than TLS 1.3."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


async def _please(what):
    """Have the test do that, and wait until it is done."""
    global _answers
    if _answers is None:
        _answers = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(_answers), sys.stdin
        )
    print(f"please {what}", flush=True)
    answer = await within(f"the test can {what}", _answers.readline(), 90)
    expect(f"the test can {what}", answer, b"done\n")


async def kill(server):
    """Have all processes of a kind killed, without a word to anybody."""
    await _please(f"kill the {server}")


async def start(server):
    """Have them started again, each on its own data."""
    await _please(f"start the {server}")
