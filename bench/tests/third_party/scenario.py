"""The end-to-end scenario: two users with two devices each, one of either
kind, a direct conversation and a group, and servers that are killed.
"""

import asyncio

from accounts import healthy, log_in, register
from checks import expect, expect_that, run, step
from conversations_pb2 import ConversationKind
from device import Device
from messages_pb2 import EntryKind
from server import SERVERS, kill, start

# Messages each device sends while the others send, too. Two devices of a user
# stay within the user's burst in the first conversation, and not in the next.
BURST = 30
# Messages that the absent device misses, and their size in bytes: more than
# the PAGE_BYTES_MAX of one page of a sync.
MISSED = 60
MISSED_BYTES = 1500
# Syncs until what was missed is there, and the seconds between two of them.
SYNCS_MAX = 200
SYNC_S = 0.1


class Cast:
    """Ada has ordinal 0, Bob 1; each at a page and at a native client."""

    async def register(self):
        """Everybody, and the four devices."""
        self.ada, self.bob, self.carol = [
            await register(name) for name in ("ada", "bob", "carol")]
        ada_too, bob_too = await log_in("ada"), await log_in("bob")
        expect("a log in is a device of the same user",
               (ada_too.user, ada_too.device != self.ada.device),
               (self.ada.user, True))
        self.devices = [
            Device("ada's page", self.ada, native=False, handles=True),
            Device("bob's phone", self.bob, native=True, handles=True),
            Device("ada's phone", ada_too, native=True, handles=False),
            Device("bob's page", bob_too, native=False, handles=False),
        ]
        for device in self.devices:
            await device.connect()


async def conversations(cast):
    """A direct one and a group; creating them again gives the same ones."""
    page, phone = cast.devices[:2]

    async def create(device, **fields):
        made = await device.session.get("conversation", create=fields)
        return device.session.conversation_of(made), made

    direct, made = await create(
        page, kind=ConversationKind.DIRECT, member_ids=[cast.bob.user])
    again, seen = await create(
        phone, kind=ConversationKind.DIRECT, member_ids=[cast.ada.user])
    expect("both sides open the same conversation", again, direct)
    expect("the members", [member.user_id for member in made.members],
           [cast.ada.user, cast.bob.user])
    expect("own ordinals", (made.own_ordinal, seen.own_ordinal), (0, 1))
    expect("entry 1 is the server's", (made.head_seq, made.last.kind),
           (1, EntryKind.CREATED))
    fields = {
        "kind": ConversationKind.GROUP, "title": "three ☕",
        "member_ids": [cast.bob.user, cast.carol.user], "creation_id": 7,
    }
    group, made = await create(page, **fields)
    again, seen = await create(page, **fields)
    expect("creating twice gives the same group",
           (again, seen.head_seq), (group, made.head_seq))
    expect("its title", seen.title, "three ☕")
    expect("its members", len(seen.members), 3)
    return direct, group


async def both_ways(cast, direct):
    """One message each way, pushed to every other device."""
    for text, sender in (("from the page", 0), ("from the phone", 1)):
        tick = await cast.devices[sender].send(direct, text)
        for index, device in enumerate(cast.devices):
            if index != sender:
                expect(f"{device.name} hears",
                       await device.hears(direct, tick.seq), text)
                expect("the sender", device.logs[direct][tick.seq].sender,
                       sender)


async def all_at_once(cast, conversation):
    """Everybody sends at once; one order without gaps is everywhere."""
    ticks = await asyncio.gather(*(
        device.send_burst(conversation, [
            f"{device.name} says {number}" for number in range(BURST)])
        for device in cast.devices))
    logs = []
    for device in cast.devices:
        await device.sync()
        logs.append(await device.history(conversation))
        expect(f"{device.name} sees the order that others see",
               logs[-1], logs[0])
    log = logs[0]
    expect("there are no gaps", sorted(log), list(range(1, len(log) + 1)))
    times = [log[seq].time_ms for seq in sorted(log)]
    expect("time does not fall", times, sorted(times))
    for tick in sum(ticks, []):
        found = log[tick.seq].time_ms, log[tick.seq].body.decode()
        expect(f"entry {tick.seq}", found, (tick.time_ms, tick.text))
    bodies = [found.body for found in log.values()]
    for tick in sum(ticks, []):
        expect(f"how often there is \"{tick.text}\"",
               bodies.count(tick.text.encode()), 1)


