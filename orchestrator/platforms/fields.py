# SPDX-License-Identifier: Apache-2.0
"""The names under which rows of the platform table see the facts.

A field is one text of the facts (``SCALARS``), a list of texts (``LISTS``), or a key of a dictionary (``DICTIONARIES``,
written ``dmi.sys_vendor``, ``bus.vmbus``, ``param.kvm_amd.sev_snp``). Booleans are the texts ``true`` and ``false``,
numbers are decimal text. What the probe could not see has no values.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from orchestrator.documents.facts import AcpiTable, Facts

Getter = Callable[[Facts], Sequence[str]]

#: Field → where it is in the facts. Booleans are among them.
SCALARS: Mapping[str, str] = {
    "machine": "signals.machine",
    "cpuid_source": "signals.cpuid_source",
    "lscpu_hypervisor": "signals.lscpu_hypervisor",
    "cpu_vendor": "signals.cpu_vendor",
    "cpu_platform": "signals.cpu_platform",
    "kernel_log_source": "signals.kernel_log_source",
    "smbios_vm": "signals.smbios_vm",
    "device_tree.model": "signals.device_tree.model",
    "xen.type": "signals.xen.type",
    "xen.guest_type": "signals.xen.guest_type",
    "xen.features": "signals.xen.features",
    "xen.initdomain": "signals.xen.initdomain",
    "xen.capabilities": "signals.xen.capabilities",
    "xen.version": "signals.xen.version",
    "clocksource": "signals.clocksource",
    "detect_virt.vm": "signals.detect_virt.vm",
    "detect_virt.container": "signals.detect_virt.container",
    "detect_virt.cvm": "signals.detect_virt.cvm",
    "container.pid_ns": "signals.container.pid_ns",
    "container.user_ns": "signals.container.user_ns",
    "container.manager": "signals.container.manager",
    "container.osrelease": "signals.container.osrelease",
    "kernel.release": "kernel.release",
    "kernel.cmdline": "kernel.cmdline",
    "kernel.efi": "kernel.efi",
    "distribution.id": "distribution.id",
    "distribution.name": "distribution.name",
    "distribution.variant": "distribution.variant_id",
    "distribution.ostree": "distribution.ostree",
    "boot.grub": "boot.grub.path",
}

LISTS: Mapping[str, str] = {
    "cpu_flags": "signals.cpu_flags",
    "kernel_log": "signals.kernel_log",
    "device_tree.compatible": "signals.device_tree.compatible",
    "device_tree.hypervisor": "signals.device_tree.hypervisor_compatible",
    "device_tree.nodes": "signals.device_tree.nodes",
    "sysinfo": "signals.sysinfo",
    "devices": "signals.devices",
    "clocksources": "signals.clocksources",
    "container.markers": "signals.container.markers",
    "kernel.modules": "kernel.modules",
    "boot.markers": "boot.markers",
    "boot.tools": "boot.tools",
}

#: First word of the field → the dictionary; the rest of the field is its key.
DICTIONARIES: Mapping[str, str] = {
    "dmi": "signals.dmi",
    "bus": "signals.buses",
    "param": "kernel.module_params",
    "sysctl": "kernel.sysctls",
}

#: Fields of each ACPI table.
ACPI: Mapping[str, Callable[[AcpiTable], str]] = {
    "acpi.oem_id": attrgetter("oem_id"),
    "acpi.oem_table_id": attrgetter("oem_table_id"),
    "acpi.hypervisor_id": attrgetter("hypervisor_id"),
}

#: Special fields of rows: base leaves of the hypervisor (the classifier picks one), and other leaves.
CPUID = ("cpuid", "cpuid.other")

#: What the probe notes when later messages have overwritten the first ones.
LOST_BEGINNING = "beginning of the kernel log"

#: Other fields that `getter` takes from the signals alone.
_OF_SIGNALS = ("acpi", "device_tree", "dmi")

_BOOL = {True: "true", False: "false"}


def text(value: Any) -> str:
    """A scalar of the facts as text; empty for what was not seen."""
    return _BOOL[value] if isinstance(value, bool) else (value or "")


def log_is_complete(facts: Facts) -> bool:
    """Whether the kernel log was seen from its beginning: only then does silence in it mean anything."""
    if not facts.signals.kernel_log_source:
        return False
    for unseen in facts.probe.unseen:  # noqa: SIM110  (a generator costs more than the comparisons)
        if unseen.what == LOST_BEGINNING:
            return False
    return True


def _scalar(path: str) -> Getter:
    get = attrgetter(path)

    def values(facts: Facts) -> Sequence[str]:
        found = text(get(facts))
        return (found,) if found else ()

    return values


def _list(path: str) -> Getter:
    get = attrgetter(path)
    return lambda facts: get(facts) or ()


def _key(path: str, key: str) -> Getter:
    get = attrgetter(path)

    def values(facts: Facts) -> Sequence[str]:
        found = get(facts).get(key)
        return (str(found),) if found else ()

    return values


def _file(path: str) -> Getter:
    def values(facts: Facts) -> Sequence[str]:
        file = facts.files.get(path)
        return () if file is None or file.text is None else file.text.splitlines()

    return values


def getter(name: str) -> Getter:
    """All values of a field, for conditions: any field of rows, ``dmi``, ``acpi``, ``device_tree`` (whatever there is),
    ``kernel_log.complete`` or ``file.PATH``
    (its lines). Raises ``KeyError`` for an unknown name."""
    if name in SCALARS:
        return _scalar(SCALARS[name])
    if name in LISTS:
        return _list(LISTS[name])
    if name in ACPI:
        of_table = ACPI[name]
        return lambda facts: [of_table(table) for table in facts.signals.acpi]
    if name == "acpi":
        return lambda facts: [table.table for table in facts.signals.acpi]
    if name == "kernel_log.complete":
        return lambda facts: ("yes",) if log_is_complete(facts) else ()
    if name == "device_tree":
        return lambda facts: ("present",) if facts.signals.device_tree.present else ()
    if name == "dmi":
        return lambda facts: tuple(facts.signals.dmi.values())
    first, _, key = name.partition(".")
    if key and first == "file":
        return _file(key)
    if key and first in DICTIONARIES:
        return _key(DICTIONARIES[first], key)
    raise KeyError(f"no field {name!r}")


def outside_signals(names: Iterable[str]) -> tuple[Callable[[Facts], Any], ...]:
    """Getters of all that any row or condition can see of those fields that are not in ``facts.signals``."""
    paths: list[str] = []
    others: list[Callable[[Facts], Any]] = []
    for name in sorted(names):
        path = SCALARS.get(name) or LISTS.get(name) or DICTIONARIES.get(name.partition(".")[0], "")
        if name in CPUID or name in ACPI or name in _OF_SIGNALS or path.startswith("signals."):
            continue
        if name in SCALARS or name in LISTS:
            paths.append(path)
        else:
            others.append(getter(name))
    return (attrgetter(*paths), *others) if paths else tuple(others)
