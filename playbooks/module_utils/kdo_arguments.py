# SPDX-License-Identifier: Apache-2.0
"""Edit kernel arguments where boot stacks keep them: loader entries, /etc/kernel/cmdline, /etc/zipl.conf, /etc/default/grub.

Pure functions on text: the controller uses them to predict the bytes of a plan, the host side to write them, so both
come from one implementation. Arguments that are already as wanted stay where they stand, everything else in the file
stays byte for byte; what cannot be told for certain is refused with the line number.
"""

import re

try:
    from ansible.module_utils.kdo_edit import EditError, assign, read_assignments
except ImportError:
    from kdo_edit import EditError, assign, read_assignments

# What may be written as an argument: nothing that a boot loader's own language, or a shell, would read.
ARGUMENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,:=@/+%-]{0,511}\Z")
ENTRY = re.compile(r"(/boot|/boot/efi|/efi|/boot/esp)/loader/entries/[A-Za-z0-9._+~-]{1,200}\.conf\Z")
GRUBENV = re.compile(r"/boot/(grub2|efi/EFI/[A-Za-z0-9._-]{1,40})/grubenv\Z")
KERNEL_CMDLINE = "/etc/kernel/cmdline"
ZIPL = "/etc/zipl.conf"
GRUB_DEFAULTS = "/etc/default/grub"
GRUB_VARIABLES = ("GRUB_CMDLINE_LINUX", "GRUB_CMDLINE_LINUX_DEFAULT")

# As the kernel splits its command line: a double quote keeps blanks in a word.
_WORD = re.compile(r'(?:[^\s"]|"[^"]*(?:"|\Z))+')
_OPTIONS = re.compile(r"([ \t]*options[ \t]+)([^\n]*)")
_PARAMETERS = re.compile(r"([ \t]*parameters[ \t]*=[ \t]*)(?:\"([^\"\n]*)\"|'([^'\n]*)'|([^\n]*?))([ \t]*)\Z")
_ANY_PARAMETERS = re.compile(r"[ \t]*parameters[ \t]*=")


def key(word):
    """The name of an argument, as the kernel compares it: a dash and an underscore are the same."""
    return word.partition("=")[0].strip('"').replace("-", "_")


def words(text):
    return _WORD.findall(text)


def _wrong(text, ensure, remove):
    """``{key: [words]}`` of the keys under which the text does not say what is wanted."""
    wanted, there = {key(word): [] for word in remove}, {}
    for word in ensure:
        wanted.setdefault(key(word), [])
    for word in ensure:
        wanted[key(word)].append(word)
    for word in words(text):
        there.setdefault(key(word), []).append(word)
    return {name: new for name, new in wanted.items() if there.get(name, []) != new}


def line(text, ensure, remove):
    """One command line with these arguments under their keys, and none under the removed ones."""
    wrong = _wrong(text, ensure, remove)
    if not wrong:
        return text
    matches = list(_WORD.finditer(text))
    head = text[: matches[0].start()] if matches else ""
    tail = text[matches[-1].end() :] if matches else text
    out, position = "", len(head)
    for match in matches:
        if key(match.group()) not in wrong:
            out += (text[position : match.start()] if out else "") + match.group()
        position = match.end()
    for word in (word for new in wrong.values() for word in new):
        out += (" " if out else "") + word
    return head + out + tail


def _entry(text, ensure, remove):
    """A loader entry. Several ``options`` lines are one command line; what is new goes to the last of them."""
    rows = text.split("\n")
    found = [(number, _OPTIONS.match(row)) for number, row in enumerate(rows)]
    found = [(number, match) for number, match in found if match]
    if not found:
        raise EditError("the entry has no options")
    wrong = _wrong(" ".join(match.group(2) for _, match in found), ensure, remove)
    if not wrong:
        return text
    for number, match in found[:-1]:
        rows[number] = match.group(1) + line(match.group(2), [], wrong)
    number, match = found[-1]
    last = line(match.group(2), [], wrong)
    rows[number] = match.group(1) + line(last, [word for new in wrong.values() for word in new], [])
    return "\n".join(rows)


def _zipl(text, ensure, remove):
    rows, found = text.split("\n"), 0
    for number, row in enumerate(rows):
        if row.lstrip().startswith("#") or not _ANY_PARAMETERS.match(row):
            continue
        match = _PARAMETERS.match(row)
        if match is None:
            raise EditError("the parameters cannot be read", number + 1)
        now = next((part for part in match.groups()[1:4] if part is not None), "")
        found += 1
        after = line(now, ensure, remove)
        if after != now:
            if '"' in after:
                raise EditError("the parameters hold a quote", number + 1)
            rows[number] = '%s"%s"' % (match.group(1), after)
    if not found:
        raise EditError("no section has parameters")
    return "\n".join(rows)


def _grub_defaults(text, ensure, remove):
    """The variables that every kernel's entry is made from. Ours go into the first, and leave the second."""
    values, pairs = read_assignments(text), []
    first, second = GRUB_VARIABLES
    for name in GRUB_VARIABLES:
        if name in values and values[name][0] is None:
            raise EditError("%s is made by a shell: it cannot be edited safely" % name, values[name][1])
    now = {name: values.get(name, ("", 0))[0] for name in GRUB_VARIABLES}
    keys = [key(word) for word in ensure] + list(remove)
    after = {first: line(now[first], ensure, remove), second: line(now[second], [], keys)}
    for name in GRUB_VARIABLES:
        if after[name] != now[name]:
            pairs.append((name, after[name]))
    return assign(text, pairs)


def _environment(text, ensure, remove):
    """GRUB's environment block has exactly 1024 bytes, the rest of it is filled up."""
    size = len(text.encode("utf-8", "surrogateescape"))
    rows = text.rstrip("#").split("\n")
    found = [number for number, row in enumerate(rows) if row.startswith("kernelopts=")]
    if size != 1024 or not text.startswith("# GRUB Environment Block\n") or len(found) != 1:
        raise EditError("it is not an environment block with kernelopts")
    now = rows[found[0]][len("kernelopts=") :]
    after = line(now, ensure, remove)
    if after == now:
        return text
    rows[found[0]] = "kernelopts=" + after
    out = "\n".join(rows)
    room = size - len(out.encode("utf-8", "surrogateescape"))
    if room < 0:
        raise EditError("the arguments do not fit into the environment block")
    return out + "#" * room


def _plain(text, ensure, remove):
    for number, row in enumerate(text.split("\n"), 1):
        if row.lstrip().startswith("#"):
            raise EditError("there is a comment, which not every reader of this file knows", number)
    return line(text, ensure, remove)


def known(path):
    """Whether the path is one whose arguments can be edited."""
    return path in (KERNEL_CMDLINE, ZIPL, GRUB_DEFAULTS) or bool(ENTRY.match(path) or GRUBENV.match(path))


def edit(path, text, ensure, remove):
    """The file's text with these arguments. Raises EditError where it cannot be told what the file says."""
    for word in ensure:
        if not ARGUMENT.match(word):
            raise EditError("%r cannot stand in a boot loader's configuration" % word[:60])
    if path == KERNEL_CMDLINE:
        return _plain(text, ensure, remove)
    if path == ZIPL:
        return _zipl(text, ensure, remove)
    if path == GRUB_DEFAULTS:
        return _grub_defaults(text, ensure, remove)
    if GRUBENV.match(path):
        return _environment(text, ensure, remove)
    if ENTRY.match(path):
        return _entry(text, ensure, remove)
    raise EditError("the arguments in %s are not known to us" % path)
