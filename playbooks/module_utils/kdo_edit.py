# SPDX-License-Identifier: Apache-2.0
"""Edit files of shell variables (``KEY="value"``), such as Debian's /etc/default/kdump-tools.

Pure functions on text: the controller uses them to predict the bytes of a plan, the host side to write them, so both
come from one implementation. The file is read by ``sh`` and by systemd's ``EnvironmentFile=`` as well, so what is
written is the form both agree on: one assignment per line, the value in double quotes, nothing to expand.

A small reader follows sh's own rules of quoting. What it cannot be sure about (an assignment inside ``if``, in a
here-document, made by a command) is never guessed at: `assign` refuses with the line number.
"""

import re

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_WORD_ASSIGNS = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=")
_OPENERS = {"if": "fi", "case": "esac", "for": "done", "while": "done", "until": "done", "select": "done", "{": "}"}
_CLOSERS = ("fi", "esac", "done", "}")
_PREFIXES = ("then", "else", "elif", "do", "!", "time")
_ENDS_READING = ("exit", "return", "exec")


class EditError(Exception):
    """The text cannot be edited safely. ``line`` is where, counted from 1 (0: not about a line)."""

    def __init__(self, what, line=0):
        Exception.__init__(self, "line %d: %s" % (line, what) if line else what)
        self.what = what
        self.line = line


class _Word(object):
    """One word of a command: where it is, and what sh makes of its quotes (``value`` None: it must expand something)."""

    def __init__(self, start, end, value, line, raw):
        self.start, self.end, self.value, self.line, self.raw = start, end, value, line, raw


class _Found(object):
    """What the reader found: plain assignments, places that may assign in a way we do not follow, comments."""

    def __init__(self):
        self.plain = []  # (key, word)
        self.unsure = []  # (raw text, line, why)
        self.templates = []  # (key, offset after the comment's line, line)
        self.ends = 0  # line of a top-level exit/return, if any


