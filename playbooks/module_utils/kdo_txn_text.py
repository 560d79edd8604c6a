# SPDX-License-Identifier: Apache-2.0
"""What a plan may put into files: nothing that a program would run.

/etc/default/grub.d/*.cfg is sourced by a root shell, /etc/default/kdump-tools ends up in ``eval``, and a sysctl can
name a program. So a plan's text is limited to what such a file needs, and the limit is here, in code, not in the plan.
"""

import re

MAX_TEXT = 64 * 1024

# Variables of /etc/default/kdump-tools that a plan may set, and what their values may be made of. KDUMP_FAIL_CMD is a
# command, so only three of them are known; FTP_PASSWORD is a secret and not here. kdump-config puts most of them unquoted on a command line.
_WORDS = r"[A-Za-z0-9 ,.=_:/@%+\[\]-]*"
_PATH = r"(/[A-Za-z0-9._+-]+)*"
_ARGUMENTS = r"[^\"'$`\\;|&<>()]*"
_DEBIAN = {
    "USE_KDUMP": r"[01]",
    "KDUMP_KERNEL": _PATH,
    "KDUMP_INITRD": _PATH,
    "KDUMP_COREDIR": _PATH,
    "KDUMP_FAIL_CMD": r"(reboot|halt|poweroff) -f",
    "KDUMP_DUMP_DMESG": r"[01]?",
    "KDUMP_NUM_DUMPS": r"[0-9]{0,4}",
    "KDUMP_COMPRESSION": r"(bzip2|gzip|lz4|xz)?",
    "MAKEDUMP_ARGS": _WORDS,
    "KDUMP_KEXEC_ARGS": _WORDS,
    "KDUMP_CMDLINE": _ARGUMENTS,
    "KDUMP_CMDLINE_APPEND": _ARGUMENTS,
    "HOSTTAG": r"(ip|hostname)?",
    "NFS": _WORDS,
    "NFS_TIMEO": r"[0-9]{0,6}",
    "NFS_RETRANS": r"[0-9]{0,6}",
    "NFS_MOUNT_RETRY": r"[0-9]{0,6}",
    "SSH": _WORDS,
    "SSH_KEY": _PATH,
    "SSH_KDUMP_RETRY": r"[0-9]{0,6}",
}

# Settings of /etc/kdump.conf. The collector is a command, so only known ones; scripts and dracut's options are not here.
_DEVICE = r"(UUID=[A-Fa-f0-9-]{1,40}|LABEL=[A-Za-z0-9_.-]{1,64}|/dev/[A-Za-z0-9._/+-]{1,200})"
_KDUMP_CONF = {
    "path": r"/|(/[A-Za-z0-9._+-]+)+/?",
    "raw": r"/dev/[A-Za-z0-9._/+-]{1,200}",
    "nfs": r"(\[[0-9A-Fa-f:]+\]|[A-Za-z0-9_.-]{1,253}):/[A-Za-z0-9_./+-]{0,400}",
    "ssh": r"[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9_.:-]+",
    "sshkey": r"(/[A-Za-z0-9._+-]+)+",
    "virtiofs": r"[A-Za-z0-9_.-]{1,64}",
    "core_collector": r"cp|scp|makedumpfile( (-[cdEFlpz]|-d[0-9,]{1,12}|--message-level|--num-threads|--excludevm|[0-9,]{1,12}))*",
    "failure_action": r"reboot|halt|poweroff|shell|dump_to_rootfs",
    "default": r"reboot|halt|poweroff|shell|dump_to_rootfs",
    "final_action": r"reboot|halt|poweroff",
    "auto_reset_crashkernel": r"yes|no",
}
_KDUMP_CONF.update((kind, _DEVICE) for kind in ("ext2", "ext3", "ext4", "minix", "btrfs", "xfs"))
_KDUMPCTL = {"KDUMP_COMMANDLINE_APPEND": _ARGUMENTS, "KDUMP_COMMANDLINE_REMOVE": r"[A-Za-z0-9_. -]*"}

# SUSE's variables of the same file; load.sh hands the command line to ``eval``. A URL may hold no password: it is a secret.
_SUSE = {
    "KDUMP_COMMANDLINE_APPEND": _ARGUMENTS,
    "KDUMP_CPUS": r"[0-9]{1,5}",
    "KDUMP_CRASHKERNEL": r"auto|crashkernel=[0-9A-Za-z,:@-]+( crashkernel=[0-9A-Za-z,:@-]+)*",
    "KDUMP_AUTO_RESIZE": r"true|false",
    "KDUMP_SAVEDIR": r"(/[A-Za-z0-9._+-]+)+|nfs://[A-Za-z0-9_.\[\]:-]+(/[A-Za-z0-9._+-]+)+"
    r"|ssh://[A-Za-z0-9_][A-Za-z0-9_.-]*@[A-Za-z0-9_.\[\]:-]+(/[A-Za-z0-9._+-]+)+",
    "KDUMP_SSH_IDENTITY": _PATH,
    "KDUMP_DUMPLEVEL": r"[0-9]{1,2}",
    "KDUMP_DUMPFORMAT": r"ELF|compressed|lzo|snappy|zstd|raw",
    "KDUMP_KEEP_OLD_DUMPS": r"[0-9]{1,6}",
    "KDUMP_FREE_DISK_SIZE": r"[0-9]{1,9}",
    "KDUMP_IMMEDIATE_REBOOT": r"true|false",
    "KDUMP_CONTINUE_ON_ERROR": r"true|false",
}

