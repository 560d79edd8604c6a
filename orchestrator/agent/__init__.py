# SPDX-License-Identifier: Apache-2.0
"""kdo on the host itself: it watches, it takes its policy from a bundle, and it reports. Nobody comes in."""
