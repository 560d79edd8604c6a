# SPDX-License-Identifier: Apache-2.0
"""Policy: load, match, decide, explain, lint."""
