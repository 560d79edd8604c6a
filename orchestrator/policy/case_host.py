# SPDX-License-Identifier: Apache-2.0
"""The host of a case: described in a few words, or recorded facts with single values changed."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Union, get_args, get_origin

import msgspec

from orchestrator.crashkernel import parse_size
from orchestrator.documents.base import to_builtins
from orchestrator.documents.facts import (
    BlockDevice,
    Boot,
    Distribution,
    Facts,
    GrubConfig,
    Inventory,
    Kernel,
    Kexec,
    Memory,
    ProbeInfo,
    Service,
    Target,
)
from orchestrator.documents.platform import Platform
from orchestrator.errors import InvalidInput, did_you_mean
from orchestrator.knowledge.load import Knowledge
from orchestrator.platforms import tables

_KERNEL = "6.12.0"


@dataclass(frozen=True)
class Subject:
    """Whom a case is about. ``platform`` is ``None`` where it has to be concluded; ``features`` are forced answers."""

    facts: Facts
    platform: Platform | None = None
    features: Mapping[str, bool] = field(default_factory=dict)


def describe(host: Mapping[str, Any], knowledge: Knowledge) -> Subject:
    """A host from its description: seen as root, with kexec, the distribution's kdump package there, nothing configured."""
    hypervisor, distribution = host["hypervisor"], host.get("distribution", "")
    family = host.get("family") or tables.load().family_ids.get(distribution, "unknown")
    stack, release = host.get("boot_stack", "grub"), host.get("kernel", _KERNEL)
    platform = Platform(
        arch=host["arch"],
        hypervisor=hypervisor,
        role=host.get("role", "host" if hypervisor == "none" else "guest"),
        variant=host.get("variant", ""),
        product=host.get("product", ""),
        cloud=host.get("cloud", ""),
        confidential=host.get("confidential", "none"),
        paravisor=host.get("paravisor", False),
        confidential_host=host.get("confidential_host", ""),
        ambiguous=host.get("ambiguous", False),
        family=family,
        distribution=distribution,
        distribution_version=host.get("distribution_version", ""),
        boot_stack=stack,
    )
    known = knowledge.families.get(family, {})
    service = str(known.get("service", "")).removesuffix(".service")
    arguments = f"root=/dev/vda1 ro {host.get('cmdline', '')}".strip()
    ram = parse_size(host.get("memory", "16G"))
    facts = Facts(
        host=host.get("host", "host"),
        probe=ProbeInfo(euid=0),
        inventory=Inventory(groups=list(host.get("groups", [])), tags=list(host.get("tags", []))),
        kernel=Kernel(
            release=release,
            cmdline=f"BOOT_IMAGE=/boot/vmlinuz-{release} {arguments}",
            symbols=list(host["symbols"]) if "symbols" in host else None,
            post_notifiers="Y" if host.get("post_notifiers") == "on" else "N",
            modules=list(host.get("drivers", [])),
            efi=host["firmware"] == "efi" if "firmware" in host else None,
        ),
        kexec=Kexec(
            supported=True,
            crash_loaded=host.get("crash_loaded", False),
            crash_size=parse_size(host.get("crash_size", "0")),
        ),
        memory=Memory(total=ram, system_ram=ram, page_size=parse_size(host.get("page_size", "4k")), cpus=host.get("cpus", 4)),
        targets=_targets(host, ram),
        distribution=Distribution(id=distribution, version_id=host.get("distribution_version", "")),
        boot=Boot(grub=_grub(release, arguments) if stack == "grub" else GrubConfig()),
        packages=dict.fromkeys(known.get("packages", []), "0"),
        services={service: Service(load="loaded", enabled="enabled", active="active")} if service else {},
    )  # fmt: skip
    return Subject(facts, platform, dict(host.get("features", {})))


def _targets(host: Mapping[str, Any], ram: int) -> list[Target]:
    """Where dumps go, as far as the description says something about it."""
    if not {"target_room", "target_encrypted"} & host.keys():
        return []
    free = int(host["target_room"] * ram) if "target_room" in host else None
    chain = [BlockDevice(name="dm-0", dm_kind="CRYPT")] if host.get("target_encrypted") else []
    return [Target(path="/var/crash", exists=True, free=free, chain=chain)]


def _grub(release: str, arguments: str) -> GrubConfig:
    kernel = f"linux /boot/vmlinuz-{release} {arguments}"
    return GrubConfig(path="/boot/grub/grub.cfg", lines=["menuentry 'Linux' {", kernel, "}"])


def change(facts: Facts, changes: Mapping[str, Any]) -> Facts:
    """The facts with values put in at dotted paths. Raises :class:`InvalidInput` (its ``id`` is the path at fault)."""
    data = to_builtins(facts)
    for path, value in changes.items():
        try:
            data = _put(Facts, data, path, value)
            facts = msgspec.convert(data, type=Facts)
        except msgspec.ValidationError as e:
            raise InvalidInput(f"{path} cannot have that value", why=str(e), fix=_SEE, id=path) from None
        except InvalidInput as e:
            p = e.problems[0]
            raise InvalidInput(f"{path}: {p.what}", why=p.why, fix=p.fix, id=path) from None
    return facts


_SEE = "see schemas/facts.schema.json"


def _plain(kind: Any) -> Any:
    """``X`` of ``X | None``."""
    if get_origin(kind) in (types.UnionType, Union):
        return next(k for k in get_args(kind) if k is not type(None))
    return kind


def _put(kind: Any, node: Any, rest: str, value: Any) -> Any:
    """``value`` at the path ``rest`` below a node of that type. Returns the node, which is made where it was ``null``."""
    kind = _plain(kind)
    if not rest:
        return value
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        fields = {f.name: f.type for f in msgspec.structs.fields(kind)}
        head, _, tail = rest.partition(".")
        if head not in fields:
            fix = did_you_mean(head, fields) or f"known here: {', '.join(fields)}"
            raise InvalidInput(f"there is no fact {head[:80]!r}", why=f"{kind.__name__} has no such field", fix=fix)
        node = {} if node is None else node
        node[head] = _put(fields[head], node.get(head), tail, value)
        return node
    if get_origin(kind) is dict:
        node = {} if node is None else node
        inner = get_args(kind)[1]
        key = _key(inner, node, rest)
        node[key] = _put(inner, node.get(key), rest[len(key) + 1 :], value)
        return node
    if get_origin(kind) is list:
        head, _, tail = rest.partition(".")
        if not head.isdigit() or node is None or int(head) >= len(node):
            why = f"a number from 0 to {len(node or []) - 1} was expected" if node else "the list is empty"
            raise InvalidInput(f"there is no entry {head[:80]!r}", why=why, fix="set the whole list")
        node[int(head)] = _put(get_args(kind)[0], node[int(head)], tail, value)
        return node
    raise InvalidInput(f"there is nothing below it: {rest[:80]!r}", why="it is a single value", fix=_SEE)


def _key(inner: Any, node: Mapping[str, Any], rest: str) -> str:
    """The key at the beginning of ``rest``: names of files and sysctls hold dots themselves."""
    if not (isinstance(inner, type) and issubclass(inner, msgspec.Struct)):
        return rest
    head, dot, tail = rest.rpartition(".")
    if dot and tail in inner.__struct_fields__:
        return head
    return max((k for k in node if rest.startswith(f"{k}.")), key=len, default=rest)
