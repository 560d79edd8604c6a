# SPDX-License-Identifier: Apache-2.0
"""What is handed out: wheel, sdist, Debian package, SBOM and the locked development set, each the same bytes every time.

Nothing here is needed to run kdump-orchestrator; it is used from a checkout or an unpacked sdist, by `make`.
"""
