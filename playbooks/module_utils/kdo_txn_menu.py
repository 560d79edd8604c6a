# SPDX-License-Identifier: Apache-2.0
"""grub.cfg as GRUB reads it: which entry boots by default, and that entry once more with other boot arguments.

Everything that stays is copied as it stands, quotes and variables included. What is not understood for certain is an
error, because a wrong guess would boot something else.
"""

import re

LINUX = ("linux", "linux16", "linuxefi")
_OPEN, _CLOSE = ("if", "while", "until", "for"), ("fi", "done")
_GLUE = ("then", "else", "elif", "do")
_WITH_VALUE = ("--class", "--users", "--hotkey", "--source", "--id")
_ID_VARIABLE = "$menuentry_id_option"
# What may be written into a menu as an argument of the kernel: nothing that GRUB's own language would read.
ARGUMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:=@/+%-]{0,511}\Z")


class MenuError(Exception):
    """The menu is one that cannot be told for certain."""


class Word(object):
    """A word, a brace, an end of command or an operator; ``value`` without quotes, ``open``: it holds a variable."""

    def __init__(self, kind, start, end, value="", raw="", variable=False):
        self.kind, self.start, self.end, self.value, self.raw, self.open = kind, start, end, value, raw, variable


class Entry(object):
    """A menu entry or a submenu, with the spans of its header's words and of its body."""

    def __init__(self, header, submenu, conditional):
        self.submenu, self.conditional = submenu, conditional
        self.title, self.id, self.options = "", "", []
        self.start = self.end = 0  # of the body
        self.children, self.commands = [], []
        self._read(header)

    def _read(self, words):
        position, title = 0, None
        while position < len(words):
            word = words[position]
            following = words[position + 1] if position + 1 < len(words) else None
            if word.raw == _ID_VARIABLE or word.value == "--id":
                self.id = following.value if following is not None else ""
                position += 1
            elif word.value.startswith("--id="):
                self.id = word.value[5:]
            elif word.value in _WITH_VALUE and following is not None:
                self.options.append(word.raw + " " + following.raw)
                position += 1
            elif word.value.startswith("--"):
                self.options.append(word.raw)
            elif title is None:
                title = word.value
            position += 1
        self.title = title or ""


def words(text):
    """GRUB's tokens. A quote that is never closed is an error."""
    found, position, length = [], 0, len(text)
    while position < length:
        char = text[position]
        if char in " \t\r":
            position += 1
        elif char == "\\" and text[position + 1 : position + 2] == "\n":
            position += 2
        elif char in "\n;":
            found.append(Word("end", position, position + 1))
            position += 1
        elif char == "#":
            end = text.find("\n", position)
            position = length if end < 0 else end
        elif char in "{}":
            found.append(Word(char, position, position + 1))
            position += 1
        elif char in "|&<>":
            found.append(Word("operator", position, position + 1))
            position += 1
        else:
            found.append(_word(text, position))
            position = found[-1].end
    return found


def _closing(text, char, start):
    end = text.find(char, start)
    if end < 0:
        raise MenuError("a quote or a brace is never closed")
    return end


def _word(text, start):
    position, value, variable, length = start, "", False, len(text)
    while position < length and text[position] not in " \t\r\n;{}|&<>":
        char = text[position]
        if char == "'":
            end = _closing(text, "'", position + 1)
            value += text[position + 1 : end]
            position = end + 1
        elif char == '"':
            position += 1
            while True:
                if position >= length:
                    raise MenuError("a quote or a brace is never closed")
                char = text[position]
                if char == '"':
                    break
                if char == "\\" and text[position + 1 : position + 2] in ('"', "\\", "$", "\n"):
                    value += text[position + 1].replace("\n", "")
                    position += 2
                    continue
                variable = variable or char == "$"
                value += char
                position += 1
            position += 1
        elif char == "\\":
            value += text[position + 1 : position + 2].replace("\n", "")
            position += 2
        elif char == "$":
            variable = True
            end = position + 1
            if text[end : end + 1] == "{":
                end = _closing(text, "}", end) + 1
            value += text[position:end]
            position = end
        else:
            value += char
            position += 1
    position = min(position, length)
    return Word("word", start, position, value, text[start:position], variable)


