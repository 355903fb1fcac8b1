"""Processes for what users write: they are limited, used again, and replaced."""

import contextlib
import os
import signal
import time

import pytest

from emulator.evaluation import evaluator
from emulator.ministack.apigateway import allowed, templates
from emulator.ministack.door.enforcement import wildcards
from emulator.ministack.patching import within_time

BOMB = '#set($t = "abcdefghijkl")#foreach($i in [1..40])#set($t = "$t$t")#end'


def test_a_process_is_used_again_and_replaced_when_it_takes_too_much_or_is_ended() -> None:
    seen, later = [evaluator.call(os.getpid, ())], time.monotonic() + 29
    assert evaluator.call(evaluator.search, ("b(c)?", ["a", "b", "bc"])) == [[1, ""], [2, "c"]]
    assert evaluator.call(os.getpid, ()) == seen[0] != os.getpid()
    for error, reason, function, arguments, until in (
        (TimeoutError, "takes longer", evaluator.search, ("(a|aa)+$", ["a" * 99 + "!"]), None),
        (ValueError, "too much memory", templates.render, (BOMB, "{}", {}, {}, {}), later),
        (ValueError, "was ended", os._exit, (1,), None),
    ):
        with pytest.raises(error, match=reason):
            evaluator.call(function, arguments, until)
        seen.append(evaluator.call(os.getpid, ()))
    os.kill(seen[-1], signal.SIGKILL)
    os.waitid(os.P_PID, seen[-1], os.WEXITED | os.WNOWAIT)
    assert evaluator.call(templates.render, ("text", "{}", {}, {}, {})) == ["text", {}]
    assert len({*seen, evaluator.call(os.getpid, ())}) == 5
    with pytest.raises(ValueError, match="unterminated subpattern"):
        evaluator.call(evaluator.search, ("(", [""]))


def test_what_users_write_is_compiled_for_a_moment_only():
    for given in (wildcards, lambda text, _: allowed.check_integration_response({"selectionPattern": text}, {})):
        began = time.process_time()
        with pytest.raises(ValueError, match="takes longer"):
            given("(a|b)*" * 99_999, False)
        assert time.process_time() - began < 1
        given("(a|b)*", False)


def test_an_end_that_is_dropped_comes_again():
    def endless():
        with contextlib.suppress(ValueError):
            while True:
                pass
        while True:
            pass

    with pytest.raises(ValueError, match="takes longer"):
        within_time(endless)
