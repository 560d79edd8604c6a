# SPDX-License-Identifier: Apache-2.0
"""The probe: what one host says of itself, raw. It reads, and draws no conclusions; it writes nothing.

``collect()`` makes the document of ``orchestrator/documents/facts.py`` from the running system (root ``/``) or from a
tree of files (any other root). What files cannot hold is taken from ``.kdo/signals.json`` in that tree, if it is there.
"""

import json
import os
import platform

try:
    from ansible.module_utils.kdo_probe_kernel import kernel, kexec, memory
    from ansible.module_utils.kdo_probe_mounts import targets as dump_targets
    from ansible.module_utils.kdo_probe_platform import signals
    from ansible.module_utils.kdo_probe_reader import Reader, clean, whole
    from ansible.module_utils.kdo_probe_redact import Redactor
    from ansible.module_utils.kdo_probe_system import boot, distribution, files, packages, services
    from ansible.module_utils.kdo_probe_targets import device_targets, is_path, ssh
    from ansible.module_utils.kdo_probe_udev import Devices, choose_source
except ImportError:
    from kdo_probe_kernel import kernel, kexec, memory
    from kdo_probe_mounts import targets as dump_targets
    from kdo_probe_platform import signals
    from kdo_probe_reader import Reader, clean, whole
    from kdo_probe_redact import Redactor
    from kdo_probe_system import boot, distribution, files, packages, services
    from kdo_probe_targets import device_targets, is_path, ssh
    from kdo_probe_udev import Devices, choose_source

VERSION = "1"
FORMAT_VERSION = "1.0"
SIGNALS = "/.kdo/signals.json"
MAX_DOCUMENT = 1000000  # bytes of JSON
MAX_STRING = 128 << 10
MAX_ITEMS = 5000


def _said(reader):
    """What a record says of things that files cannot hold."""
    if reader.live:
        return {}
    text = reader.read_text(SIGNALS, 4 << 20, record=False)
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as e:
        reader.note(SIGNALS, "not JSON: %s" % clean(e, 100))
        return {}
    if not isinstance(value, dict):
        reader.note(SIGNALS, "not a JSON object")
        return {}
    return value


def _tidy(value):
    """The same value with every string and list capped, and nothing that UTF-8 cannot say."""
    if isinstance(value, str):
        return value[:MAX_STRING].encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {_tidy(k): _tidy(v) for k, v in list(value.items())[:MAX_ITEMS]}
    if isinstance(value, list):
        return [_tidy(v) for v in value[:MAX_ITEMS]]
    return value


def _fit(document):
    """Leave the longest texts out until the document is small enough."""
    size = len(json.dumps(document))
    by_size = sorted(document["files"], key=lambda p: (-len(document["files"][p].get("text") or ""), p))
    for path in by_size:
        if size <= MAX_DOCUMENT:
            return document
        fact = document["files"][path]
        if fact.get("text"):
            size -= len(json.dumps(fact["text"]))
            fact.update({"text": None, "redacted": 0, "error": "left out: the document is too large"})
    grub = document["boot"]["grub"]
    if size > MAX_DOCUMENT and grub.get("lines"):
        size -= len(json.dumps(grub["lines"]))
        document["probe"]["unseen"].append({"what": grub["path"], "why": "left out: the document is too large"})
        grub["lines"] = []
    if size > MAX_DOCUMENT:
        document["files"] = {}
        document["probe"]["unseen"].append({"what": "files", "why": "left out: the document is too large"})
    return document


def _texts(values):
    return [str(v) for v in values or [] if isinstance(v, (str, int))]


def probe(reader, host="", interest=None, targets=(), inventory=None, udev="auto"):
    """The facts document, read through ``reader``; also the devices that were looked at."""
    interest = interest or {}
    inventory = inventory or {}
    redactor = Redactor(interest.get("unsafe_keys", ""))
    if redactor.broken:
        reader.note("unsafe_keys", "not a regular expression, the built-in names are used: " + redactor.broken)
    said = _said(reader)
    source = choose_source(reader, udev, said)
    devices = Devices(source, reader, said)
    seen = signals(reader, interest, devices, redactor, said)
    sizes, crash_regions = memory(reader, said)
    installed, manager, available = packages(reader, interest, said)
    words = _texts(targets)
    places = dump_targets(reader, devices, [word for word in words if is_path(word)], said)
    places += device_targets(reader, devices, words, said)
    for place in places:
        place["source"] = redactor.words(place.get("source", ""))
    document = {
        "format_version": FORMAT_VERSION,
        "host": clean(host, 255),
        "signals": seen,
        "kernel": kernel(reader, interest, seen["machine"], redactor, said),
        "kexec": kexec(reader, crash_regions, redactor),
        "memory": sizes,
        "targets": places,
        "network": devices.network(),
        "ssh": ssh(reader, words),
        "distribution": distribution(reader),
        "boot": boot(reader, interest, redactor, said),
        "files": files(reader, interest, redactor),
        "packages": installed,
        "package_manager": manager,
        "available": available,
        "services": services(reader, interest.get("services", []), said),
        "inventory": {"groups": _texts(inventory.get("groups")), "tags": _texts(inventory.get("tags"))},
        "probe": {
            "version": VERSION,
            "root": clean(reader.root, 1024),
            "euid": os.geteuid() if reader.live else whole(said.get("euid")),
            "python": platform.python_version(),
            "udev_source": source.name,
            "unseen": reader.unseen,
        },
    }
    return _fit(_tidy(document)), devices


def collect(root="/", host="", interest=None, targets=(), inventory=None, udev="auto", live=None):
    """The facts document as plain data. ``live`` tells whether the running system may be asked (default: root is ``/``)."""
    return probe(Reader(root, live), host, interest, targets, inventory, udev)[0]
