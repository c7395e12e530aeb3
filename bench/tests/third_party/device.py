"""What a device stores across connections, and keeps whole as we are told."""

import itertools
from collections import namedtuple

from checks import Failure, expect, expect_that, within
from links import NativeLink, WebSocketLink
from session import FEATURE_HANDLES, Refused, Session, code_name, pause

# A message as every device must see it; equal means equal.
Row = namedtuple("Row", "sender time_ms kind body")
# What the sender of a message was told.
Tick = namedtuple("Tick", "seq time_ms text")


def row(entry):
    """One entry, without its place."""
    return Row(entry.sender, entry.time_ms, entry.kind, entry.body)


class Device:
    """One device of a user, by one of the two ways in."""

    def __init__(self, name, account, native, handles):
        self.name = name
        self.account = account
        self.native = native
        self.features = FEATURE_HANDLES if handles else 0
        self.session = None
        # What it stores: entries by seq, of each conversation by id.
        self.logs = {}
        self.version = 0
        self.receipts = {}
        # Seqs that came as live events.
        self.pushed = {}
        # How often it was told to sync.
        self.told_to_sync = 0
        self._resume_token = None
        self._message_ids = itertools.count(1)

    async def connect(self):
        """Come in by the access token, or by the newest resume token."""
        proof = ({"resume_token": self._resume_token} if self._resume_token
                 else {"access_token": self.account.access_token})
        self.session = await within(
            f"{self.name} is let in", self._open(proof))
        ready = self.session.ready
        expect("the user of Ready", ready.user_id, self.account.user)
        expect("the device of Ready", ready.device_id, self.account.device)
        self._resume_token = ready.resume_token
        return ready

    async def _open(self, proof):
        """Say hello again, as told, while storage is away."""
        while True:
            link = await (NativeLink if self.native else WebSocketLink).open()
            try:
                return await Session.open(
                    link, self._hear, self.features, **proof)
            except Refused as refused:
                wait_ms = refused.closing.retry_after_ms
                if code_name(refused.closing) != "ERROR_UNAVAILABLE":
                    raise
                expect_that("a time to wait", wait_ms, refused.closing)
                await pause(wait_ms)

    def _hear(self, session, frame):
        body = frame.WhichOneof("body")
        if body == "message":
            entry = frame.message.entry
            conversation = session.conversation_of(frame.message)
            self.store(conversation, [entry])
            self.pushed.setdefault(conversation, set()).add(entry.seq)
        elif body == "receipt":
            receipt = frame.receipt
            place = session.conversation_of(receipt), receipt.member
            new = receipt.delivered_up_to, receipt.read_up_to
            old = self.receipts.get(place, (0, 0))
            self.receipts[place] = max(old[0], new[0]), max(old[1], new[1])
        elif body == "sync_needed":
            self.told_to_sync += 1
        else:
            raise Failure(f"{self.name} heard {frame}")

    def store(self, conversation, entries):
        """Keep entries; whatever is known already must be the same."""
        log = self.logs.setdefault(conversation, {})
        for entry in entries:
            known = log.setdefault(entry.seq, row(entry))
            expect(f"{self.name}: entry {entry.seq}, once more",
                   row(entry), known)

    def next_message_id(self):
        """Never the same twice, and large enough to need all its bytes."""
        return next(self._message_ids) << 40 | 0xC0FFEE

    async def send(self, conversation, text, message_id=None, predecessor=0):
        """Send one message: its tick."""
        message_id = message_id or self.next_message_id()
        accepted = await self.session.get("accepted", send=self.message(
            conversation, text, message_id, predecessor))
        return self.tick(text, accepted)

    def message(self, conversation, text, message_id, predecessor=0):
        """The fields of a SendMessage."""
        return {
            **self.session.name_of(conversation), "body": text.encode(),
            "client_message_id": message_id, "predecessor": predecessor,
        }

    def tick(self, text, accepted):
        """Where and when a message was accepted."""
        base_ms = self.session.ready.server_time_ms
        return Tick(accepted.seq, base_ms + accepted.time_delta_ms, text)

    async def send_burst(self, conversation, texts):
        """Send all, many in flight, each after the one before: the ticks.

        What is refused for now goes out again under its id, in order, after
        the time that the server names.
        """
        ids = [self.next_message_id() for _ in texts]
        todo = list(range(len(texts)))
        ticks = {}
        in_flight_max = self.session.ready.requests_in_flight_max
        while todo:
            now, todo = todo[:in_flight_max], todo[in_flight_max:]
            begun = [await self.session.begin(send=self.message(
                conversation, texts[i], ids[i], ids[i - 1] if i else 0,
            )) for i in now]
            again, wait_ms = [], 0
            for i, future in zip(now, begun):
                answer = await self.session.answer(future, f"send {i}")
                if answer.HasField("accepted"):
                    ticks[i] = self.tick(texts[i], answer.accepted)
                    continue
                error = answer.error
                expect_that(f"{self.name}: a send is refused for good",
                            error.retryable, answer)
                again.append(i)
                wait_ms = max(wait_ms, error.retry_after_ms)
            todo = again + todo
            if again:
                await pause(wait_ms)
        order = [ticks[i].seq for i in range(len(texts))]
        expect(f"{self.name}: sent in order, accepted in order",
               order, sorted(set(order)))
        return [ticks[i] for i in range(len(texts))]

    async def history(self, conversation, limit=0):
        """All entries, page by page backwards from the newest one."""
        entries, before = [], 0
        while before != 1:
            page = await self.session.get("history_page", history={
                **self.session.name_of(conversation), "before_seq": before,
                "limit": limit})
            expect("whose history", self.session.conversation_of(page),
                   conversation)
            expect_that("a page before the first entry is not empty",
                        page.entries, page)
            if limit:
                expect_that(f"{limit} entries at most",
                            len(page.entries) <= limit, len(page.entries))
            end = before or page.head_seq + 1
            expect("a page ends where the one before began",
                   [entry.seq for entry in page.entries],
                   list(range(end - len(page.entries), end)))
            entries = list(page.entries) + entries
            before = page.entries[0].seq
        self.store(conversation, entries)
        return {entry.seq: row(entry) for entry in entries}

    async def history_after(self, conversation, seq):
        """The seqs after one that is there, page by page."""
        seqs = []
        while True:
            page = await self.session.get("history_page", history={
                **self.session.name_of(conversation),
                "after_seq": seqs[-1] if seqs else seq})
            seqs += [entry.seq for entry in page.entries]
            if not page.entries or seqs[-1] == page.head_seq:
                return seqs

    async def sync(self):
        """All pages since the stored version: (new entries, pages)."""
        new, pages, cursors = 0, 0, {}
        while True:
            names = [{**self.session.name_of(conversation), "after_seq": seq}
                     for conversation, seq in cursors.items()]
            page = await self.session.get("sync_page", sync={
                "since_version": self.version, "cursors": names})
            pages += 1
            for delta in page.conversations:
                conversation = self.session.conversation_of(
                    delta.conversation)
                seqs = [entry.seq for entry in delta.entries]
                if seqs:
                    expect("entries of a page are consecutive",
                           seqs, list(range(seqs[0], seqs[-1] + 1)))
                known = self.logs.get(conversation, {})
                new += sum(seq not in known for seq in seqs)
                self.store(conversation, delta.entries)
                if delta.truncated or conversation in cursors:
                    last = seqs[-1] if seqs else cursors[conversation]
                    cursors[conversation] = last
            self.version = page.version
            if not page.more:
                return new, pages

    async def acknowledge(self, kind, conversation, seq):
        """Say `delivered` or `read` up to there."""
        await self.session.get("done", **{kind: {
            **self.session.name_of(conversation), "seq": seq}})

    async def hears(self, conversation, seq):
        """Wait until that entry was pushed; its body."""
        await self.session.until(
            f"{self.name}: a live event with seq {seq}",
            lambda: seq in self.pushed.get(conversation, ()))
        return self.logs[conversation][seq].body.decode()

    async def hears_receipt(self, conversation, member, cursors):
        """Wait until that member's cursors are there."""
        place = conversation, member
        await self.session.until(
            f"{self.name}: a receipt with {cursors}",
            lambda: self.receipts.get(place) == cursors)
