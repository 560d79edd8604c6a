# SPDX-License-Identifier: Apache-2.0
"""The store in a browser and as JSON. Nothing in this room can change anything: its connections to the store are read-only."""
