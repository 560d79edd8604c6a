# SPDX-License-Identifier: Apache-2.0
"""From one host to very many: runs in waves, waves in shards, shards given to whoever can do them, everything on record."""