# File → variables that a plan may set there → what their values may be made of. Each family adds its own.
ASSIGNABLE = {
    "/etc/default/kdump-tools": _DEBIAN,
    "/etc/kdump.conf": _KDUMP_CONF,
    "/etc/sysconfig/kdump": dict(_KDUMPCTL, **_SUSE),
}

# Kernel settings that say what happens at a panic or a hang. Others are not a plan's business: some name a program
# (core_pattern, modprobe), some cannot be taken back (kexec_load_disabled), some weaken the host.
SYSCTL = re.compile(
    r"(panic|panic_[a-z_]+|[a-z_]+_panic|sysrq|hyperv_record_panic_msg|nmi_watchdog|watchdog(_[a-z_]+)?"
    r"|(soft|hard)lockup_[a-z_]+|hung_task_[a-z_]+|oops_limit|warn_limit)\Z"
)
NOT_SYSCTL = ("kexec_load_limit_panic",)
_NUMBER = re.compile(r"-?[0-9]{1,10}\Z")
_SYSCTL_LINE = re.compile(r"\s*-?\s*kernel[./]([a-z_]+)\s*=\s*(-?[0-9]{1,10})\s*\Z")

_KEYWORDS = ("then", "else", "elif", "do", "if", "while")
_VALUE = r"(?:\"[^\"]*\"|'[^']*'|[^\s\"'();|&]+)*"
_ASSIGNMENTS = re.compile(r"(?:export\s+)?(?:[A-Za-z_]\w*=%s)(?:\s+[A-Za-z_]\w*=%s)*\Z" % (_VALUE, _VALUE))
_HARMLESS = re.compile(
    r"(?:done|fi|esac|:|set\s+(?:--|[-+]f)(?:\s.*)?|unset(?:\s+[A-Za-z_]\w*)+|export(?:\s+[A-Za-z_]\w*)+|shift"
    r"|\[\s[^\n]*\s\]|test\s.*|for\s+[A-Za-z_]\w*(?:\s+in\s.*)?)\Z"
)
_CASE = re.compile(r"case\s+\S+\s+in(?:\s+|\Z)")
_PATTERN = re.compile(r"[^()\s]+(?:\s*\|\s*[^()\s]+)*\)\s*")
_EXPANDS = re.compile(r"[`\\<>&]|\$\(|\$'|\$\{[^}]*@")
# Variables that decide how the shell or a program it starts behaves.
_LOADED = re.compile(r"\b(PATH|IFS|ENV|BASH_ENV|LD_[A-Z_]+|PS4|SHELL|GRUB_(?!CMDLINE)[A-Z_]+|[a-z_]*mkconfig[a-z_]*)=")


def sysctl_allowed(name):
    return bool(SYSCTL.match(name)) and name not in NOT_SYSCTL


def number(text):
    return bool(_NUMBER.match(text))


def plain_text(text):
    """None, or why the text is not one that belongs into a configuration file."""
    try:
        data = text.encode("utf-8")
    except UnicodeEncodeError:
        return "it is not valid Unicode"
    if len(data) > MAX_TEXT:
        return "it is longer than %d bytes" % MAX_TEXT
    for char in text:
        if char not in "\n\t" and not char.isprintable():
            return "it holds a control character"
    return None


def sysctl_text(text):
    for line, row in enumerate(text.split("\n"), 1):
        if not row.strip() or row.lstrip()[0] in "#;":
            continue
        match = _SYSCTL_LINE.match(row)
        if not match or not sysctl_allowed(match.group(1)):
            return "line %d is not a setting that a plan may make" % line
    return None


def grub_text(text):
    """A snippet may work on variables with the shell's own means; it may not start a program."""
    for line, row in enumerate(text.split("\n"), 1):
        code = row.strip()
        if not code or code.startswith("#"):
            continue
        if _EXPANDS.search(code) or _LOADED.search(code) or not all(_harmless(part) for part in _split(code)):
            return "line %d starts a program, or does something that a plan's snippet may not do" % line
    return None


def _harmless(part):
    """One command, without the words of compound commands before it."""
    rest = part.strip()
    while True:
        head = rest.partition(" ")[0]
        match = _CASE.match(rest) or _PATTERN.match(rest)
        if head in _KEYWORDS and head != rest:
            rest = rest[len(head) :].strip()
        elif match:
            rest = rest[match.end() :]
        else:
            break
    return not rest or rest in _KEYWORDS or bool(_HARMLESS.match(rest) or _ASSIGNMENTS.match(rest))


def _split(row):
    """At semicolons outside quotes. A quote left open makes a part that matches nothing allowed."""
    parts, current, quote = [], "", ""
    for char in row:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char == "#" and (not current or current[-1] in " \t"):
            break
        elif char == ";":
            parts.append(current)
            current = ""
            continue
        current += char
    return parts + [current]


def assignment(path, key, value):
    """None, or why a plan may not set this variable of this file to this value."""
    allowed = ASSIGNABLE.get(path, {})
    if key not in allowed:
        return "%s is not a variable that a plan may set" % key
    if not re.match(r"(?:%s)\Z" % allowed[key], value):
        return "the value for %s holds something that is not allowed there" % key
    return None


def command_line(text):
    """A whole /etc/kernel/cmdline: one line of arguments."""
    if text.count("\n") > 1 or not text.endswith("\n"):
        return "it is not one line"
    if not re.match(r"[A-Za-z0-9_][A-Za-z0-9 _.,:=@/+%-]*\n\Z", text):
        return "it holds something that a kernel's command line does not need"
    return None
