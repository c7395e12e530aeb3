"""The server under test: where it is, and how to have it restarted."""

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


def trust():
    """Trust that one certificate, and speak nothing older than TLS 1.3."""
    context = ssl.create_default_context(cafile=CERTIFICATE)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    return context


async def restart():
    """Have the test kill the server and start it on the same data."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    print("please restart the server", flush=True)
    answer = await within("the server is up again", reader.readline(), 90)
    expect("the server is up again", answer, b"restarted\n")
