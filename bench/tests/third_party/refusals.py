"""What the server must refuse, each with the code that the protocol names."""

import secrets
import time

import websockets

from accounts import call, healthy, log_in, refused, register
from checks import Failure, expect, expect_that, run, step
from conversations_pb2 import ConversationKind
from device import Device
from envelope_pb2 import ClientFrame
from links import NativeLink, WebSocketLink, varint
from session import Refused, Session, code_name, hello, pause

# Limits, as in docs/limits.md.
HELLO_FRAME_BYTES_MAX = 4 * 1024
FRAME_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 16 * 1024
# Messages until a rate of 20 a second, burst 100, must have been met, by a
# client that sends them faster than 40 a second; a slower one goes on.
FLOOD_MAX = 400
FLOOD_RATE = 40
FLOOD_SLOW_MAX = 2000
# How each way in ends when the server closed it in good order.
LINKS = ((WebSocketLink, 1000), (NativeLink, 0))


async def http(ada):
    """Accounts: names, passwords, tokens, kinds of content."""
    taken = {"username": " ADA ", "display_name": "Another",
             "password": "long enough", "device_name": "first"}
    path = "/v1/register"
    await refused("a taken name", 409, "ERROR_ALREADY_EXISTS",
                  "POST", path, taken)
    await refused("a name of two characters", 400, "ERROR_INVALID_ARGUMENT",
                  "POST", path, {**taken, "username": "ab"})
    await refused("a short password", 400, "ERROR_INVALID_ARGUMENT",
                  "POST", path,
                  {**taken, "username": "new", "password": "1234567"})
    answer, _ = await call("POST", path, "a=b", Content_Type="text/plain")
    expect("other content than JSON", answer.status, 415)
    for username in "ada", "nobody":
        await refused(f"a wrong password for {username}", 401,
                      "ERROR_UNAUTHENTICATED", "POST", "/v1/login",
                      {"username": username, "password": "a wrong one",
                       "device_name": "first"})
    answer, _ = await call("GET", "/v1/health/ready")
    expect("ready", answer.status, 200)
    await refresh(ada)


async def refresh(account):
    """A refresh token is good once; its answer may be asked for again."""
    async def ask(token, status=200):
        answer, body = await call("POST", "/v1/refresh",
                                  {"refresh_token": token})
        expect(f"refresh: status ({body})", answer.status, status)
        return body

    first = account.refresh_token
    second = (await ask(first))["refresh_token"]
    again = (await ask(first))["refresh_token"]
    expect("the answer that was lost", again, second)
    account.refresh_token = (await ask(second))["refresh_token"]
    await ask(first, status=401)


async def hellos(ada):
    """First frames that open nothing."""
    token = ada.access_token
    head, claims, signature = token.split(".")
    forged = f"{head}.{claims}.{signature[:-8]}AAAAAAAA"
    older = ClientFrame.FromString(
        hello(access_token=token).SerializeToString())
    older.hello.version_min, older.hello.version_max = 0, 0
    newer = ClientFrame.FromString(older.SerializeToString())
    newer.hello.version_min, newer.hello.version_max = 77, 78
    # Reason, code, and the bytes of the frame.
    cases = {
        "a forged token": ("UNAUTHENTICATED", "ERROR_UNAUTHENTICATED",
                           hello(access_token=forged)),
        "a made up resume token": (
            "UNAUTHENTICATED", "ERROR_UNAUTHENTICATED",
            hello(resume_token=secrets.token_bytes(80))),
        "no proof": ("UNAUTHENTICATED", "ERROR_UNAUTHENTICATED", hello()),
        "older versions": ("PROTOCOL_ERROR", "ERROR_VERSION_UNSUPPORTED",
                           older),
        "newer versions": ("PROTOCOL_ERROR", "ERROR_VERSION_UNSUPPORTED",
                           newer),
        "something else first": ("PROTOCOL_ERROR", "ERROR_HELLO_EXPECTED",
                                 ClientFrame(request_id=1, ping={})),
        "no protobuf": ("PROTOCOL_ERROR", "ERROR_MALFORMED_FRAME",
                        b"\xff\xff\xff\xff"),
    }
    for link, end in LINKS:
        for name, (reason, code, frame) in cases.items():
            step(f"hello by {link.__name__}: {name}")
            session = Session(await link.open())
            await session.link.send(
                frame if isinstance(frame, bytes)
                else frame.SerializeToString())
            await session.is_closed(reason, code, end)


