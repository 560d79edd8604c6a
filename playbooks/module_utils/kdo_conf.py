# SPDX-License-Identifier: Apache-2.0
"""Edit files of ``key value`` lines, such as /etc/kdump.conf of RHEL, Fedora and their kin.

Pure functions on text: the controller uses them to predict the bytes of a plan, the host side to write them, so both
come from one implementation. The grammar is the strictest that kdumpctl has had: a ``#`` begins a comment anywhere, a
key stands at most once, a key without a value is an error. What breaks it is never guessed at: `settings` and `edit`
refuse with the line number.
"""

import re

_KEY = re.compile(r"[a-z][a-z0-9_]*\Z")
_LINE = re.compile(r"(\s*)([^\s#]+)(?:([ \t]+)([^#]*?))?([ \t]*)(#.*)?\Z")
_EXAMPLE = re.compile(r"#[ \t]*([a-z][a-z0-9_]*)(?:[ \t]|\Z)")


class ConfError(Exception):
    """The text cannot be read or edited safely. ``line`` is where, counted from 1 (0: not about a line)."""

    def __init__(self, what, line=0):
        Exception.__init__(self, "line %d: %s" % (line, what) if line else what)
        self.what = what
        self.line = line


def _rows(text):
    """``(line number, match or None)`` of every line; a comment or an empty line has no match."""
    if "\0" in text:
        raise ConfError("there is a zero byte in the text", text[: text.index("\0")].count("\n") + 1)
    for number, row in enumerate(text.split("\n"), 1):
        bare = row.strip()
        yield number, row, None if not bare or bare.startswith("#") else _LINE.match(row)


def settings(text):
    """``{key: (value, line)}``. Raises ConfError for a line without a value and for a key that stands twice."""
    found = {}
    for number, _row, match in _rows(text):
        if match is None:
            continue
        key, value = match.group(2), (match.group(4) or "").strip()
        if not _KEY.match(key):
            raise ConfError("%r is not a key" % key[:40], number)
        if not value:
            raise ConfError("%s has no value" % key, number)
        if key in found:
            raise ConfError("%s stands twice; the first is line %d" % (key, found[key][1]), number)
        found[key] = (value, number)
    return found


def check_setting(key, value):
    """Raise ConfError unless this pair can stand in such a file. ``None`` as a value means: the key is not set."""
    if not _KEY.match(key):
        raise ConfError("%r is not a key" % key[:40])
    if value is None:
        return
    if not value or value != value.strip() or "#" in value or not value.isprintable():
        raise ConfError("the value for %s cannot stand in such a file" % key)


def edit(text, pairs):
    """The text with these settings, everything else as it is: a value is replaced in place, a new key comes after the
    commented example of it or at the end, and a key that is not wanted becomes a comment.
    """
    there = settings(text)
    rows = text.split("\n")
    wanted = {}
    for key, value in pairs:
        check_setting(key, value)
        if key in wanted:
            raise ConfError("%s is to be set twice" % key)
        wanted[key] = value
    after = {}  # line → new lines that follow it
    end = []
    for key, value in pairs:
        if key in there:
            old, number = there[key]
            row = rows[number - 1]
            if value is None:
                rows[number - 1] = "#" + row
            elif value != old:
                match = _LINE.match(row)
                rows[number - 1] = row[: match.start(4)] + value + row[match.end(4) :]
        elif value is not None:
            number = _example(rows, key)
            (after.setdefault(number, []) if number else end).append("%s %s" % (key, value))
    out = []
    for number, row in enumerate(rows, 1):
        out.append(row)
        out += after.get(number, [])
    if end:
        if out and out[-1] == "":
            out.pop()
        out += end + [""]
    return "\n".join(out)


def _example(rows, key):
    """Number of the last commented line that shows this key, or 0."""
    found = 0
    for number, row in enumerate(rows, 1):
        match = _EXAMPLE.match(row)
        if match and match.group(1) == key:
            found = number
    return found
