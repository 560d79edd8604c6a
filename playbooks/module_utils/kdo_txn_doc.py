# SPDX-License-Identifier: Apache-2.0
"""The change document: what a plan may ask of a host, and nothing else.

A document is refused as a whole before anything is looked at on the host. Paths, packages, units, variables and
commands come from tables in the code; the document only picks from them.
"""

import json
import posixpath
import re

try:
    from ansible.module_utils import kdo_txn_text as text_rules
    from ansible.module_utils.kdo_edit import EditError, check_pair
    from ansible.module_utils.kdo_txn_menu import ARGUMENT
except ImportError:
    import kdo_txn_text as text_rules
    from kdo_edit import EditError, check_pair
    from kdo_txn_menu import ARGUMENT

FORMAT = "1.0"
MAX_DOCUMENT = 1024 * 1024
MAX_STEPS = 64

KDUMP_DEFAULTS = "/etc/default/kdump-tools"
GRUB_SNIPPET = "/etc/default/grub.d/zz-kdump-orchestrator.cfg"
SYSCTL_SNIPPET = "/etc/sysctl.d/60-kdump-orchestrator.conf"
GRUB_CONFIG = "/boot/grub/grub.cfg"
GRUB_CUSTOM = "/boot/grub/custom.cfg"
NOTIFIERS = "/sys/module/kernel/parameters/crash_kexec_post_notifiers"

# path → (operations, check of a written text)
FILES = {
    KDUMP_DEFAULTS: (("assign",), None),
    GRUB_SNIPPET: (("write", "remove"), text_rules.grub_text),
    SYSCTL_SNIPPET: (("write", "remove"), text_rules.sysctl_text),
}
# What an expectation may read besides the files above.
READABLE = (
    GRUB_CONFIG,
    NOTIFIERS,
    "/sys/kernel/kexec_crash_loaded",
    "/sys/kernel/kexec_crash_size",
    "/sys/kernel/kexec/crash_loaded",
    "/sys/kernel/kexec/crash_size",
)
PACKAGES = (
    "kdump-tools",
    "kexec-tools",
    "makedumpfile",
    "linux-crashdump",
    "crash",
    "initramfs-tools",
    "initramfs-tools-core",
    "busybox",
    "file",
)
UNITS = ("kdump-tools.service",)
MODES = ("0600", "0640", "0644")

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}[a-z0-9]\Z")
_SHA = re.compile(r"[0-9a-f]{64}\Z")
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+~_-]{0,100}\Z")
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}\Z")
_WORD = re.compile(r"[A-Za-z0-9][^\s]{0,1000}\Z")


class Refused(Exception):
    """Nothing was done. ``what`` happened, ``why``, and how to ``fix`` it."""

    def __init__(self, what, why, fix="make a new plan with this version of the tool"):
        Exception.__init__(self, "%s: %s" % (what, why))
        self.what, self.why, self.fix = what, why, fix


def _bad(where, why):
    raise Refused("the change document is not valid", "%s: %s" % (where, why))


def knob_path(path):
    if path == NOTIFIERS:
        return True
    match = re.match(r"/proc/sys/kernel/([a-z_]+)\Z", path)
    return bool(match) and text_rules.sysctl_allowed(match.group(1))


def check_path(path, where):
    if (
        not isinstance(path, str)
        or not path.startswith("/")
        or posixpath.normpath(path) != path
        or path.startswith("//")
    ):
        _bad(where, "the path is not an absolute, normalised path")
    if not path.isprintable() or ".." in path.split("/"):
        _bad(where, "the path holds something that no path of ours holds")
    return path


def _keys(item, where, required, optional=()):
    if not isinstance(item, dict):
        _bad(where, "it is not an object")
    for key in item:
        if not isinstance(key, str) or (key not in required and key not in optional):
            _bad(where, "it has a member that is not known")
    for key in required:
        if key not in item:
            _bad(where, "%s is missing" % key)


def _string(value, where, pattern=None, longest=300):
    if not isinstance(value, str) or len(value) > longest or (value and not value.isprintable()):
        _bad(where, "it is not a short printable text")
    if pattern is not None and not pattern.match(value):
        _bad(where, "it does not have the form that is allowed")
    return value


