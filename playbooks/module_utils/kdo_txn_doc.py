# SPDX-License-Identifier: Apache-2.0
"""The change document: what a plan may ask of a host, and nothing else.

A document is refused as a whole before anything is looked at on the host. Paths, packages, units, variables and
commands come from tables in the code; the document only picks from them.
"""

import json
import posixpath
import re

try:
    from ansible.module_utils import kdo_txn_kit as kit
    from ansible.module_utils import kdo_txn_text as text_rules
    from ansible.module_utils.kdo_arguments import ARGUMENT, known
    from ansible.module_utils.kdo_conf import ConfError, check_setting
    from ansible.module_utils.kdo_edit import EditError, check_pair
    from ansible.module_utils.kdo_txn_files import NOTIFIERS, READABLE, Refused, knob_path, rule
except ImportError:
    import kdo_txn_kit as kit
    import kdo_txn_text as text_rules
    from kdo_arguments import ARGUMENT, known
    from kdo_conf import ConfError, check_setting
    from kdo_edit import EditError, check_pair
    from kdo_txn_files import NOTIFIERS, READABLE, Refused, knob_path, rule

FORMAT = "1.0"
MAX_DOCUMENT = 1024 * 1024
MAX_STEPS = 64
MODES = ("0600", "0640", "0644")

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,60}[a-z0-9]\Z")
_SHA = re.compile(r"[0-9a-f]{64}\Z")
_RELEASE = re.compile(r"[0-9][A-Za-z0-9.+~_-]{0,100}\Z")
_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,100}\Z")
_WORD = re.compile(r"[A-Za-z0-9][^\s]{0,1000}\Z")


def _bad(where, why):
    raise Refused("the change document is not valid", "%s: %s" % (where, why))


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
    operations, check = rule(check_path(step["path"], where))
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


def _pairs(step, where, member):
    """The pairs of an editing step, each key once."""
    pairs = step[member]
    if not isinstance(pairs, list) or not pairs or len(pairs) > 64:
        _bad(where, "%s is not a list of pairs" % member)
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
            _bad(where, "%s is not a list of pairs" % member)
    if len({pair[0] for pair in pairs}) != len(pairs):
        _bad(where, "a variable is assigned more than once")
    return pairs


def _edit_step(step, where, *members):
    _keys(step, where, ("op", "path", "before_sha256") + members, ("after_sha256",))
    _file_step(step, where)
    _sha(step["before_sha256"], where + ".before_sha256", ("from-package",))
    _sha(step.get("after_sha256"), where + ".after_sha256", (None,))


def _assign(step, where):
    _edit_step(step, where, "assignments")
    for name, value in _pairs(step, where, "assignments"):
        try:
            check_pair(name, value)
        except EditError as error:
            _bad(where, str(error))
        why = text_rules.assignment(step["path"], name, value)
        if why or len(value) > 4000:
            _bad(where, why or "the value for %s is too long" % name)


def _settings(step, where):
    _edit_step(step, where, "settings")
    for name, value in _pairs(step, where, "settings"):
        try:
            check_setting(name, value)
        except ConfError as error:
            _bad(where, str(error))
        why = text_rules.assignment(step["path"], name, "" if value is None else value)
        if (why and value is not None) or len(value or "") > 4000:
            _bad(where, why or "the value for %s is too long" % name)


def _arguments(step, where):
    _edit_step(step, where, "ensure", "remove")
    if not known(step["path"]):
        _bad(where, "no arguments can be edited in this file")
    _words(step, where)


def _words(step, where):
    if not step["ensure"] and not step["remove"]:
        _bad(where, "it changes no argument")
    for member, pattern in (("ensure", ARGUMENT), ("remove", _KEY)):
        if not isinstance(step[member], list) or len(step[member]) > 64:
            _bad(where, "%s is not a list" % member)
        for word in step[member]:
            _string(word, "%s.%s" % (where, member), pattern, 512)


def _remove(step, where):
    _keys(step, where, ("op", "path", "before_sha256"))
    _file_step(step, where)
    _sha(step["before_sha256"], where + ".before_sha256")


def _install(step, where, family):
    _keys(step, where, ("op", "names"))
    if not isinstance(step["names"], list) or not step["names"] or len(step["names"]) > len(family.packages):
        _bad(where, "names is not a list of packages")
    for name in step["names"]:
        if not isinstance(name, str) or not _PACKAGE.match(name) or name not in family.packages:
            _bad(where, "a package is not one that a plan may install (%s)" % ", ".join(family.packages))


