# SPDX-License-Identifier: Apache-2.0
"""What is in the wheel and what it pulls in, as a CycloneDX 1.6 document: the same bytes from the same tree and lock.

The packages are those that an empty environment has after the wheel was installed without extras and with the versions of
the lock; a test holds the two against each other. Names, licences and requirements come from the packages' own metadata.
Files of packages have many hashes, one for each platform: they stand in the lock. The wheel's own stands here.
"""

from __future__ import annotations

import email
import importlib.metadata
import json
import uuid
import zipfile
from datetime import UTC, datetime
from email.message import Message
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from packaging.requirements import Requirement

from orchestrator.errors import KdoError
from orchestrator.packaging import dist
from orchestrator.packaging.lock import FILE, Pin, canonical, read
from orchestrator.packaging.tree import moment

#: Where the packages are wanted: requirements can differ by Python and platform, the document must not differ by who makes it.
WHERE: Final = {
    "python_version": "3.11", "python_full_version": "3.11.0", "implementation_name": "cpython", "implementation_version": "3.11.0",
    "platform_python_implementation": "CPython", "sys_platform": "linux", "os_name": "posix", "platform_system": "Linux",
    "platform_machine": "x86_64", "platform_release": "", "platform_version": "", "extra": "",
}  # fmt: skip
# What old metadata says by trove classifier; "BSD License" is several, so it stays a name.
_CLASSIFIERS: Final = {
    "Apache Software License": "Apache-2.0",
    "GNU General Public License v3 or later (GPLv3+)": "GPL-3.0-or-later",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
}
_NAMESPACE: Final = uuid.UUID("6f8f2b5e-6d0c-5c3e-9a63-0d6f1c0b7a11")


def build(top: Path, folder: Path) -> list[Path]:
    """Build wheel and sdist into ``folder`` and put the wheel's document beside them. Raises :class:`KdoError`."""
    made = dist.build(top, folder)
    wheel = next(p for p in made if p.suffix == ".whl")
    pins = read((top / "tests" / FILE).read_text(encoding="utf-8"))
    target = folder / f"{wheel.name.split('-py3-')[0]}.cdx.json"
    target.write_text(json.dumps(document(wheel, pins, moment(top)), indent=2) + "\n", encoding="utf-8")
    return [*made, target]


def document(wheel: Path, pins: dict[str, Pin], seconds: int) -> dict[str, Any]:
    """The document about ``wheel``. Raises :class:`KdoError` where this environment is not as the lock has it."""
    data = wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        ours = email.message_from_bytes(archive.read(name))
    digest = sha256(data).hexdigest()
    main = {**_component(ours, "application"), "hashes": [{"alg": "SHA-256", "content": digest}]}
    found = {canonical(ours["Name"]): (main, _wanted(ours.get_all("Requires-Dist") or []))}
    pending = list(found[canonical(ours["Name"])][1])
    while pending:
        package = pending.pop()
        if package in found:
            continue
        metadata = _installed(package, pins)
        found[package] = (_component(metadata, "library"), _wanted(metadata.get_all("Requires-Dist") or []))
        pending += found[package][1]
    references = {package: component["bom-ref"] for package, (component, _) in found.items()}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, digest + ''.join(sorted(references.values())))}",
        "version": 1,
        "metadata": {
            "timestamp": datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lifecycles": [{"phase": "build"}],
            "component": main,
            "properties": [{"name": f"kdump-orchestrator:{k}", "value": WHERE[k]} for k in ("python_version", "sys_platform", "platform_machine")],
        },
        "components": [found[p][0] for p in sorted(found) if found[p][0] is not main],
        "dependencies": [{"ref": references[p], "dependsOn": sorted(references[d] for d in found[p][1])} for p in sorted(found)],
    }  # fmt: skip


def _wanted(requirements: list[str]) -> list[str]:
    """Canonical names of what has to be there at :data:`WHERE`, without extras."""
    parsed = [Requirement(text) for text in requirements]
    return sorted({canonical(r.name) for r in parsed if r.marker is None or r.marker.evaluate(WHERE)})


def _installed(package: str, pins: dict[str, Pin]) -> Message:
    try:
        metadata = email.message_from_string(importlib.metadata.distribution(package).read_text("METADATA") or "")
        version = metadata["Version"]
    except importlib.metadata.PackageNotFoundError:
        version = None
    wanted = pins[package].version if package in pins else None
    if version is None or version != wanted:
        why = f"the lock has {wanted or 'none'}, this environment {version or 'none'}"
        raise KdoError(f"{package} is not as locked", why=why, fix="make .venv/.ready")
    return metadata


def _component(metadata: Message, kind: str) -> dict[str, Any]:
    name, version = metadata["Name"], metadata["Version"]
    purl = f"pkg:pypi/{canonical(name)}@{version}"
    return {
        "type": kind,
        "bom-ref": purl,
        "name": name,
        "version": version,
        "description": metadata["Summary"] or "",
        "licenses": _licences(metadata),
        "purl": purl,
    }


def _licences(metadata: Message) -> list[dict[str, Any]]:
    """As the package declares them: an SPDX identifier or expression where there is one, else its own words."""
    said = metadata["License-Expression"]
    if said:
        plain = not set(said) & set(" ()")
        return [{"license": {"id": said, "acknowledgement": "declared"}}] if plain else [{"expression": said, "acknowledgement": "declared"}]  # fmt: skip
    classifiers = [c.rpartition(" :: ")[2] for c in metadata.get_all("Classifier") or [] if c.startswith("License :: ")]
    known = [{"id": _CLASSIFIERS[c]} if c in _CLASSIFIERS else {"name": c} for c in classifiers]
    if not known:
        known = [{"name": (metadata["License"] or "unknown").splitlines()[0][:100]}]
    return [{"license": {**one, "acknowledgement": "declared"}} for one in known]
