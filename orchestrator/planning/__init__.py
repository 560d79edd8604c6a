# SPDX-License-Identifier: Apache-2.0
"""DesiredState × Facts → Plan, and its rendering."""
