# SPDX-License-Identifier: Apache-2.0
"""Loads and queries the knowledge data; no knowledge lives in code."""