async def sizes(ada):
    """Frames that are too large, before and after Ready."""
    large = b"\0" * (HELLO_FRAME_BYTES_MAX + 1)
    larger = b"\0" * (FRAME_BYTES_MAX + 1)
    for link, end in (WebSocketLink, 1009), (NativeLink, 0):
        step(f"a large first frame by {link.__name__}")
        session = Session(await link.open())
        await session.link.send(large)
        await session.is_closed(
            "PROTOCOL_ERROR", "ERROR_FRAME_TOO_LARGE", end)
        step(f"a large frame by {link.__name__}")
        session = await Session.open(
            await link.open(), access_token=ada.access_token)
        expect("the maximum in Ready", session.ready.frame_bytes_max,
               FRAME_BYTES_MAX)
        await session.link.send(larger)
        await session.is_closed(
            "PROTOCOL_ERROR", "ERROR_FRAME_TOO_LARGE", end)
    step("a length that is not in its shortest form")
    session = Session(await NativeLink.open())
    await session.link.send_raw(b"\x81\x00")
    await session.is_closed("PROTOCOL_ERROR", "ERROR_MALFORMED_FRAME", 0)
    step("a length alone, beyond every maximum")
    session = Session(await NativeLink.open())
    await session.link.send_raw(varint(1 << 20))
    await session.is_closed("PROTOCOL_ERROR", "ERROR_FRAME_TOO_LARGE", 0)


async def web_socket(ada):
    """What only a WebSocket can get wrong."""
    step("a text message")
    session = await Session.open(
        await WebSocketLink.open(), access_token=ada.access_token)
    await session.link.send("text")
    await session.until("it is closed", lambda: session.ended)
    expect("the close code", await session.link.end(), 1003)
    step("another page's origin")
    try:
        await WebSocketLink.open(origin="https://elsewhere.example")
    except websockets.InvalidStatusCode as error:
        expect("the status", error.status_code, 403)
    else:
        raise Failure("a WebSocket of another page was opened")
    step("a ping of RFC 6455")
    link = await WebSocketLink.open()
    await (await link.socket.ping())
    await link.close()


async def frames(ada):
    """Frames of an open session that end it."""
    cases = {
        "a second hello": ("ERROR_UNEXPECTED_FRAME",
                           hello(access_token=ada.access_token)),
        "a request without an id": ("ERROR_MALFORMED_FRAME",
                                    ClientFrame(history={})),
    }
    for link, end in LINKS:
        for name, (code, frame) in cases.items():
            step(f"{name} by {link.__name__}")
            session = await Session.open(
                await link.open(), access_token=ada.access_token)
            await session.link.send(frame.SerializeToString())
            await session.is_closed("PROTOCOL_ERROR", code, end)


async def requests(ada, bob, carol):
    """Requests that are refused alone: the session goes on."""
    page = Device("ada's page", ada, native=False, handles=True)
    phone = Device("carol's phone", carol, native=True, handles=True)
    for device in page, phone:
        await device.connect()
    made = await page.session.get("conversation", create={
        "kind": ConversationKind.DIRECT, "member_ids": [bob.user]})
    room = page.session.conversation_of(made)
    tick = await page.send(room, "for bob alone")
    named = {"conversation_id": room}
    step("somebody else's conversation")
    for body in (
        {"send": phone.message(room, "let me in", 1)},
        {"history": named}, {"get": named},
        {"delivered": {**named, "seq": 1}}, {"read": {**named, "seq": 1}},
    ):
        await phone.session.refused("ERROR_NOT_A_MEMBER", **body)
    step("what does not exist")
    unknown = {"conversation_id": secrets.token_bytes(16)}
    await page.session.refused("ERROR_NOT_FOUND", history=unknown)
    await page.session.refused("ERROR_NOT_FOUND", create={
        "kind": ConversationKind.DIRECT,
        "member_ids": [secrets.token_bytes(16)]})
    await page.session.refused(
        "ERROR_UNKNOWN_HANDLE", history={"handle": 999})
    step("fields out of range")
    sent = page.message(room, "x", page.next_message_id())
    for code, fields in (
        ("ERROR_BODY_TOO_LARGE", {"body": b"x" * (BODY_BYTES_MAX + 1)}),
        ("ERROR_INVALID_ARGUMENT", {"body": b""}),
        ("ERROR_INVALID_ARGUMENT", {"client_message_id": 0}),
        ("ERROR_INVALID_ARGUMENT", {"kind": 16}),
    ):
        await page.session.refused(code, send={**sent, **fields})
    await page.session.refused("ERROR_INVALID_ARGUMENT", history={
        **named, "before_seq": 5, "after_seq": 1})
    step("a frame of the future")
    await future(page.session)
    step("after all that")
    log = await page.history(room)
    expect("nothing of it was stored", sorted(log), [1, tick.seq])
    largest = "x" * BODY_BYTES_MAX
    tick = await page.send(room, largest)
    expect("the largest body", len((await page.history(room))[tick.seq].body),
           BODY_BYTES_MAX)
    await phone.session.get("pong", ping={})
    step("a flood")
    await flood(page, room)
    for device in page, phone:
        await device.session.leave()


