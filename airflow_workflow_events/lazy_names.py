"""The public names of a package, each of which loads its module on first use.

A package that imports its own modules is a cycle: a thread that imports one of them first, while another
imports the package, sees half of a module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(
    package: str, module_of: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for a package.

    Args:
        package: its name.
        module_of: for each public name the module that has it.
    """

    def load(name: str) -> Any:
        if name not in module_of:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(module_of[name]), name)
        vars(sys.modules[package])[name] = value  # the next access finds it without coming here
        return value

    return load, lambda: sorted(module_of)
