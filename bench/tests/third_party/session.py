"""One connection that says hello: requests, answers, events, handles."""

import asyncio

from checks import WAIT_S, Failure, expect, expect_that, within
from envelope_pb2 import ClientFrame, ServerFrame
from errors_pb2 import ErrorCode

VERSION = 1
FEATURE_HANDLES = 1


class Refused(Failure):
    """A hello that was answered with SessionClosing."""

    def __init__(self, closing):
        super().__init__(f"hello was refused: {closing}")
        self.closing = closing


def hello(features=0, **proof):
    """The first frame. The proof is access_token or resume_token."""
    return ClientFrame(request_id=1, hello={
        "version_min": VERSION, "version_max": VERSION, "features": features,
        "client": "third party", **proof,
    })


def code_name(error):
    """The name of the code of an Error or a SessionClosing."""
    return ErrorCode.Name(error.code)


async def pause(wait_ms):
    """Wait as long as a refusal said."""
    await asyncio.sleep(wait_ms / 1000)


class Session:
    """From hello to the last frame."""

    def __init__(self, link, hear=None):
        self.link = link
        self.ready = None
        # The SessionClosing, once it came.
        self.closing = None
        self.ended = False
        # Refusals after which ask() asks again, after the time they name.
        self.passing = {"ERROR_THROTTLED"}
        self._hear = hear
        self._error = None
        self._request_id = 1
        self._waiting = {}
        # Handles and ids, both ways.
        self._ids = {}
        self._handles = {}
        self._news = asyncio.Event()
        self._reader = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, link, hear=None, features=0, **proof):
        """Say hello, and be let in."""
        session = cls(link, hear)
        frame = hello(features, **proof)
        try:
            answer = await session.answer_to(frame, "hello")
        except Failure:
            if session.closing:
                raise Refused(session.closing) from None
            raise
        expect("hello is answered with", answer.WhichOneof("body"), "ready")
        session.ready = answer.ready
        expect("the version", session.ready.version, VERSION)
        expect("the features", session.ready.features, features)
        expect_that("a resume token", session.ready.resume_token, answer)
        return session

    async def _read(self):
        try:
            while (data := await self.link.receive()) is not None:
                self._take(ServerFrame.FromString(data))
        except Exception as error:
            self._error = error
        self.ended = True
        for future in self._waiting.values():
            future.cancel()
        self._wake()

    def _why(self):
        return self._error or self.closing or self.link.said()

    def _wake(self):
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _take(self, frame):
        body = frame.WhichOneof("body")
        expect("nothing comes after SessionClosing", self.closing, None)
        for binding in frame.bindings:
            expect("handles count upwards", binding.handle,
                   len(self._ids) + 1)
            expect_that("one handle an id",
                        binding.conversation_id not in self._handles, frame)
            self._ids[binding.handle] = binding.conversation_id
            self._handles[binding.conversation_id] = binding.handle
        if body == "closing":
            expect("SessionClosing answers nothing", frame.request_id, 0)
            self.closing = frame.closing
        elif frame.request_id:
            future = self._waiting.pop(frame.request_id, None)
            expect_that("one answer a request", future is not None, frame)
            future.set_result(frame)
        else:
            expect_that("nothing else", self._hear, frame)
            self._hear(self, frame)
        self._wake()

    def conversation_of(self, message):
        """The id of the conversation that a message of the server names."""
        expect_that("either handle or conversation_id",
                    bool(message.handle) != bool(message.conversation_id),
                    message)
        if message.handle:
            expect_that("a handle after its binding",
                        message.handle in self._ids, message)
            return self._ids[message.handle]
        return message.conversation_id

    def name_of(self, conversation):
        """The fields that name a conversation, by its handle if it has one."""
        handle = self._handles.get(conversation)
        return ({"handle": handle} if handle
                else {"conversation_id": conversation})

    async def begin(self, **body):
        """Send a request; the future is its answer."""
        self._request_id += 1
        frame = ClientFrame(request_id=self._request_id, **body)
        future = asyncio.get_running_loop().create_future()
        self._waiting[frame.request_id] = future
        await self.link.send(frame.SerializeToString())
        return future

    async def answer_to(self, frame, what):
        """Send this frame as it is; its answer."""
        future = asyncio.get_running_loop().create_future()
        self._waiting[frame.request_id] = future
        await self.link.send(frame.SerializeToString())
        return await self.answer(future, what)

    async def answer(self, future, what):
        """Wait for the answer of a request that was begun."""
        try:
            return await within(f"an answer to {what}", future)
        except asyncio.CancelledError:
            raise Failure(f"{what} was not answered, but the connection "
                          f"ended: {self._why()}") from None

    async def ask(self, **body):
        """A request and its answer. Refusals that pass are waited out."""
        what = " ".join(body)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_S
        while True:
            frame = await self.answer(await self.begin(**body), what)
            error = frame.error
            if not (frame.HasField("error")
                    and code_name(error) in self.passing):
                return frame
            expect_that(f"{what} may come again",
                        error.retryable and error.retry_after_ms, error)
            expect_that(f"{what} is not refused for {WAIT_S} s",
                        loop.time() < deadline, error)
            await pause(error.retry_after_ms)

    async def get(self, kind, **body):
        """Ask, and expect that kind of answer."""
        frame = await self.ask(**body)
        what = f"the answer to {' '.join(body)} ({frame})"
        expect(what, frame.WhichOneof("body"), kind)
        return getattr(frame, kind)

    async def refused(self, code, retryable=False, **body):
        """Ask, and expect to be refused with that code."""
        error = await self.get("error", **body)
        expect(f"the code that refuses {body}", code_name(error), code)
        expect("whether to try again", error.retryable, retryable)
        expect_that("a detail for people", error.detail, error)
        return error

    async def until(self, what, holds):
        """Wait until it holds, looking again after each frame."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT_S
        while True:
            news = self._news
            if self._error is not None:
                raise self._error
            if holds():
                return
            if self.ended:
                raise Failure(f"{what}: the connection ended: {self._why()}")
            await within(what, news.wait(), max(0, deadline - loop.time()))

    async def is_closed(self, reason, code, end):
        """The server closes with that reason, code and end of the link."""
        await self.until("the server closes", lambda: self.ended)
        expect_that("SessionClosing is the last frame",
                    self.closing is not None, self.closing)
        names = self.closing.Reason
        expect("the reason", names.Name(self.closing.reason), reason)
        expect("the code", code_name(self.closing), code)
        expect("how the link ended", await self.link.end(), end)

    async def leave(self):
        """Close from our side."""
        await self.link.close()
        await within("the connection ends", self._reader)
        if self._error is not None:
            raise self._error
