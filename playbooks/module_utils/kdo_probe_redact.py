# SPDX-License-Identifier: Apache-2.0
"""Blanks secrets. The number of lines of a text never changes, so what is said about line 7 stays true."""

import re

BLANK = "<redacted>"
DEFAULT_KEYS = r"(?i)(pass(word|wd|phrase)?|secret|token|credential|api_?key)"
_TRIVIAL = frozenset(["", "0", "1", "y", "n", "yes", "no", "on", "off", "true", "false", BLANK])
_ASSIGN = re.compile(r"([A-Za-z0-9_.\-]+)(?:\[[^\]\s]*\])?\+?=")
_OPTION = re.compile(r"(?<!\S)--([A-Za-z0-9_.\-]+)[ \t]+(?=[^\s\-])")
_LINE = re.compile(r"^(\s*(?:[#;]+\s*)?(?:export\s+|set\s+)?)([A-Za-z0-9_.\-]+)(\s*\+?[=:]\s*|\s+)(\S.*?)(\s*)$")
_URL = re.compile(r"(://[^/\s:@\"']*):[^/\s@\"']+@")
_PEM_BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]*PRIVATE KEY")


def _outer_quote(text, end):
    """The quote that is open at ``end``, or empty."""
    quote = ""
    skip = False
    for c in text[:end]:
        if skip:
            skip = False
        elif c == "\\" and quote != "'":
            skip = True
        elif quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
    return quote


def _value_end(text, start):
    """Where the value that starts at ``start`` ends."""
    for opening in ('\\"', '"', "'"):
        if text.startswith(opening, start):
            outer = _outer_quote(text, start)
            if outer == opening:
                return start
            end = text.find(opening, start + len(opening))
            return len(text) if end < 0 else end + len(opening)
    outer = _outer_quote(text, start)
    end = start
    while end < len(text) and not text[end].isspace() and text[end] != outer:
        end += 1
    return end


class Redactor(object):
    """Knows which names are those of secrets."""

    def __init__(self, keys=""):
        self.broken = ""
        try:
            self.keys = re.compile(keys or DEFAULT_KEYS)
        except (re.error, TypeError) as e:
            self.broken = str(e)
            self.keys = re.compile(DEFAULT_KEYS)

    def unsafe(self, key):
        """Whether what this name holds is secret."""
        return self.keys.search(key) is not None

    def words(self, text):
        """One line with the values of secret words blanked: kernel command lines, log lines, shell text."""
        text = _URL.sub(r"\1:" + BLANK + "@", text)
        for pattern in (_ASSIGN, _OPTION):
            start = 0
            while True:
                m = pattern.search(text, start)
                if m is None:
                    break
                start = m.end()
                if not self.unsafe(m.group(1)):
                    continue
                end = _value_end(text, m.end())
                if text[m.end() : end].strip("\\\"'").lower() not in _TRIVIAL:
                    text = text[: m.end()] + BLANK + text[end:]
                    start = m.end() + len(BLANK)
        return text

    def _line(self, line):
        """(line, what may go on in the next line: a quote, a backslash or nothing)."""
        m = _LINE.match(line)
        if m is None or not self.unsafe(m.group(2)):
            return self.words(line), ""
        head, key, separator, value, tail = m.groups()
        bare = separator.isspace()
        if "#" in head or ";" in head:
            if bare and len(value.split()) > 2:  # prose
                return self.words(line), ""
        if value.strip("\"'").lower() in _TRIVIAL:
            return line, ""
        if (
            separator == "=" and value.split()[0].lower() in _TRIVIAL
        ):  # a kernel command line: iommu.passthrough=1 quiet
            return self.words(line), ""
        more = ""
        if value[0] in "\"'" and not bare and value.find(value[0], 1) < 0:
            more = value[0]
        elif value.endswith("\\"):
            more = "\\"
        return head + key + separator + BLANK + tail, more

    def text(self, text):
        """(text with secrets blanked, how many lines were touched)."""
        out = []
        touched = 0
        more = ""
        pem = False
        for line in text.split("\n"):
            end = "\r" if line.endswith("\r") else ""
            old = line[: len(line) - len(end)]
            if pem or _PEM_BEGIN.search(old):
                pem = not _PEM_END.search(old)
                new = BLANK
            elif more:
                new = BLANK
                if more == "\\":
                    more = "\\" if old.endswith("\\") else ""
                elif more in old:
                    more = ""
            else:
                new, more = self._line(old)
            touched += new != old
            out.append(new + end)
        return "\n".join(out), touched
