#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0 or later (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible module: collect what one host says of itself about crash dumps."""

from __future__ import absolute_import, division, print_function

__metaclass__ = type

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
