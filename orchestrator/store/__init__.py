# SPDX-License-Identifier: Apache-2.0
"""What is remembered of a fleet: runs, hosts, facts, plans, outcomes, proofs and an audit trail, in SQLite or PostgreSQL."""