async def repeats(cast, conversation):
    """A repeated send gets its first answer, and nothing is stored."""
    for device in cast.devices[:2]:
        message = device.next_message_id()
        first = await device.send(conversation, "once", message)
        again = await device.send(conversation, "and again", message)
        expect(f"{device.name}: the answer to a repeat",
               again[:2], first[:2])
        log = await device.history(conversation)
        expect("the repeat is not stored", max(log), first.seq)
        expect("the first body stays", log[first.seq].body, b"once")


async def in_order_or_not_at_all(cast, conversation):
    """A send whose predecessor is missing waits for it."""
    device = cast.devices[1]
    first, second = device.next_message_id(), device.next_message_id()
    await device.session.refused(
        "ERROR_PREDECESSOR_MISSING", retryable=True,
        send=device.message(conversation, "second", second, first))
    one = await device.send(conversation, "first", first)
    two = await device.send(conversation, "second", second, first)
    expect("both, in order", two.seq, one.seq + 1)


async def receipts(cast, direct):
    """What Bob's phone stores and reads is told to everybody else."""
    page, phone, ada_too, bob_too = cast.devices
    await page.send(direct, "read by him")
    head = (await page.send(direct, "not read by him")).seq
    await phone.hears(direct, head)
    others = page, ada_too, bob_too
    await phone.acknowledge("delivered", direct, head)
    for device in others:
        await device.hears_receipt(direct, 1, (head, 0))
    await phone.acknowledge("read", direct, head - 1)
    for device in others:
        await device.hears_receipt(direct, 1, (head, head - 1))
    # Cumulative: an older one changes nothing.
    await phone.acknowledge("read", direct, 1)
    got = await phone.session.get(
        "conversation", get=phone.session.name_of(direct))
    expect("cursors and unread",
           (got.delivered_up_to, got.read_up_to, got.unread),
           (head, head - 1, 1))


async def pages(cast, direct, group):
    """History both ways, and the list, in pages."""
    phone = cast.devices[1]
    log = await phone.history(direct)
    expect("by small pages", await phone.history(direct, limit=7), log)
    expect("what comes after entry 1", await phone.history_after(direct, 1),
           sorted(log)[1:])
    expect("what comes after the head",
           await phone.history_after(direct, max(log)), [])
    token, listed = b"", []
    while True:
        page = await phone.session.get(
            "conversation_page", list={"limit": 1, "page_token": token})
        listed += [phone.session.conversation_of(found)
                   for found in page.conversations]
        token = page.next
        if not token:
            break
    expect("the list, newest activity first", listed, [direct, group])


async def catch_up(device, conversation, seq):
    """Sync until that entry is there: (new entries, pages).

    The home of the user's sessions hears of the newest a moment later.
    """
    new, pages_read = await device.sync()
    for _ in range(SYNCS_MAX):
        if seq in device.logs[conversation]:
            break
        await asyncio.sleep(SYNC_S)
        more, more_pages = await device.sync()
        new, pages_read = new + more, pages_read + more_pages
    return new, pages_read


