#!/usr/bin/python
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see https://www.gnu.org/licenses/gpl-3.0.txt)
"""Ansible's side of a crash test; the work is in module_utils/kdo_crash.py."""

DOCUMENTATION = r"""
---
module: kdo_crash
short_description: Crash a host on purpose, and judge what the crash has left
description:
  - Made for C(kdo crash-test), which asks for consent and checks the host first.
options:
  phase:
    description: Look whether the host is ready, crash it, or judge the crash in the boot after it.
    type: str
    required: true
    choices: [check, crash, verdict]
  spec_b64:
    description: Base64 of a JSON object (token, boot_id, cpu, folder), so that no text is ever taken for a template.
    type: str
    required: true
attributes:
  check_mode:
    description: Goes through every precondition and writes nothing; nothing is crashed.
    support: full
  diff_mode:
    description: There is nothing to compare.
    support: none
author:
  - kdump-orchestrator contributors (@kdump-orchestrator)
"""

EXAMPLES = r"""
- name: Is the host ready for a crash
  kdo_crash:
    phase: check
    spec_b64: "{{ {'folder': '/var/crash'} | to_json | b64encode }}"
"""

RETURN = r"""
state:
  description: C(check), C(ordered), C(crashed), C(not-crashed) or C(refused).
  returned: always
  type: str
dump:
  description: The newest dump that was not there before, with size, panic line, problems, and why it was not read if it was not.
  returned: by the verdict, when there is one
  type: dict
again:
  description: This verdict was given before; its answer may have been lost on the way.
  returned: by the verdict, when it is so
  type: bool
error:
  description: What was wrong, why, and what to do.
  returned: always
  type: dict
"""

import base64
import json

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.kdo_crash import Host, check, order, verdict


def main():
    module = AnsibleModule(
        argument_spec={
            "phase": {"type": "str", "required": True, "choices": ["check", "crash", "verdict"]},
            "spec_b64": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    spec = json.loads(base64.b64decode(module.params["spec_b64"]).decode("utf-8"))
    phase = "check" if module.check_mode else module.params["phase"]
    result = {"check": check, "crash": order, "verdict": verdict}[phase](spec, Host())
    if result["error"]:
        module.fail_json(msg="%(what)s: %(why)s. To do: %(fix)s." % result["error"], **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