def _sha(value, where, words=()):
    if value is None and None in words:
        return
    if not isinstance(value, str) or (value not in words and not _SHA.match(value)):
        _bad(where, "it is not a SHA-256")


def _file_step(step, where):
    operations, check = FILES.get(check_path(step["path"], where), ((), None))
    if step["op"] not in operations:
        _bad(where, "'%s' is not allowed for this path" % step["op"])
    return check


def _write(step, where):
    _keys(step, where, ("op", "path", "text", "before_sha256"), ("mode",))
    check = _file_step(step, where)
    if not isinstance(step["text"], str):
        _bad(where, "text is not text")
    why = text_rules.plain_text(step["text"]) or check(step["text"])
    if why:
        _bad(where, "the text for %s is refused: %s" % (step["path"], why))
    if step.get("mode", "0644") not in MODES:
        _bad(where, "mode is not one of %s" % ", ".join(MODES))
    _sha(step["before_sha256"], where + ".before_sha256", (None,))


def _assign(step, where):
    _keys(step, where, ("op", "path", "assignments", "before_sha256"), ("after_sha256",))
    _file_step(step, where)
    pairs = step["assignments"]
    if not isinstance(pairs, list) or not pairs or len(pairs) > 64:
        _bad(where, "assignments is not a list of pairs")
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            _bad(where, "assignments is not a list of pairs")
        try:
            check_pair(pair[0], pair[1])
        except EditError as error:
            _bad(where, str(error))
        why = text_rules.assignment(pair[0], pair[1])
        if why or len(pair[1]) > 4000:
            _bad(where, why or "the value for %s is too long" % pair[0])
    if len({pair[0] for pair in pairs}) != len(pairs):
        _bad(where, "a variable is assigned more than once")
    _sha(step["before_sha256"], where + ".before_sha256", ("from-package",))
    _sha(step.get("after_sha256"), where + ".after_sha256", (None,))


def _remove(step, where):
    _keys(step, where, ("op", "path", "before_sha256"))
    _file_step(step, where)
    _sha(step["before_sha256"], where + ".before_sha256")


def _install(step, where):
    _keys(step, where, ("op", "names"))
    if not isinstance(step["names"], list) or not step["names"] or len(step["names"]) > len(PACKAGES):
        _bad(where, "names is not a list of packages")
    for name in step["names"]:
        if not isinstance(name, str) or not _PACKAGE.match(name) or name not in PACKAGES:
            _bad(where, "a package is not one that a plan may install (%s)" % ", ".join(PACKAGES))


def _action(step, where):
    name = step.get("name")
    if name == "kdump-build-image":
        _keys(step, where, ("op", "name", "release"))
        _string(step["release"], where + ".release", _RELEASE)
        if ".." in step["release"]:
            _bad(where, "it does not have the form that is allowed")
    elif name in ("grub-regenerate", "kdump-reload", "kdump-unload"):
        _keys(step, where, ("op", "name"))
    elif name == "grub-trial":
        _keys(step, where, ("op", "name", "ensure", "remove"))
        if not step["ensure"] and not step["remove"]:
            _bad(where, "it changes no argument")
        for key, pattern in (("ensure", ARGUMENT), ("remove", _KEY)):
            if not isinstance(step[key], list) or len(step[key]) > 64:
                _bad(where, "%s is not a list" % key)
            for word in step[key]:
                _string(word, "%s.%s" % (where, key), pattern, 512)
    else:
        _bad(where, "the action is not known")


def _service(step, where):
    _keys(step, where, ("op", "unit"))
    if step["unit"] not in UNITS:
        _bad(where, "the unit is not one that a plan may enable or disable")


def _knob(step, where):
    _keys(step, where, ("op", "path", "value", "before"))
    if not knob_path(check_path(step["path"], where)):
        _bad(where, "this kernel setting is not one that a plan may change")
    for key in ("value", "before"):
        value = _string(step[key], "%s.%s" % (where, key), None, 20)
        if step["path"] == NOTIFIERS:
            if value not in ("Y", "N", "0", "1"):
                _bad(where, "%s is not Y or N" % key)
        elif not text_rules.number(value):
            _bad(where, "%s is not a number" % key)


