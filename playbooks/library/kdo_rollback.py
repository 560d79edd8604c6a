#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's side of rolling back; the work is in module_utils/kdo_txn.py."""

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils import kdo_diff
from ansible.module_utils.kdo_txn import STATE_DIR, rollback, status


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
        originals = kdo_diff.Kept(STATE_DIR).originals() if module._diff else {}
        pictures = kdo_diff.Pictures("/", sorted(originals))
        result = rollback(force=module.params["force"], check=module.check_mode)
        if module._diff:
            result["diff"] = kdo_diff.rollback_rows(pictures, originals, result, module.check_mode)
    if result["error"]:
        module.fail_json(msg="%(what)s: %(why)s. To do: %(fix)s." % result["error"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
