# SPDX-License-Identifier: Apache-2.0
"""Facts → Platform: tables of signatures as data (``policies/knowledge/platforms.yaml``) and one classifier."""
