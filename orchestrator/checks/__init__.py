# SPDX-License-Identifier: Apache-2.0
"""Validation checks, one small pure function each, registered by id."""
