"""What a run says: the step it is at, and what it expected there.

Every wait of a run has this deadline; a run that fails names the step, what
was looked at, what was expected and what came instead.
"""

import asyncio
import sys
import traceback

# Longest wait for anything, in seconds: a synced write on a busy machine.
WAIT_S = 30

_step = "start"


class Failure(Exception):
    """Something is not as docs/protocol.md says."""


def step(name):
    """Name what is tried now."""
    global _step
    _step = name
    print(f"step: {name}", flush=True)


def expect(what, got, expected):
    """Fail unless the two are equal."""
    if got != expected:
        raise Failure(f"{what}\n  expected: {expected!r}\n  got:      {got!r}")


def expect_that(what, holds, got):
    """Fail unless it holds; `got` is shown."""
    if not holds:
        raise Failure(f"{what}\n  got: {got!r}")


async def within(what, awaitable, seconds=WAIT_S):
    """Await it, but not for ever."""
    try:
        return await asyncio.wait_for(awaitable, seconds)
    except asyncio.TimeoutError:
        raise Failure(
            f"{what}\n  nothing came within {seconds:.0f} s") from None


def run(main):
    """Run a whole script; the exit code tells how it went."""
    try:
        asyncio.run(main())
    except Failure as failure:
        print(f"FAILED at step \"{_step}\": {failure}", flush=True)
        sys.exit(1)
    except Exception:
        print(f"BROKE at step \"{_step}\":", flush=True)
        traceback.print_exc(file=sys.stdout)
        sys.exit(1)
    print("passed", flush=True)
