# SPDX-License-Identifier: Apache-2.0
"""What OpenSSH would do for one host: its arguments, and the configuration files, read once and applied to many hosts.

Only what can be followed exactly is followed. Everything else raises :class:`Unsupported` with the reason, and that host
is left to Ansible and the real ``ssh``. An option that changes nothing for a single command without a terminal is ignored.
"""

from __future__ import annotations

import os
import pwd
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from glob import glob
from pathlib import Path

MAX_DEPTH = 16  # files that include files, as OpenSSH has it
SYSTEM_CONFIG = "/etc/ssh/ssh_config"


def word_set(words: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(words.split())


FOLLOWED = word_set(
    """hostname port user identityfile identitiesonly userknownhostsfile globalknownhostsfile stricthostkeychecking
    hostkeyalias connecttimeout proxyjump identityagent addressfamily ciphers macs kexalgorithms hostkeyalgorithms
    pubkeyacceptedalgorithms gssapiauthentication hostbasedauthentication"""
)
IGNORED = word_set(
    """controlmaster controlpath controlpersist serveraliveinterval serveralivecountmax tcpkeepalive sendenv hashknownhosts
    loglevel forwardagent forwardx11 forwardx11trusted forwardx11timeout escapechar visualhostkey batchmode
    passwordauthentication kbdinteractiveauthentication challengeresponseauthentication numberofpasswordprompts
    updatehostkeys checkhostip addkeystoagent compression gssapidelegatecredentials gssapikeyexchange
    gssapikexalgorithms gssapirenewalforcesrekey gssapitrustdns gssapiclientidentity gssapiserveridentity rekeylimit
    exitonforwardfailure connectionattempts ipqos requesttty ignoreunknown clearallforwardings localforward remoteforward
    dynamicforward logverbose syslogfacility fingerprinthash enableescapecommandline casignaturealgorithms
    requiredrsasize hostbasedacceptedalgorithms obscurekeystroketiming streamlocalbindmask streamlocalbindunlink
    """
)
# Options that are followed as long as they say what is so anyway.
ONLY = {
    "proxycommand": ("none",),
    "pubkeyauthentication": ("yes", "true"),
    "canonicalizehostname": ("no", "false"),
    "verifyhostkeydns": ("no", "false"),
    "nohostauthenticationforlocalhost": ("no", "false"),
    "knownhostscommand": ("none",),
    "revokedhostkeys": ("none",),
    "permitlocalcommand": ("no", "false"),
    "enablesshkeysign": ("no", "false"),
    "tunnel": ("no", "false"),
    "usekeychain": ("no", "false"),
    "pkcs11provider": ("none",),
    "stdinnull": ("no",),
    "sessiontype": ("default",),
    "forkafterauthentication": ("no",),
}
ALIASES = {"pubkeyacceptedkeytypes": "pubkeyacceptedalgorithms", "hostbasedkeytypes": "hostbasedacceptedalgorithms",
           "dsaauthentication": "batchmode", "protocol": "batchmode", "useroaming": "batchmode"}  # fmt: skip

Option = tuple[str, tuple[str, ...]]  # (keyword in small letters, its words)


class Unsupported(Exception):
    """Something that the fast lane does not do; the text says what, in words for the user."""


@dataclass
class Options:
    """What counts for one host: the first value of each keyword, and every identity file."""

    first: dict[str, tuple[str, ...]] = field(default_factory=dict)
    identities: list[str] = field(default_factory=list)

    def add(self, keyword: str, words: Sequence[str]) -> None:
        """Take an option as OpenSSH does: the first one wins. Raises :class:`Unsupported`."""
        if keyword == GIVEN_KEY:
            if _exists(expand_home(words[0])):
                self.add("identityfile", words)
        elif keyword == "identityfile":
            if words[0] not in self.identities:
                self.identities.append(words[0])
        elif keyword in FOLLOWED:
            self.first.setdefault(keyword, tuple(words))
        elif keyword == "preferredauthentications":
            if "publickey" not in words[0].split(","):
                raise Unsupported("PreferredAuthentications without publickey")
        elif keyword in ONLY:
            if words[0].lower() not in ONLY[keyword]:
                raise Unsupported(f"ssh option {keyword}")
        elif keyword not in IGNORED:
            raise Unsupported(f"ssh option {keyword[:40]}")

    def get(self, keyword: str, default: str = "") -> str:
        """The first word of an option."""
        return self.first.get(keyword, (default,))[0]


def option(text: str) -> Option:
    """``Key=Value``, ``Key Value`` or ``Key "a value"``. Raises :class:`Unsupported` for what cannot be split."""
    match = re.match(r"\s*([A-Za-z0-9]+)(?:\s*=\s*|\s+)(.*)$", text, re.S)
    if match is None:
        raise Unsupported(f"ssh option {text.strip()[:40]!r}")
    keyword = match.group(1).lower()
    try:
        words = shlex.split(match.group(2))
    except ValueError:
        raise Unsupported(f"quotes in ssh option {keyword[:40]}") from None
    for at, word in enumerate(words):
        if word.startswith("#"):
            words = words[:at]
            break
    if not words:
        raise Unsupported(f"ssh option {keyword[:40]} without a value")
    return ALIASES.get(keyword, keyword), tuple(words)


_FLAGS_IGNORED = "CqvTxaknM"
GIVEN_KEY = "-i"  # unlike IdentityFile, it does not count where there is no such file
_WITH_VALUE = {"i": GIVEN_KEY, "J": "proxyjump", "l": "user", "p": "port"}


@cache
def arguments(text: str) -> tuple[tuple[Option, ...], str]:
    """(options, file of ``-F``) from ``ansible_ssh_common_args`` and its like. Raises :class:`Unsupported`."""
    try:
        words = shlex.split(text)
    except ValueError:
        raise Unsupported("quotes in the ssh arguments") from None
    out: list[Option] = []
    config = ""
    todo = iter(words)
    for word in todo:
        if not word.startswith("-") or word in ("-", "--"):
            raise Unsupported("a word in the ssh arguments that is no option")
        rest = word[1:]
        while rest:
            letter, rest = rest[0], rest[1:]
            if letter in _FLAGS_IGNORED:
                continue
            if letter in "46":
                out.append(("addressfamily", ("inet" if letter == "4" else "inet6",)))
                continue
            if letter not in "iJlpoFS":
                raise Unsupported(f"ssh argument -{letter}")
            value = rest or next(todo, "")
            rest = ""
            if not value:
                raise Unsupported(f"ssh argument -{letter} without a value")
            if letter == "o":
                out.append(option(value))
            elif letter == "F":
                config = config or value
            elif letter != "S":  # the control socket is not used here
                out.append((_WITH_VALUE[letter], (value,)))
    return tuple(out), config


@dataclass(frozen=True)
class _Line:
    """An option in a file. ``when``: the ``Host`` patterns that must match, one tuple for each file around; ``final``: in the last pass only."""

    when: tuple[tuple[str, ...], ...]
    final: bool
    option: Option


@dataclass(frozen=True)
class Config:
    """A configuration file with all that it includes. ``broken``: why it cannot be followed, for any host."""

    lines: tuple[_Line, ...] = ()
    broken: str = ""

    def apply(self, name: str, options: Options, *, final: bool) -> None:
        """Add what the file says about a host. Raises :class:`Unsupported`."""
        if self.broken:
            raise Unsupported(self.broken)
        for line in self.lines:
            if (final or not line.final) and all(_matches(name, patterns) for patterns in line.when):
                options.add(*line.option)

    @property
    def has_final(self) -> bool:
        """Whether some lines count in a second pass only."""
        return any(line.final for line in self.lines)


def _matches(name: str, patterns: Sequence[str]) -> bool:
    found = False
    for pattern in patterns:
        negated = pattern.startswith("!")
        word = pattern[1:] if negated else pattern
        # Brackets mean nothing to OpenSSH, and everything to fnmatch.
        if fnmatchcase(name, word.replace("[", "[[]")):
            if negated:
                return False
            found = True
    return found


@cache
def read_config(path: str, user: bool) -> Config:
    """A configuration file (empty if it is not there). ``user``: relative includes begin in ~/.ssh, else in /etc/ssh."""
    try:
        return Config(tuple(_lines(Path(path), user, (), False, 0)))
    except Unsupported as e:
        return Config((), str(e))


def _lines(
    path: Path, user: bool, around: tuple[tuple[str, ...], ...], final_around: bool, depth: int
) -> Iterator[_Line]:
    if depth > MAX_DEPTH:
        raise Unsupported("ssh configuration files include each other too deeply")
    try:
        text = path.read_text(encoding="utf-8")
        state = path.stat()
        if state.st_uid not in (0, os.getuid()) or state.st_mode & 0o022:  # ssh refuses most of these, and says so
            raise Unsupported(f"{path} belongs to somebody else or can be written by others")
    except FileNotFoundError:
        return
    except (OSError, UnicodeDecodeError):
        raise Unsupported(f"{path} cannot be read") from None
    when, final = around, final_around
    for raw in text.splitlines():
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        keyword, words = option(line)
        if keyword == "host":
            when, final = (*around, words), final_around
        elif keyword == "match":
            said = tuple(w.lower() for w in words)
            if said not in (("all",), ("final", "all"), ("final",)):
                raise Unsupported(f"Match in {path}")
            when, final = around, final_around or "final" in said
        elif keyword == "include":
            for word in words:
                base = home() / ".ssh" if user else Path("/etc/ssh")
                for found in sorted(glob(str(base / expand_home(word)))):  # noqa: PTH207 - the pattern may be absolute
                    yield from _lines(Path(found), user, when, final, depth + 1)
        else:
            yield _Line(when, final, (keyword, words))


@lru_cache(maxsize=1024)
def _exists(path: str) -> bool:
    return os.path.exists(path)  # noqa: PTH110 - a name with a null byte is false here, not an error


@cache
def home() -> Path:
    """The home directory as OpenSSH sees it: that of the account, whatever $HOME says."""
    return Path(pwd.getpwuid(os.getuid()).pw_dir)


def expand_home(path: str) -> str:
    """A leading ``~/`` as OpenSSH reads it."""
    return str(home() / path[2:]) if path.startswith("~/") else path


def resolve(name: str, given: Sequence[Option], config: str = "") -> Options:
    """What counts for a host: ``given`` first, then the files (only ``config`` if there is one). Raises :class:`Unsupported`."""
    out = Options()
    for keyword, words in given:
        out.add(keyword, words)
    if config == "none":
        return out
    if config:
        path = expand_home(config)
        if not path.startswith("/") or not Path(path).is_file():
            raise Unsupported("ssh argument -F with a file that is not there, or a relative name")
        files = [read_config(path, True)]
    else:
        files = [read_config(str(home() / ".ssh" / "config"), True), read_config(SYSTEM_CONFIG, False)]
    for file in files:
        file.apply(name, out, final=False)
    if any(file.has_final for file in files):
        # The last pass sees the name that the first one found, and cannot change it any more.
        again = out.first.setdefault("hostname", ("%h",))[0].replace("%h", name)
        for file in files:
            file.apply(again, out, final=True)
    return out


def listed(options: Options, keyword: str, default: Sequence[str]) -> tuple[str, ...]:
    """The words of an option that has a list of files."""
    words = options.first.get(keyword, tuple(default))
    return () if tuple(w.lower() for w in words) == ("none",) else words
