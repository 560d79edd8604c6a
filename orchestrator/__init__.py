# SPDX-License-Identifier: Apache-2.0
"""kdump-orchestrator: makes kernel crash dumps work on every Linux host of a fleet, and proves it."""

__version__ = "0.1.0"