def _action(step, where):
    name = step.get("name")
    action = kit.ACTIONS.get(name) if isinstance(name, str) else None
    if action is None:
        _bad(where, "the action is not known")
    _keys(step, where, ("op", "name") + action.members)
    if "release" in action.members:
        _string(step["release"], where + ".release", _RELEASE)
        if ".." in step["release"]:
            _bad(where, "it does not have the form that is allowed")
    if "ensure" in action.members:
        _words(step, where)
    why = action.check(step)
    if why:
        _bad(where, why)


def _service(step, where, family):
    _keys(step, where, ("op", "unit"))
    if not isinstance(step["unit"], str) or step["unit"] not in family.units:
        _bad(where, "the unit is not one that a plan may enable, disable or mask")


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
    if not rule(path)[0] and path not in READABLE and not knob_path(path):
        _bad(where, "this path is not one that a plan may look at")
    if kind == "value" and not path.startswith(("/sys/", "/proc/")):
        _bad(where, "only kernel values can be compared in the clear")


_STEPS = {
    "write": _write,
    "assign": _assign,
    "settings": _settings,
    "arguments": _arguments,
    "remove": _remove,
    "action": _action,
    "knob": _knob,
}
_FAMILY_STEPS = dict(dict.fromkeys(kit.SERVICES, _service), **{"package-install": _install})


def _small(change):
    try:
        size = len(json.dumps(change))
    except (TypeError, ValueError, RecursionError):
        _bad("the document", "it is not JSON")
    if size > MAX_DOCUMENT:
        _bad("the document", "it is larger than %d bytes" % MAX_DOCUMENT)


def validate(change):
    """Return nothing, or raise Refused. The document is not changed."""
    _keys(change, "the document", ("format_version", "id", "steps"), ("title", "expect", "confirms", "family"))
    _small(change)
    if change["format_version"] != FORMAT:
        _bad("format_version", "this host side understands %s only" % FORMAT)
    _sha(change["id"], "id")
    if "confirms" in change:
        _sha(change["confirms"], "confirms")
    _string(change.get("title", ""), "title")
    family = change.get("family", "debian")
    if not isinstance(family, str) or family not in kit.FAMILIES:
        _bad("family", "it is not one of %s" % ", ".join(sorted(kit.FAMILIES)))
    steps, expect = change["steps"], change.get("expect", [])
    if not isinstance(steps, list) or not steps or len(steps) > MAX_STEPS:
        _bad("steps", "it is not a list of 1 to %d steps" % MAX_STEPS)
    if not isinstance(expect, list) or len(expect) > MAX_STEPS:
        _bad("expect", "it is not a list of at most %d" % MAX_STEPS)
    _every_step(steps, kit.FAMILIES[family])
    names = [step.get("name") for step in steps]
    tries = [name for name in names if name in kit.TRIALS]
    edits = any(step["op"] == "arguments" for step in steps)
    if len(tries) > 1 or (tries and (edits or set(names) & set(kit.DEFAULTS))):
        _bad("steps", "arguments are tried once, or made the default, not both")
    for index, item in enumerate(expect):
        _expect(item, "expect[%d]" % index)


def _every_step(steps, family):
    seen, coming = set(), set()
    for index, step in enumerate(steps):
        where = "steps[%d]" % index
        operation = step.get("op") if isinstance(step, dict) else None
        if not isinstance(operation, str) or operation not in set(_STEPS) | set(_FAMILY_STEPS):
            _bad(where, "the operation is not known")
        if "path" in step:
            check_path(step["path"], where)
            if step["path"] in seen:
                _bad(where, "an earlier step has the same path")
            seen.add(step["path"])
        if operation in _FAMILY_STEPS:
            _FAMILY_STEPS[operation](step, where, family)
        else:
            _STEPS[operation](step, where)
        coming.update(step.get("names", ()))
        if step.get("before_sha256") == "from-package" and not coming & set(family.brings.get(step["path"], ())):
            _bad(where, "no earlier step installs the package that brings the file")


def what(step):
    """One line for people. Never the content of a file, nor the value of a variable."""
    operation = step["op"]
    if operation == "package-install":
        return "install " + ", ".join(step["names"])
    if operation == "assign":
        return "set %s in %s" % (", ".join(pair[0] for pair in step["assignments"]), step["path"])
    if operation == "settings":
        return "set %s in %s" % (", ".join(pair[0] for pair in step["settings"]), step["path"])
    if operation == "arguments":
        return "set boot arguments in %s" % step["path"]
    if operation == "knob":
        return "set %s to %s" % (step["path"], step["value"])
    if operation in kit.SERVICES:
        return "%s %s" % (operation[8:], step["unit"])
    if operation == "action":
        return kit.ACTIONS[step["name"]].what(step)
    return "%s %s" % (operation, step["path"])
