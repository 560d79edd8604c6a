# SPDX-License-Identifier: Apache-2.0
"""Whether it really dumps: crashes ordered in a guest or on a real host, judged, kept, and what they hold for."""
