# SPDX-License-Identifier: Apache-2.0
"""What a match can ask about a host: one flat view of facts and platform.

A value of ``None`` means that it cannot be told from the facts; matching then follows three-valued logic, and a rule
applies only when its match is certainly true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.documents.facts import Facts
from orchestrator.documents.platform import Platform
from orchestrator.versions import at_least

#: One probe of a feature, as the knowledge data writes it: a mapping with exactly one of these keys.
FeatureTest = Mapping[str, Any]
Features = Mapping[str, Callable[[Facts], bool | None]]


def _word(value: str) -> str | None:
    return None if value in ("", "unknown") else value


def _symbol(f: Facts, name: str) -> bool | None:
    return None if f.kernel.symbols is None else name in f.kernel.symbols


def _config(f: Facts, name: str) -> bool | None:
    if not f.kernel.config:
        return None
    return f.kernel.config.get(name, "n") in ("y", "m")


def _module(f: Facts, name: str) -> bool | None:
    return None if f.kernel.modules is None else name in f.kernel.modules


def _sysctl(f: Facts, name: str) -> bool | None:
    return None if not f.kernel.sysctls else name in f.kernel.sysctls


def _since(f: Facts, version: str) -> bool | None:
    return at_least(f.kernel.release, version) if f.kernel.release else None


def _log(f: Facts, text: str) -> bool | None:
    if not f.signals.kernel_log_source:
        return None
    return any(text in line for line in f.signals.kernel_log) or None  # an old log may have lost the line: never "no"


def _param(f: Facts, pair: str) -> bool | None:
    name, _, value = pair.partition("=")
    have = f.kernel.module_params.get(name)
    return None if have is None else have == value


def _fadump(f: Facts, pair: str) -> bool | None:
    name, equals, value = pair.partition("=")
    return f.kexec.fadump.get(name) == value if equals else name in f.kexec.fadump


def _kexec(f: Facts, _what: str) -> bool | None:
    return f.kexec.supported


def _node(f: Facts, name: str) -> bool | None:
    return any(n == name for n in f.signals.device_tree.nodes) if f.signals.device_tree.present else None


def _device(f: Facts, path: str) -> bool | None:
    if path in f.signals.devices:
        return True
    return False if f.probe.root == "/" else None  # a tree may have been recorded without it


def _page_size(f: Facts) -> str | None:
    size = f.memory.page_size
    return f"{size >> 10}k" if size else None


def _encrypted(f: Facts) -> bool | None:
    """Whether the filesystem that dumps go to is encrypted; the policy's own target is probed first."""
    seen = [t for t in f.targets if t.exists]
    return any(d.dm_kind == "CRYPT" for t in seen for d in t.chain) if seen else None


def _room(f: Facts) -> float | None:
    """Free space where dumps go, in multiples of RAM: the smallest of all targets that were looked at."""
    ram = f.memory.system_ram or f.memory.total
    free = [t.free for t in f.targets if t.exists and t.free is not None]
    return min(free) / ram if ram and free else None


_TESTS: dict[str, Callable[[Facts, str], bool | None]] = {
    "symbol": _symbol,
    "config": _config,
    "module": _module,
    "sysctl": _sysctl,
    "since": _since,
    "log": _log,
    "param": _param,
    "fadump": _fadump,
    "kexec": _kexec,
    "node": _node,
    "device": _device,
}

TEST_KINDS = frozenset(_TESTS)


Probe = Callable[[Facts], bool | None]


def compile_feature(tests: list[FeatureTest]) -> Probe:
    """One function for a feature: the first probe that gives an answer decides; they are listed from the surest on."""
    steps = [(_TESTS[kind], argument) for test in tests for kind, argument in test.items()]

    def run(facts: Facts) -> bool | None:
        for test, argument in steps:
            answer = test(facts, argument)
            if answer is not None:
                return answer
        return None

    return run


_GETTERS: dict[str, Callable[[Facts, Platform], Any]] = {
    "arch": lambda f, p: _word(p.arch),
    "hypervisor": lambda f, p: p.hypervisor,  # "unknown" is a value that a rule may name
    "role": lambda f, p: p.role,
    "variant": lambda f, p: p.variant,
    "product": lambda f, p: p.product,
    "cloud": lambda f, p: p.cloud,
    "confidential": lambda f, p: p.confidential,
    "confidential_host": lambda f, p: p.confidential_host,
    "paravisor": lambda f, p: p.paravisor,
    "ambiguous": lambda f, p: p.ambiguous,
    "family": lambda f, p: p.family,
    "distribution": lambda f, p: _word(p.distribution),
    "distribution_version": lambda f, p: _word(p.distribution_version),
    "boot_stack": lambda f, p: p.boot_stack,
    "kernel": lambda f, p: _word(f.kernel.release),
    "memory": lambda f, p: f.memory.system_ram or f.memory.total,
    "cpus": lambda f, p: f.memory.cpus,
    "page_size": lambda f, p: _page_size(f),
    "target_encrypted": lambda f, p: _encrypted(f),
    "target_room": lambda f, p: _room(f),
    "drivers": lambda f, p: None if f.kernel.modules is None else frozenset(f.kernel.modules),
    "firmware": lambda f, p: None if f.kernel.efi is None else ("efi" if f.kernel.efi else "bios"),
    "groups": lambda f, p: frozenset(f.inventory.groups),
    "tags": lambda f, p: frozenset(f.inventory.tags),
    "host": lambda f, p: f.host,
}

FIELDS = frozenset(_GETTERS)


def getter(field: str, features: Features) -> Callable[[Facts, Platform], Any]:
    """The function behind :meth:`Context.value`, for code that asks the same fields of many hosts."""
    if field.startswith("feature:"):
        probe = features[field[8:]]
        return lambda facts, _platform: probe(facts)
    return _GETTERS[field]


class Context:
    """Values of one host, looked up when asked."""

    __slots__ = ("_features", "facts", "platform")

    def __init__(self, facts: Facts, platform: Platform, features: Features) -> None:
        self.facts = facts
        self.platform = platform
        self._features = features

    def value(self, field: str) -> Any:
        """Value of a field of :data:`FIELDS`, or of ``feature:NAME`` (true, false or ``None``)."""
        if field.startswith("feature:"):
            return self._features[field[8:]](self.facts)
        return _GETTERS[field](self.facts, self.platform)


class Cell:
    """A point of the space of platforms, for reasoning without a host: fields that are not set are ``None``."""

    __slots__ = ("values",)

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = values

    def value(self, field: str) -> Any:
        """The value that this point fixes, or ``None`` where any value is possible."""
        return self.values.get(field)


View = Context | Cell
