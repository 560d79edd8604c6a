#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: collect what one host says of itself about crash dumps."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

DOCUMENTATION = r"""
---
module: kdo_facts
short_description: Collect what a host says of itself about kernel crash dumps
version_added: "0.1.0"
description:
  - Reads what decides how a kernel crash dump can be made on this host, in one round trip, and returns it as one document.
  - It looks at the processor, firmware and hypervisor marks, the kernel and its knobs, the crash kernel slot, the boot
    stack, the dump target, packages, services, and the files that kdump is configured by.
  - Nothing is concluded on the host and nothing is written there. Secrets in files and command lines are blanked.
options:
  interest:
    description:
      - What to look at, as in C(policies/knowledge/probe.yaml).
    type: dict
    required: true
  targets:
    description:
      - Paths where dumps may go.
    type: list
    elements: str
    default: [/var/crash]
  extra_files:
    description:
      - More files to read, beside those that O(interest) names.
    type: list
    elements: str
    default: []
  groups:
    description:
      - Groups of the inventory that the host is in. They are handed through into the document.
    type: list
    elements: str
    default: []
  tags:
    description:
      - The operator's tags of the host. They are handed through into the document.
    type: list
    elements: str
    default: []
  host:
    description:
      - Name of the host in the inventory.
    type: str
    default: ""
  udev:
    description:
      - Where devices are looked up. V(auto) takes the first that works.
    type: str
    choices: [auto, pyudev, udevadm, tree]
    default: auto
  record:
    description:
      - Also return a record, a tree of files from which the same document can be made again, with serial numbers,
        addresses, names and secrets taken out.
    type: bool
    default: false
notes:
  - Without root's rights less can be seen. RV(kdo_facts.probe.unseen) says what was not.
requirements:
  - Python 3.6 or later on the host, nothing else. pyudev is used if it is there.
attributes:
  check_mode:
    description: Can run in check mode, it never changes anything.
    support: full
author:
  - kdump-orchestrator contributors
"""

EXAMPLES = r"""
- name: Ask the host
  kdo_facts:
    host: "{{ inventory_hostname }}"
    interest: "{{ kdo_interest }}"
    targets: [/var/crash]
    groups: "{{ group_names }}"

- name: Ask the host and keep a record that can be shared
  kdo_facts:
    host: "{{ inventory_hostname }}"
    interest: "{{ kdo_interest }}"
    record: true
  register: answer
"""

RETURN = r"""
kdo_facts:
  description: The facts document of the host.
  returned: success
  type: dict
  contains:
    format_version:
      description: Version of the document's format.
      type: str
      returned: always
      sample: "1.0"
    probe:
      description: How the facts were collected, and what could not be seen.
      type: dict
      returned: always
      contains:
        unseen:
          description: What could not be seen, and why.
          type: list
          elements: dict
          returned: always
    signals:
      description: All that can tell which platform this is.
      type: dict
      returned: always
    kernel:
      description: The running kernel and its knobs.
      type: dict
      returned: always
    kexec:
      description: State of the crash kernel slot.
      type: dict
      returned: always
kdo_tree:
  description: The record, path to entry. An entry has a C(type) (file, dir or link) and C(text) or C(b64).
  returned: when O(record=true)
  type: dict
"""

import os
import traceback

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kdo_probe import probe
from ansible.module_utils.kdo_probe_reader import Reader
from ansible.module_utils.kdo_record import sanitise


def main():
    """Read, and answer."""
    module = AnsibleModule(
        argument_spec={
            "interest": {"type": "dict", "required": True},
            "extra_files": {"type": "list", "elements": "str", "default": []},
            "targets": {"type": "list", "elements": "str", "default": ["/var/crash"]},
            "groups": {"type": "list", "elements": "str", "default": []},
            "tags": {"type": "list", "elements": "str", "default": []},
            "host": {"type": "str", "default": ""},
            "udev": {"type": "str", "choices": ["auto", "pyudev", "udevadm", "tree"], "default": "auto"},
            "record": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    p = module.params
    # What was asked is the same for every host: it is not sent back.
    result = {"changed": False, "invocation": {}}
    interest = dict(p["interest"], files=list(p["interest"].get("files", [])) + p["extra_files"])
    try:
        reader = Reader("/", record=p["record"])
        inventory = {"groups": p["groups"], "tags": p["tags"]}
        facts, devices = probe(reader, p["host"], interest, p["targets"], inventory, p["udev"])
        result["kdo_facts"] = facts
        if p["record"]:
            seen = [devices.seen[path] for path in sorted(devices.seen)]
            names = [os.uname().nodename]
            result["kdo_tree"] = sanitise(reader.recorded, facts, seen, names, str(interest.get("unsafe_keys", "")))
    except Exception as e:  # whatever it is: a message, never a traceback
        place = traceback.extract_tb(e.__traceback__)[-1]
        where = "%s:%s" % (os.path.basename(place[0]), place[1])
        module.fail_json(
            msg="the probe failed at %s: %s: %s" % (where, e.__class__.__name__, str(e)[:300]), changed=False
        )
    module.exit_json(**result)


if __name__ == "__main__":
    main()
