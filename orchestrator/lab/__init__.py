# SPDX-License-Identifier: Apache-2.0
"""Disposable QEMU guests: build an image, boot it, configure it, crash it, and judge what it left behind.

Nothing here is needed to run kdump-orchestrator; it is how its claims are proved. Everything is emulated (TCG),
so it needs neither ``/dev/kvm`` nor a network, and all that a guest can reach is the loopback of this machine.
"""
