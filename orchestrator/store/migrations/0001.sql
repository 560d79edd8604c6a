-- SPDX-License-Identifier: Apache-2.0
-- Written for SQLite and PostgreSQL at once. {blob} and {bytewise} are what each of them calls bytes and byte order.
-- Times are UTC, ISO 8601 to the millisecond, so that text order is time order.

-- Facts, plans, verdicts and whatever else is large: compressed JSON under the SHA-256 of its canonical bytes.
CREATE TABLE document (
  hash TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  body {blob} NOT NULL
);

CREATE TABLE run (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,            -- sweep | apply | enforce | pull
  state TEXT NOT NULL,           -- planned | running | pausing | paused | held | cancelling | cancelled | interrupted | done | failed
  who TEXT NOT NULL,
  tool TEXT NOT NULL,
  policy TEXT NOT NULL,
  policy_hash TEXT NOT NULL,
  inventory_hash TEXT NOT NULL DEFAULT '',
  plan_hash TEXT NOT NULL DEFAULT '',
  settings TEXT NOT NULL,        -- JSON: how it was asked for; never a host's variables
  hosts BIGINT NOT NULL DEFAULT 0,
  created TEXT NOT NULL,
  started TEXT,
  ended TEXT,
  why TEXT NOT NULL DEFAULT ''
);
CREATE INDEX run_created ON run (created);

CREATE TABLE wave (
  run TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  name TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL,           -- waiting | running | done | held
  hosts BIGINT NOT NULL,
  failed BIGINT NOT NULL DEFAULT 0,
  started TEXT,
  ended TEXT,
  why TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (run, number)
);

CREATE TABLE shard (
  run TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  number INTEGER NOT NULL,
  wave INTEGER NOT NULL,
  site TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL,           -- waiting | running | done | lost | cancelled
  attempt INTEGER NOT NULL DEFAULT 0,
  worker TEXT NOT NULL DEFAULT '',
  beat TEXT,
  started TEXT,
  ended TEXT,
  why TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (run, number)
);

-- One host in one run. state: waiting | running, or what came of it.
CREATE TABLE run_host (
  run TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  host TEXT {bytewise} NOT NULL,
  wave INTEGER NOT NULL,
  shard INTEGER NOT NULL,
  state TEXT NOT NULL,
  before TEXT NOT NULL DEFAULT '',   -- the host's state when the run began
  plan TEXT NOT NULL DEFAULT '',
  outcome TEXT NOT NULL DEFAULT '',
  verdict TEXT NOT NULL DEFAULT '',
  attempts INTEGER NOT NULL DEFAULT 0,
  at TEXT,
  why TEXT NOT NULL DEFAULT '',
  PRIMARY KEY (run, host)
);
CREATE INDEX run_host_shard ON run_host (run, shard);
CREATE INDEX run_host_state ON run_host (run, state);
CREATE INDEX run_host_host ON run_host (host);

-- What is known of each host now: the answer to `kdo status`.
CREATE TABLE host (
  host TEXT {bytewise} PRIMARY KEY,
  state TEXT NOT NULL,
  why TEXT NOT NULL DEFAULT '',
  arch TEXT NOT NULL DEFAULT '',
  hypervisor TEXT NOT NULL DEFAULT '',
  platform TEXT NOT NULL DEFAULT '',
  strategy TEXT NOT NULL DEFAULT '',
  rule TEXT NOT NULL DEFAULT '',
  kernel TEXT NOT NULL DEFAULT '',
  desired TEXT NOT NULL DEFAULT '',
  proof TEXT NOT NULL DEFAULT '',
  tags TEXT NOT NULL DEFAULT '',
  facts TEXT NOT NULL DEFAULT '',
  plan TEXT NOT NULL DEFAULT '',
  verdict TEXT NOT NULL DEFAULT '',
  policy_hash TEXT NOT NULL DEFAULT '',
  run TEXT NOT NULL DEFAULT '',
  seen TEXT NOT NULL,            -- when it last answered; '' = never
  tried TEXT NOT NULL,           -- when it was last asked
  since TEXT NOT NULL            -- when it came into this state
);
CREATE INDEX host_state ON host (state);
CREATE INDEX host_cell ON host (arch, hypervisor, state);

-- Every change of a host's facts, with the first and the last time that they were seen.
CREATE TABLE sighting (
  host TEXT {bytewise} NOT NULL,
  facts TEXT NOT NULL,
  first_seen TEXT NOT NULL,
  last_seen TEXT NOT NULL,
  PRIMARY KEY (host, facts)
);

CREATE TABLE proof (
  hash TEXT PRIMARY KEY,
  host TEXT {bytewise} NOT NULL,
  at TEXT NOT NULL,
  how TEXT NOT NULL,
  outcome TEXT NOT NULL,
  kernel TEXT NOT NULL,
  desired TEXT NOT NULL
);
CREATE INDEX proof_host ON proof (host, at);

CREATE TABLE waiver_used (
  run TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE,
  host TEXT {bytewise} NOT NULL,
  waiver TEXT NOT NULL,
  about TEXT NOT NULL,
  approver TEXT NOT NULL,
  expires TEXT NOT NULL,
  PRIMARY KEY (run, host, waiver, about)
);

-- Who did what, each entry with the hash of the one before it. key: an entry that is written again after a lost
-- connection is the same entry.
CREATE TABLE audit (
  number BIGINT PRIMARY KEY,
  key TEXT NOT NULL UNIQUE,
  at TEXT NOT NULL,
  who TEXT NOT NULL,
  what TEXT NOT NULL,
  subject TEXT NOT NULL,
  detail TEXT NOT NULL,
  previous TEXT NOT NULL,
  hash TEXT NOT NULL UNIQUE
);

-- What only one may do at a time: a host's transaction, an enforcement. Gone or renewed, never forgotten.
CREATE TABLE lease (
  name TEXT {bytewise} PRIMARY KEY,
  owner TEXT NOT NULL,
  about TEXT NOT NULL DEFAULT '',
  taken TEXT NOT NULL,
  beat TEXT NOT NULL
);
