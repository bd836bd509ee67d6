"""Forking the process of the tests: the child always ends, and never goes on as a second run of the tests."""

from __future__ import annotations

import os
import signal
import warnings
from collections.abc import Callable

_PATIENCE_SECONDS = 20


def ends_in_child(work: Callable[[], object] = bool) -> bool:
    """Fork, work in the child, and return whether that ended without an error.

    Args:
        work: called in the child, which is ended after 20 s. Default: nothing.
    """
    parent = os.getpid()
    code = 1
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later: beside threads
            pid = os.fork()
        if pid == 0:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(_PATIENCE_SECONDS)
            work()
            code = 0
    finally:
        if os.getpid() != parent:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