async def away_and_back(cast, direct):
    """A device that was away resumes, and syncs all that it missed."""
    for away in cast.devices[1], cast.devices[3]:
        await away.sync()
        head = max(await away.history(direct))
        await away.acknowledge("delivered", direct, head)
        await away.session.leave()
        texts = [f"{number:04}".ljust(MISSED_BYTES, ".")
                 for number in range(MISSED)]
        ticks = await cast.devices[0].send_burst(direct, texts)
        ready = await away.connect()
        expect_that("Ready says that something was missed",
                    ready.feed_version != away.version, ready)
        new, pages_read = await catch_up(away, direct, ticks[-1].seq)
        # One that was pushed before a sync brought it is not new in that.
        pushed = [seq for seq in away.pushed.get(direct, ()) if seq > head]
        expect_that(f"{away.name}: {MISSED} new entries",
                    new <= MISSED <= new + len(pushed), (new, pushed))
        expect_that("several pages", pages_read > 1, pages_read)
        log = away.logs[direct]
        expect("no gap after the sync", sorted(log),
               list(range(1, head + MISSED + 1)))
        expect("what was missed",
               [log[tick.seq].body.decode() for tick in ticks], texts)
        expect("a second sync brings nothing", await away.sync(), (0, 1))


async def a_server_dies(cast, direct, group, life):
    """Killed and started again: all is there, once, and lives on."""
    before = [await cast.devices[0].history(conversation)
              for conversation in (direct, group)]
    message = cast.devices[0].next_message_id()
    first = await cast.devices[0].send(direct, "before", message)
    later = await life(cast, direct)
    again = await cast.devices[0].send(direct, "once more", message)
    expect("the first answer, after the restart", again[:2], first[:2])
    expect("the places of what came later", [tick.seq for tick in later],
           list(range(first.seq + 1, first.seq + 1 + len(later))))
    for device in cast.devices:
        log = await device.history(direct)
        for tick in first, *later:
            expect("its body", log.pop(tick.seq).body, tick.text.encode())
        expect("the direct conversation", log, before[0])
        expect("the group", await device.history(group), before[1])
    await both_ways(cast, direct)


async def without_gateway(cast, direct):
    """Sessions end, and are resumed once it is back."""
    await kill("gateway")
    for device in cast.devices:
        await device.session.until(
            f"{device.name} is cut off",
            lambda device=device: device.session.ended)
    await start("gateway")
    for device in cast.devices:
        await device.connect()
    # Its own home is all that a session has asked for.
    await healthy(200)
    return []


async def without_storage(cast, direct):
    """Sessions stay. What is refused meanwhile is repeated: its ticks."""
    told = [device.told_to_sync for device in cast.devices]
    await kill("storage")
    await healthy(503)
    sends = []
    for device in cast.devices:
        sends.append((device, f"{device.name}, meanwhile",
                      device.next_message_id()))
        await device.session.refused(
            "ERROR_UNAVAILABLE", retryable=True,
            send=device.message(direct, *sends[-1][1:]))
    await start("storage")
    await healthy(200)
    for device, times in zip(cast.devices, told):
        # One of the gateway's links may be later than the others.
        device.session.passing.add("ERROR_UNAVAILABLE")
        await device.session.until(
            f"{device.name} is told to sync",
            lambda device=device, times=times: device.told_to_sync > times)
        await device.sync()
    return [await device.send(direct, text, message)
            for device, text, message in sends]


# What is done without each kind of server.
LIVES = {"gateway": without_gateway, "storage": without_storage}


async def main():
    """All of it."""
    step("register by HTTPS, connect by both ways")
    await healthy(200)
    cast = Cast()
    await cast.register()
    step("create conversations")
    direct, group = await conversations(cast)
    step("a message each way")
    await both_ways(cast, direct)
    step("all send at once")
    await all_at_once(cast, direct)
    await all_at_once(cast, group)
    step("repeated sends")
    await repeats(cast, direct)
    step("a missing predecessor")
    await in_order_or_not_at_all(cast, direct)
    step("receipts")
    await receipts(cast, direct)
    step("history and list in pages")
    await pages(cast, direct, group)
    step("away and back")
    await away_and_back(cast, direct)
    for server in SERVERS:
        step(f"the {server} is killed and started again")
        await a_server_dies(cast, direct, group, LIVES[server])
    step("leave")
    for device in cast.devices:
        await device.session.leave()


run(main)
