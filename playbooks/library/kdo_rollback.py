#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's side of rolling back; the work is in module_utils/kdo_txn.py."""

DOCUMENTATION = r"""
---
module: kdo_rollback
short_description: Roll back the newest kdump transaction of a host
description:
  - Puts back what the newest committed transaction changed. Doing it again rolls back the one before.
  - A configuration file that somebody changed since is a reason to refuse, unless O(force) is set.
options:
  force:
    description: Put the old content back even over later changes. What is written over is kept in the transaction.
    type: bool
    default: false
  list:
    description: Only report the transactions on the host.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would be put back, and writes nothing at all.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
author:
  - kdump-orchestrator contributors (@kdump-orchestrator)
"""

EXAMPLES = r"""
- name: What has been done to this host
  kdo_rollback:
    list: true
  register: kdo_history

- name: Take the newest change back
  kdo_rollback:
"""

RETURN = r"""
state:
  description: How it ended - C(rolled-back), C(nothing), C(undo-incomplete), C(refused), C(check) or C(ok) for a list.
  returned: always
  type: str
transaction:
  description: Name of the transaction.
  returned: when there is one
  type: str
put_back:
  description: Paths and other things that were (or would be) put back.
  returned: unless O(list)
  type: list
  elements: str
reboot:
  description: Whether the running kernel still has boot arguments that are no longer configured.
  returned: unless O(list)
  type: bool
transactions:
  description: Every transaction with its state, oldest first.
  returned: with O(list)
  type: list
  elements: dict
error:
  description: What went wrong, why, and what to do.
  returned: always
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kdo_txn import rollback, status


def main():
    module = AnsibleModule(
        argument_spec={
            "force": {"type": "bool", "default": False},
            "list": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if module.params["list"]:
        result = dict(status(), changed=False)
    else:
        result = rollback(force=module.params["force"], check=module.check_mode)
    if result["error"]:
        module.fail_json(msg="%(what)s: %(why)s. To do: %(fix)s." % result["error"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
