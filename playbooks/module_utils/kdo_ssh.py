# SPDX-License-Identifier: Apache-2.0
"""Public keys, and what a known_hosts file says of a host: for the probe, which reports it, and the step that pins a key."""

import base64
import binascii
import fnmatch
import hashlib
import hmac
import re
import struct

FOLDER = "/root/.ssh"
KNOWN_HOSTS = FOLDER + "/known_hosts"
SYSTEM_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts"
MAX_LINES = 20000
TYPES = r"(?:ssh-ed25519|ecdsa-sha2-nistp(?:256|384|521)|ssh-rsa|sk-(?:ssh-ed25519|ecdsa-sha2-nistp256)@openssh\.com)"
_PUBLIC = re.compile(r"(%s) (AAAA[A-Za-z0-9+/]{16,4000}={0,2})(?:\s|\Z)" % TYPES)


def public_key(line):
    """Type and base64 of a public key's line, without its comment; empty if it is none."""
    match = _PUBLIC.match(line)
    if not match:
        return ""
    kind, text = match.groups()
    try:
        blob = base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return ""
    name = kind.encode("ascii")  # the key says its type again inside
    return "%s %s" % (kind, text) if blob.startswith(struct.pack(">I", len(name)) + name) else ""


def fingerprint(public):
    """As ssh shows it: SHA256:…"""
    digest = hashlib.sha256(base64.b64decode(public.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode("ascii").rstrip("=")


def _matches(field, host):
    """Whether the first field of a known_hosts line is about this host (port 22)."""
    if field.startswith("|1|"):
        words = field.split("|")
        try:
            salt, digest = base64.b64decode(words[2]), base64.b64decode(words[3])
        except (IndexError, ValueError, binascii.Error):
            return False
        return hmac.compare_digest(hmac.new(salt, host.encode("utf-8", "replace"), hashlib.sha1).digest(), digest)
    found = False
    for pattern in field.lower().split(","):
        if pattern.startswith("!") and fnmatch.fnmatchcase(host, pattern[1:]):
            return False
        # A bracket is an address with a port here, and to fnmatch a set of characters.
        found = found or (not pattern.startswith("[") and fnmatch.fnmatchcase(host, pattern))
    return found


def host_keys(text, host):
    """Public keys (type and base64) that a known_hosts file has for one host; marked lines do not count."""
    out = []
    for line in text.split("\n")[:MAX_LINES]:
        words = line.split()
        if len(words) < 3 or words[0][0] in "#@" or not _matches(words[0], host.lower()):
            continue
        public = public_key(" ".join(words[1:3]))
        if public and public not in out:
            out.append(public)
    return out