async def future(session):
    """An unknown request is refused, an unknown field is passed over."""
    # Field 1000, of type bytes, which no ClientFrame has.
    unknown = varint(1000 << 3 | 2) + b"\x03new"
    for request, known, kind in (
        (7001, {}, "error"), (7002, {"ping": {}}, "pong"),
    ):
        frame = ClientFrame(request_id=request, **known)
        frame.MergeFromString(unknown)
        answer = await session.answer_to(frame, "a frame of the future")
        expect("the answer", answer.WhichOneof("body"), kind)
        if kind == "error":
            expect("the code", code_name(answer.error),
                   "ERROR_INVALID_ARGUMENT")


async def flood(device, room):
    """Too many messages of one user: refused, and accepted after the time."""
    in_flight_max = device.session.ready.requests_in_flight_max
    begun_s = time.monotonic()
    for sent in range(0, FLOOD_SLOW_MAX, in_flight_max):
        lasted_s = time.monotonic() - begun_s
        if sent >= FLOOD_MAX and sent >= FLOOD_RATE * lasted_s:
            raise Failure(f"{sent} messages, and none was throttled")
        sends = [device.message(room, "flood", device.next_message_id())
                 for _ in range(in_flight_max)]
        begun = [await device.session.begin(send=send) for send in sends]
        answers = [await device.session.answer(future, "a send")
                   for future in begun]
        throttled = [(send, answer.error)
                     for send, answer in zip(sends, answers)
                     if answer.HasField("error")]
        if throttled:
            break
    else:
        raise Failure(f"{FLOOD_SLOW_MAX} messages, too slow to be throttled")
    send, error = throttled[0]
    expect("the code", code_name(error), "ERROR_THROTTLED")
    expect("may be repeated", error.retryable, True)
    expect_that("whose limit", error.detail.startswith("user:"), error)
    head = max(await device.history(room))
    await pause(error.retry_after_ms)
    accepted = await device.session.get("accepted", send=send)
    expect("it took no place before", accepted.seq, head + 1)


async def log_out(carol):
    """A device that is logged out has no token that opens anything."""
    for link, end in LINKS:
        step(f"log out by {link.__name__}")
        device = await log_in("carol")
        session = await Session.open(
            await link.open(), access_token=device.access_token)
        resume_token = session.ready.resume_token
        await session.get("done", log_out={})
        await session.is_closed("LOGGED_OUT", "ERROR_UNSPECIFIED", end)
        for proof in ({"resume_token": resume_token},
                      {"access_token": device.access_token}):
            try:
                await Session.open(await link.open(), **proof)
            except Refused as refusal:
                expect("the code", code_name(refusal.closing),
                       "ERROR_UNAUTHENTICATED")
            else:
                raise Failure(f"a logged out device came in by {proof}")
        await refused("its refresh token", 401, "ERROR_UNAUTHENTICATED",
                      "POST", "/v1/refresh",
                      {"refresh_token": device.refresh_token})
    session = await Session.open(
        await NativeLink.open(), access_token=carol.access_token)
    await session.leave()


async def main():
    """All of it."""
    step("HTTPS")
    await healthy(200)
    ada, bob, carol = [
        await register(name) for name in ("ada", "bob", "carol")]
    await http(ada)
    await hellos(ada)
    await sizes(ada)
    await web_socket(ada)
    await frames(ada)
    await requests(ada, bob, carol)
    await log_out(carol)


run(main)