class _Reader(object):
    def __init__(self, text):
        self.text = text
        self.at = 0
        self.line = 1
        self.stack = []  # what closes the compound commands we are in
        self.heredocs = []  # (delimiter, strip tabs)
        self.found = _Found()

    def read(self):
        if "\0" in self.text:
            raise EditError("there is a zero byte in the text", self.text[: self.text.index("\0")].count("\n") + 1)
        while self.at < len(self.text):
            self._command()
        if self.stack or self.heredocs:
            raise EditError("a compound command or here-document is not closed at the end of the text", self.line)
        return self.found

    def _command(self):
        """Everything up to an unquoted ``;`` or newline (or another operator, which makes it one we only look at)."""
        start, start_line, words, joined = self.at, self.line, [], False
        while True:
            self._blanks()
            if self.at >= len(self.text):
                break
            char = self.text[self.at]
            if char == "#":
                self._comment(not words and not joined)
                continue
            if char == "\n":
                self.at += 1
                self.line += 1
                break
            if char == ";":
                self.at += 1
                break
            if char in "&|()<>":
                joined = True
                self._operator(words)
                continue
            words.append(self._word())
        self._close_command(start, start_line, words, joined)
        if self.heredocs and self.at and self.text[self.at - 1] == "\n":
            self._heredoc_bodies()

    def _blanks(self):
        while self.at < len(self.text):
            if self.text[self.at] in " \t":
                self.at += 1
            elif self.text.startswith("\\\n", self.at):
                self._continued()
            else:
                return

    def _continued(self):
        self.at += 2
        self.line += 1
        if self.at >= len(self.text):
            raise EditError("the text ends in a continued line", self.line - 1)

    def _comment(self, whole_line):
        begin = self.text.rfind("\n", 0, self.at) + 1
        end = self.text.find("\n", self.at)
        end = len(self.text) if end < 0 else end
        match = re.match(r"#([A-Za-z_][A-Za-z0-9_]*)=", self.text[self.at : end])
        if match and whole_line and begin == self.at and not self.stack:
            self.found.templates.append((match.group(1), end, self.line))
        self.at = end

    def _operator(self, words):
        text, char = self.text, self.text[self.at]
        if text.startswith("<<", self.at) and not text.startswith("<<<", self.at):
            self.at += 2
            tabs = text.startswith("-", self.at)
            self.at += 1 if tabs else 0
            self._blanks()
            word = self._word() if self.at < len(text) and text[self.at] not in "\n;&|()<>" else None
            if word is None:
                raise EditError("a here-document has no delimiter", self.line)
            self.heredocs.append((re.sub(r"[\\'\"]", "", word.raw), tabs))
            return
        self.at += 1
        if char == "(":
            self.stack.append(")")
        elif char == ")" and self.stack and self.stack[-1] == ")":
            self.stack.pop()

    def _heredoc_bodies(self):
        for delimiter, tabs in self.heredocs:
            start, start_line = self.at, self.line
            while True:
                if self.at >= len(self.text):
                    raise EditError("a here-document is not closed", start_line)
                end = self.text.find("\n", self.at)
                end = len(self.text) if end < 0 else end
                row = self.text[self.at : end]
                self.at = min(end + 1, len(self.text))
                self.line += 1
                if (row.lstrip("\t") if tabs else row) == delimiter:
                    break
            self.found.unsure.append((self.text[start : self.at], start_line, "inside a here-document"))
        self.heredocs = []

    def _word(self):
        start, line, value = self.at, self.line, []
        dynamic = self.text[self.at] == "~"
        while self.at < len(self.text):
            char = self.text[self.at]
            if char in " \t\n;&|()<>":
                break
            if char == "\\":
                if self.text.startswith("\\\n", self.at):
                    self._continued()
                    continue
                if self.at + 1 >= len(self.text):
                    raise EditError("the text ends in a backslash", self.line)
                value.append(self.text[self.at + 1])
                self.at += 2
            elif char == "'":
                end = self.text.find("'", self.at + 1)
                if end < 0:
                    raise EditError("a single quote is not closed", self.line)
                value.append(self.text[self.at + 1 : end])
                self.line += self.text.count("\n", self.at, end)
                self.at = end + 1
            elif char == '"':
                dynamic = self._double_quoted(value) or dynamic
            elif char in "$`":
                dynamic = self._expansion(value, False) or dynamic
            else:
                value.append(char)
                self.at += 1
        raw = self.text[start : self.at]
        return _Word(start, self.at, None if dynamic else "".join(value), line, raw)

    def _double_quoted(self, value):
        opened, dynamic = self.line, False
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == '"':
                self.at += 1
                return dynamic
            if char == "\\" and self.at + 1 < len(self.text):
                following = self.text[self.at + 1]
                if following == "\n":
                    self.line += 1
                else:
                    value.append(following if following in '$`"\\' else "\\" + following)
                self.at += 2
            elif char in "$`":
                dynamic = self._expansion(value, True) or dynamic
            else:
                self.line += char == "\n"
                value.append(char)
                self.at += 1
        raise EditError("a double quote is not closed", opened)

    def _expansion(self, value, quoted):
        """At ``$`` or a backtick: True when something is expanded, False for a dollar that stands for itself."""
        begin, opened, text = self.at, self.line, self.text
        following = text[begin + 1 : begin + 2]
        if text[begin] == "`":
            self._skip_to(begin + 1, "", "`", opened)
        elif following in ("(", "{"):
            self._skip_to(begin + 2, following, ")" if following == "(" else "}", opened)
        elif following and (following.isalnum() or following in "_@*#?-$!"):
            self.at += 2
        elif following and following in "'\"" and not quoted:
            self.at += 1  # $'…' differs between shells
        else:
            value.append("$")
            self.at += 1
            return False
        return True

    def _skip_to(self, position, opener, closer, opened):
        depth = 1
        while position < len(self.text):
            char = self.text[position]
            if char == "\\":
                position += 1
            elif char == "\n":
                raise EditError("a substitution goes over more than one line", opened)
            elif char in "'\"" and closer == ")":
                end = self.text.find(char, position + 1)
                if end < 0 or "\n" in self.text[position:end]:
                    raise EditError("a substitution goes over more than one line", opened)
                position = end
            elif char == closer:
                depth -= 1
                if not depth:
                    self.at = position + 1
                    return
            elif opener and char == opener:
                depth += 1
            position += 1
        raise EditError("a substitution is not closed", opened)

    def _close_command(self, start, line, words, joined):
        raw = self.text[start : self.at]
        nested = bool(self.stack) or joined
        rest = list(words)
        while rest and rest[0].raw in _PREFIXES:
            rest.pop(0)
            nested = True
        if rest and rest[0].raw in _OPENERS:
            self.stack.append(_OPENERS[rest[0].raw])
            nested = True
            # "while x" and "if x" begin a command of their own; one level of nesting is enough to stay out of it.
        elif rest and rest[0].raw in _CLOSERS:
            nested = True
            if not self.stack or self.stack[-1] != rest[0].raw:
                raise EditError("'%s' closes nothing" % rest[0].raw, rest[0].line)
            self.stack.pop()
        if "{" in [word.raw for word in rest[1:]] and joined:  # a function: name() {
            self.stack.append("}")
        if not nested and rest and rest[0].raw in _ENDS_READING:
            self.found.ends = self.found.ends or rest[0].line
        exported = bool(rest) and rest[0].raw == "export"
        targets = [(_WORD_ASSIGNS.match(word.raw), word) for word in (rest[1:] if exported else rest)]
        only = all(match or (exported and _NAME.match(word.raw)) for match, word in targets)
        if not nested and targets and only:
            self.found.plain += [(match.group(1), word) for match, word in targets if match]
        elif words:
            why = "inside a compound command" if nested else "as part of a command"
            self.found.unsure.append((raw, line, why))


