# SPDX-License-Identifier: Apache-2.0
"""`kdo`: one module per verb, no logic."""
