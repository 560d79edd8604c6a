# SPDX-License-Identifier: Apache-2.0
"""Callback plugins that a site has for Ansible hear of what kdo runs, wherever Ansible would have found them."""

from __future__ import annotations

import pytest

CALLBACK = """
from pathlib import Path
from ansible.plugins.callback import CallbackBase

class CallbackModule(CallbackBase):
    CALLBACK_VERSION, CALLBACK_TYPE, CALLBACK_NAME = 2.0, "notification", "mark"

    def v2_playbook_on_start(self, playbook):
        Path({mark!r}).write_text(playbook._file_name)
"""


@pytest.mark.parametrize("where", ["home", "configuration", "environment"])
def test_callbacks_of_the_site_are_called(kdo_here, tmp_path, monkeypatch, where):
    mark = tmp_path / "mark"
    folder = tmp_path / {"home": ".ansible/plugins/callback"}.get(where, "site/callbacks")
    folder.mkdir(parents=True)
    (folder / "mark.py").write_text(CALLBACK.format(mark=str(mark)))
    if where == "configuration":
        (tmp_path / "ansible.cfg").write_text("[defaults]\ncallback_plugins = nowhere:site/callbacks\n")
    if where == "environment":
        monkeypatch.setenv("ANSIBLE_CALLBACK_PLUGINS", str(folder))
    done = kdo_here("detect", "-i", "web1,")  # nobody answers: the callback hears of the run all the same
    assert done.returncode == 4 and mark.read_text().endswith("playbooks/kdo/detect.yml"), done.stderr
