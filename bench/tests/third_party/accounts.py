"""Accounts over HTTPS, by Python's own HTTP client."""

import asyncio
import http.client
import json

from checks import WAIT_S, expect, within
from server import HOST, NAME, PORT, trust

PASSWORD = "correct horse battery"
# Between two questions whether the server can serve, in seconds.
HEALTH_PAUSE_S = 0.2


class _Connection(http.client.HTTPSConnection):
    """Connects to the address, and asks for the name in the certificate."""

    def connect(self):
        http.client.HTTPConnection.connect(self)
        self.sock = trust().wrap_socket(self.sock, server_hostname=NAME)


def _call(method, path, body, headers):
    connection = _Connection(HOST, PORT, timeout=WAIT_S)
    try:
        connection.request(method, path, body=body, headers=headers)
        answer = connection.getresponse()
        text = answer.read()
        kind = answer.headers.get_content_type()
        is_json = kind == "application/json"
        return answer, json.loads(text) if is_json and text else text
    finally:
        connection.close()


async def call(method, path, body=None, **headers):
    """One call on a connection of its own: the answer and its body."""
    if isinstance(body, dict):
        body = json.dumps(body)
        headers.setdefault("Content-Type", "application/json")
    headers = {name.replace("_", "-"): text for name, text in headers.items()}
    return await asyncio.to_thread(_call, method, path, body, headers)


async def healthy(status):
    """Wait until the server says that it can serve (200) or cannot (503)."""
    async def wait():
        while (await call("GET", "/v1/health/ready"))[0].status != status:
            await asyncio.sleep(HEALTH_PAUSE_S)

    await within(f"the server's health is {status}", wait())


class Account:
    """One device of a user, as register and log in give it."""

    def __init__(self, answer):
        self.user = bytes.fromhex(answer["user_id"])
        self.device = bytes.fromhex(answer["device_id"])
        self.username = answer["username"]
        self.access_token = answer["access_token"]
        self.refresh_token = answer["refresh_token"]


async def register(username):
    """A new user and its first device."""
    answer, body = await call("POST", "/v1/register", {
        "username": username, "display_name": username.title(),
        "password": PASSWORD, "device_name": "first",
    })
    expect(f"{username} registers: status ({body})", answer.status, 201)
    expect("answers with tokens are not stored",
           answer.headers["Cache-Control"], "no-store")
    return Account(body)


async def log_in(username):
    """A further device of that user."""
    answer, body = await call("POST", "/v1/login", {
        "username": username, "password": PASSWORD, "device_name": "second",
    })
    expect(f"{username} logs in: status ({body})", answer.status, 200)
    return Account(body)


async def refused(what, status, code, method, path, body, **headers):
    """A call that must be refused with that status and code."""
    answer, said = await call(method, path, body, **headers)
    expect(f"{what}: status ({said})", answer.status, status)
    expect(f"{what}: code", said["code"], code)