class Menu(object):
    """``entries`` at the top, and every command outside entries and functions."""

    def __init__(self, text):
        self.text = text
        self.entries, self.commands = [], []
        self._stack = []  # entries, and names of other blocks
        command = []
        for word in words(text) + [Word("end", len(text), len(text))]:
            if word.kind in ("word", "operator"):
                if not command and word.kind == "word" and self._keyword(word):
                    continue
                command.append(word)
                continue
            if word.kind == "{":
                self._open(command, word)
            else:
                self._note(command)
                if word.kind == "}":
                    self._close(word)
            command = []
        if self._stack:
            raise MenuError("a block is never closed")

    def _keyword(self, word):
        if word.raw in _OPEN:
            self._stack.append("if")
        elif word.raw in _CLOSE:
            if not self._stack or self._stack.pop() != "if":
                raise MenuError("'%s' closes nothing" % word.raw)
        elif word.raw not in _GLUE:
            return False
        return True

    def _open(self, command, brace):
        head = command[0].raw if command else ""
        if head not in ("menuentry", "submenu"):
            self._stack.append("function" if head == "function" else "block")
            return
        if "function" in self._stack:
            raise MenuError("a function makes menu entries")
        parent = self._inside()
        since = self._stack[self._stack.index(parent) + 1 :] if parent is not None else self._stack
        entry = Entry(command[1:], head == "submenu", bool(since))
        if parent is not None and not parent.submenu:
            raise MenuError("an entry stands inside an entry")
        (parent.children if parent is not None else self.entries).append(entry)
        entry.start = brace.end
        self._stack.append(entry)

    def _close(self, brace):
        top = self._stack.pop() if self._stack else "if"
        if top == "if":
            raise MenuError("a brace closes nothing")
        if isinstance(top, Entry):
            top.end = brace.start

    def _inside(self):
        return next((frame for frame in reversed(self._stack) if isinstance(frame, Entry)), None)

    def _note(self, command):
        if command and "function" not in self._stack:
            inside = self._inside()
            (inside.commands if inside is not None else self.commands).append(command)

    def settings(self, name):
        """Every word that gives the variable a value, outside entries."""
        found = []
        for command in self.commands:
            word = command[1] if command[0].value == "set" and len(command) > 1 else command[0]
            if word.value.startswith(name + "="):
                found.append(word)
        return found

    def runs(self, *wanted):
        return any([word.value for word in command] == list(wanted) for command in self.commands)

    def all_commands(self):
        found, entries = list(self.commands), list(self.entries)
        while entries:
            entry = entries.pop()
            found += entry.commands
            entries += entry.children
        return found


def default_word(menu):
    """The one word ``default=…`` that counts when nothing was chosen for one boot."""
    found = [word for word in menu.settings("default") if word.value != "default=${next_entry}"]
    if len({word.value for word in found}) != 1:
        raise MenuError("the default entry is set in %d places" % len(found))
    return found[0]


def default_entry(menu, saved):
    """The entry that GRUB boots when nobody chooses; ``saved`` is the environment block."""
    choice = default_word(menu).value[len("default=") :]
    if choice in ("${saved_entry}", "$saved_entry"):
        choice = saved.get("saved_entry") or "0"
    if "$" in choice or ">>" in choice:
        raise MenuError("the default entry is computed")
    entry = _find(menu.entries, choice)
    if entry is None:
        entry = _find(menu.entries, "0")  # as GRUB does where the default is not there
    if entry is None:
        raise MenuError("there is no default entry")
    return entry


def _find(entries, choice):
    head, _, rest = choice.partition(">")
    found = None
    if head.isdigit():
        number = int(head)
        if any(entry.conditional for entry in entries[: number + 1]):
            raise MenuError("whether an entry before the default one is there depends on the machine")
        found = entries[number] if number < len(entries) else None
    elif head[:1].isdigit():
        raise MenuError("the name of the default entry begins with a digit")
    else:
        found = next((entry for entry in entries if head and head in (entry.id, entry.title)), None)
    if found is not None and found.conditional:
        raise MenuError("whether the default entry is there depends on the machine")
    if found is not None and found.submenu:
        return _find(found.children, rest or "0")
    return None if rest else found


def linux(entry):
    """The words of the entry's one kernel command."""
    found = [command for command in entry.commands if command[0].value in LINUX]
    if len(found) != 1 or len(found[0]) < 2:
        raise MenuError("the default entry has %d kernel lines, not one" % len(found))
    if any(word.kind != "word" for word in found[0]):
        raise MenuError("the default entry's kernel line holds an operator")
    return found[0]


def key(argument):
    return argument.strip('"').partition("=")[0].replace("-", "_")


def arguments(entry):
    """The kernel's arguments, without quotes."""
    return [word.value for word in linux(entry)[2:]]


def compose(menu, entry, title, ident, ensure, remove):
    """Text of a new entry: the old one under another name, keys taken off and arguments set once."""
    for argument in ensure:
        if not ARGUMENT.match(argument):
            raise MenuError("an argument holds something that is not allowed")
    text, line = menu.text, linux(entry)
    gone = {key(argument) for argument in list(ensure) + list(remove)}
    kept = [word.raw for word in line[2:] if key(word.value) not in gone]
    body = text[entry.start : line[0].start]
    body += " ".join([line[0].raw, line[1].raw] + kept + list(ensure))
    body += text[line[-1].end : entry.end]
    options = "".join(" " + option for option in entry.options)
    return "menuentry '%s'%s --id '%s' {%s}\n" % (title, options, ident, body)


def wrong(there, step):
    """None, or how arguments differ from what the step wants: ours once each, nothing else under their keys."""
    wanted = {}
    for argument in step["ensure"]:
        wanted.setdefault(key(argument), []).append(argument)
    for name in sorted(set(wanted) | {key(word) for word in step["remove"]}):
        if [word for word in there if key(word) == name] != wanted.get(name, []):
            return "the arguments are not as wanted (%s)" % name
    return None
