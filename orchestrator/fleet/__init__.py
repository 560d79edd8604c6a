# SPDX-License-Identifier: Apache-2.0
"""ansible-runner sessions: who is asked, what is run, what came back."""