def _read(text):
    return _Reader(text).read()


def _mentions(raw, key):
    """The offset where `raw` may give `key` a value or take it away, else None."""
    name = re.escape(key)
    pattern = (
        r"(?<![A-Za-z0-9_$.-])%s\+?=|\$\{%s:?=|\b(?:unset|read|for|readonly|local|declare|typeset)\b[^\n;]*?"
        r"(?<![A-Za-z0-9_$])%s(?![A-Za-z0-9_])" % (name, name, name)
    )
    match = re.search(pattern, raw)
    return match.start() if match else None


def _literal(word):
    if word.value is None:
        return None
    value = word.value.partition("=")[2]
    return None if re.search(r"(?:=|:)~", word.raw) else value  # a tilde there may be expanded


def read_assignments(text):
    """``{key: (value, line)}`` as sh would end up with; value None where it depends on something not in the text."""
    found = _read(text)
    rows = [(word.line, key, _literal(word)) for key, word in found.plain]
    for raw, line, _why in found.unsure:
        for name in set(re.findall(r"[A-Za-z_][A-Za-z0-9_]*", raw)):
            offset = _mentions(raw, name)
            if offset is not None:
                rows.append((line + raw.count("\n", 0, offset), name, None))
    values = {}
    for line, key, value in sorted(rows, key=lambda row: row[0]):
        values[key] = (value, line)
    return values


def check_pair(key, value):
    """Raise EditError unless the pair can be written so that sh and systemd read back exactly the value."""
    if not isinstance(key, str) or not _NAME.match(key):
        raise EditError("not a shell variable's name: %r" % (key,))
    if not isinstance(value, str):
        raise EditError("the value of %s is not text" % key)
    for char in value:
        if char in '"$`\\' or not char.isprintable():
            raise EditError("the value of %s holds a character that cannot be written safely: %r" % (key, char))


def _assign_one(text, key, value):
    found = _read(text)
    for raw, line, why in found.unsure:
        offset = _mentions(raw, key)
        if offset is not None:
            raise EditError(
                "%s may get its value %s here, which is not edited" % (key, why), line + raw.count("\n", 0, offset)
            )
    if found.ends:
        raise EditError("the file stops being read here, so %s cannot be set for certain" % key, found.ends)
    plain = [word for name, word in found.plain if name == key]
    written = '%s="%s"' % (key, value)
    if plain:
        last = plain[-1]
        if _literal(last) == value:
            return text
        return text[: last.start] + written + text[last.end :]
    templates = [(offset, line) for name, offset, line in found.templates if name == key]
    if templates:
        offset = templates[-1][0]
        return text[:offset] + "\n" + written + text[offset:]
    if text and not text.endswith("\n"):
        text += "\n"
    return text + written + "\n"


def assign(text, pairs):
    """`text` with each key set to its value: the last assignment in place, else below ``#KEY=``, else at the end.

    A key that already has the value is left exactly as it is written. Everything else stays byte for byte.
    """
    for key, value in pairs:
        check_pair(key, value)
    for key, value in pairs:
        text = _assign_one(text, key, value)
    return text
