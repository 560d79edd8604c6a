# SPDX-License-Identifier: Apache-2.0
"""The typed documents that travel along the arrows; (de)serialisation only, no decisions."""