def _expect(item, where):
    kind = item.get("kind") if isinstance(item, dict) else None
    if kind == "words":
        _keys(item, where, ("kind", "path", "line_prefix"), ("once", "present", "absent"))
        _string(item["line_prefix"], where + ".line_prefix", re.compile(r"[a-z0-9]{1,20}\Z"))
        once = item.get("once", {})
        if not isinstance(once, dict) or len(once) > 64:
            _bad(where, "once is not an object")
        words = list(once) + list(once.values())
        for key in ("present", "absent"):
            if not isinstance(item.get(key, []), list) or len(item.get(key, [])) > 64:
                _bad(where, "%s is not a list" % key)
            words += item.get(key, [])
        for word in words:
            _string(word, where, _WORD, 1000)
    elif kind == "value":
        _keys(item, where, ("kind", "path", "value"))
        _string(item["value"], where + ".value", None, 100)
    elif kind == "sha256":
        _keys(item, where, ("kind", "path", "value"))
        _sha(item["value"], where + ".value")
    else:
        _bad(where, "the kind of expectation is not known")
    path = check_path(item["path"], where)
    if path not in FILES and path not in READABLE and not knob_path(path):
        _bad(where, "this path is not one that a plan may look at")
    if kind == "value" and not path.startswith(("/sys/", "/proc/")):
        _bad(where, "only kernel values can be compared in the clear")


_STEPS = {
    "package-install": _install,
    "write": _write,
    "assign": _assign,
    "remove": _remove,
    "action": _action,
    "service-enable": _service,
    "service-disable": _service,
    "knob": _knob,
}


def _small(change):
    try:
        size = len(json.dumps(change))
    except (TypeError, ValueError, RecursionError):
        _bad("the document", "it is not JSON")
    if size > MAX_DOCUMENT:
        _bad("the document", "it is larger than %d bytes" % MAX_DOCUMENT)


def validate(change):
    """Return nothing, or raise Refused. The document is not changed."""
    _keys(change, "the document", ("format_version", "id", "steps"), ("title", "expect", "confirms"))
    _small(change)
    if change["format_version"] != FORMAT:
        _bad("format_version", "this host side understands %s only" % FORMAT)
    _sha(change["id"], "id")
    if "confirms" in change:
        _sha(change["confirms"], "confirms")
    _string(change.get("title", ""), "title")
    steps, expect = change["steps"], change.get("expect", [])
    if not isinstance(steps, list) or not steps or len(steps) > MAX_STEPS:
        _bad("steps", "it is not a list of 1 to %d steps" % MAX_STEPS)
    if not isinstance(expect, list) or len(expect) > MAX_STEPS:
        _bad("expect", "it is not a list of at most %d" % MAX_STEPS)
    seen, packages = set(), set()
    for index, step in enumerate(steps):
        where = "steps[%d]" % index
        operation = step.get("op") if isinstance(step, dict) else None
        if not isinstance(operation, str) or operation not in _STEPS:
            _bad(where, "the operation is not known")
        if "path" in step:
            check_path(step["path"], where)
            if step["path"] in seen:
                _bad(where, "an earlier step has the same path")
            seen.add(step["path"])
        _STEPS[operation](step, where)
        packages.update(step.get("names", ()))
        if (
            step.get("before_sha256") == "from-package"
            and "kdump-tools" not in packages
            and "linux-crashdump" not in packages
        ):
            _bad(where, "no earlier step installs the package that brings the file")
    names = [step.get("name") for step in steps]
    if names.count("grub-trial") > 1 or ("grub-trial" in names and "grub-regenerate" in names):
        _bad("steps", "arguments are tried once, or made the default, not both")
    for index, item in enumerate(expect):
        _expect(item, "expect[%d]" % index)


def what(step):
    """One line for people. Never the content of a file, nor the value of a variable."""
    operation = step["op"]
    if operation == "package-install":
        return "install " + ", ".join(step["names"])
    if operation == "assign":
        return "set %s in %s" % (", ".join(pair[0] for pair in step["assignments"]), step["path"])
    if operation == "knob":
        return "set %s to %s" % (step["path"], step["value"])
    if operation in ("service-enable", "service-disable"):
        return "%s %s" % (operation[8:], step["unit"])
    if step.get("name") == "grub-trial":
        return "make a boot entry for one trial"
    if operation == "action":
        return " ".join([step["name"]] + ([step["release"]] if "release" in step else []))
    return "%s %s" % (operation, step["path"])
