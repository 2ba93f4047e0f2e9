-- The journal: appended in every commit, never changed.

CREATE TABLE item (
    number  INTEGER PRIMARY KEY,
    at_ms   INTEGER NOT NULL,
    command TEXT NOT NULL,
    refusal TEXT NOT NULL,
    effects TEXT NOT NULL,
    salt    BLOB NOT NULL
) STRICT;

-- number = item * 64 + place in the item, so that an item's postings are found without an index
CREATE TABLE posting (
    number  INTEGER PRIMARY KEY,
    account INTEGER NOT NULL,
    amount  INTEGER NOT NULL,
    after   INTEGER NOT NULL,
    count   INTEGER NOT NULL
) STRICT;

-- number = item * 16 + place in the item
CREATE TABLE line (
    number       INTEGER PRIMARY KEY,
    at_ms        INTEGER NOT NULL,
    owner        INTEGER NOT NULL,
    asset        INTEGER NOT NULL,
    type         INTEGER NOT NULL,
    ref          INTEGER NOT NULL,
    amount       INTEGER NOT NULL,
    net          INTEGER NOT NULL,
    fees         INTEGER NOT NULL,
    network      INTEGER NOT NULL,
    other        INTEGER NOT NULL,
    other_asset  INTEGER NOT NULL,
    other_amount INTEGER NOT NULL,
    rate         TEXT NOT NULL,
    note         INTEGER NOT NULL,
    all_count    INTEGER NOT NULL,
    all_before   INTEGER NOT NULL,
    all_jump     INTEGER NOT NULL,
    kind_count   INTEGER NOT NULL,
    kind_before  INTEGER NOT NULL,
    kind_jump    INTEGER NOT NULL
) STRICT;

-- one row for every commit that had items: how far the journal went, and the seal's complete subtrees (32 bytes each,
-- largest first); `number` is the commit's
CREATE TABLE batch (
    number    INTEGER PRIMARY KEY,
    last_item INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    peaks     BLOB NOT NULL
) STRICT;

CREATE TRIGGER item_is_kept    BEFORE DELETE ON item    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER item_stands     BEFORE UPDATE ON item    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER posting_is_kept BEFORE DELETE ON posting BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER posting_stands  BEFORE UPDATE ON posting BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER line_is_kept    BEFORE DELETE ON line    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER line_stands     BEFORE UPDATE ON line    BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER batch_is_kept   BEFORE DELETE ON batch   BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER batch_stands    BEFORE UPDATE ON batch   BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

-- Swept behind the commits; all up to item `progress.swept_item` is in them.

CREATE TABLE head (
    account INTEGER PRIMARY KEY,
    after   INTEGER NOT NULL,
    count   INTEGER NOT NULL
) STRICT;

CREATE TABLE thread (
    owner INTEGER NOT NULL,
    asset INTEGER NOT NULL,
    type  INTEGER NOT NULL,
    spine TEXT NOT NULL,
    PRIMARY KEY (owner, asset, type)
) STRICT, WITHOUT ROWID;

-- One row: how far the sweep is, how many commits there were (which tells whether one in doubt is among them), and how
-- many were made only to end a doubt.
CREATE TABLE progress (
    id         INTEGER PRIMARY KEY CHECK (id = 0),
    swept_item INTEGER NOT NULL,
    commits    INTEGER NOT NULL,
    forced     INTEGER NOT NULL
) STRICT;
INSERT INTO progress VALUES (0, 0, 0, 0);

-- Every account's balance: the head, or the later posting.
CREATE VIEW balance AS
    SELECT account, account >> 22 AS owner, account >> 6 & 65535 AS asset, account & 63 AS purpose, after, max(count) AS count
    FROM (SELECT account, after, count FROM head
          UNION ALL
          SELECT account, after, count FROM posting WHERE number >= ((SELECT swept_item FROM progress) + 1) * 64)
    GROUP BY account;

-- Guards.

CREATE TABLE nonce (
    number     INTEGER PRIMARY KEY,
    api_key    INTEGER NOT NULL,
    signature  BLOB NOT NULL,
    expires_ms INTEGER NOT NULL,
    spent      INTEGER NOT NULL
) STRICT;

CREATE TABLE reply (
    owner       INTEGER NOT NULL,
    digest      BLOB NOT NULL,
    fingerprint BLOB NOT NULL,
    at_ms       INTEGER NOT NULL,
    result      BLOB NOT NULL,
    expires_ms  INTEGER NOT NULL,
    PRIMARY KEY (owner, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX reply_by_expiry ON reply (expires_ms);

-- Kept rows.

CREATE TABLE user (
    uid        INTEGER PRIMARY KEY,
    parent     INTEGER NOT NULL,
    created_ms INTEGER NOT NULL,
    frozen     INTEGER NOT NULL,
    active     INTEGER NOT NULL
) STRICT;
CREATE INDEX user_by_parent ON user (parent);

CREATE TABLE profile (uid INTEGER PRIMARY KEY, username TEXT NOT NULL, mail TEXT NOT NULL) STRICT;

CREATE TABLE name (folded TEXT NOT NULL PRIMARY KEY, uid INTEGER NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE api_key (
    text        TEXT NOT NULL PRIMARY KEY,
    number      INTEGER NOT NULL,
    owner       INTEGER NOT NULL,
    secret      BLOB NOT NULL,
    permissions INTEGER NOT NULL,
    networks    TEXT NOT NULL,
    expires_ms  INTEGER NOT NULL,
    revoked_ms  INTEGER NOT NULL,
    created_ms  INTEGER NOT NULL,
    tier        TEXT NOT NULL,
    label       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX api_key_by_owner ON api_key (owner);

CREATE TABLE address (
    network  INTEGER NOT NULL,
    address  TEXT NOT NULL,
    tag      TEXT NOT NULL,
    position INTEGER NOT NULL,
    owner    INTEGER NOT NULL,
    asset    INTEGER NOT NULL,
    given_ms INTEGER NOT NULL,
    paid     INTEGER NOT NULL,
    deleted  INTEGER NOT NULL,
    PRIMARY KEY (network, address, tag)
) STRICT, WITHOUT ROWID;
CREATE INDEX address_in_pool ON address (network, owner);

CREATE TABLE address_book (
    owner   INTEGER NOT NULL,
    asset   INTEGER NOT NULL,
    network INTEGER NOT NULL,
    listed  TEXT NOT NULL,
    unpaid  TEXT NOT NULL,
    PRIMARY KEY (owner, asset, network)
) STRICT, WITHOUT ROWID;

CREATE TABLE placed (
    network  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    address  TEXT NOT NULL,
    tag      TEXT NOT NULL,
    PRIMARY KEY (network, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE branch (network INTEGER PRIMARY KEY, derived INTEGER NOT NULL) STRICT;

CREATE TABLE tip (network INTEGER PRIMARY KEY, height INTEGER NOT NULL, block TEXT NOT NULL, at_ms INTEGER NOT NULL) STRICT;

CREATE TABLE passed (
    network INTEGER NOT NULL,
    slot    INTEGER NOT NULL,
    height  INTEGER NOT NULL,
    block   TEXT NOT NULL,
    PRIMARY KEY (network, slot)
) STRICT, WITHOUT ROWID;

CREATE TABLE holding (
    network     INTEGER NOT NULL,
    asset       INTEGER NOT NULL,
    chain_units TEXT NOT NULL,
    PRIMARY KEY (network, asset)
) STRICT, WITHOUT ROWID;

CREATE TABLE deposit (
    ref           INTEGER PRIMARY KEY,
    owner         INTEGER NOT NULL,
    asset         INTEGER NOT NULL,
    network       INTEGER NOT NULL,
    address       TEXT NOT NULL,
    tag           TEXT NOT NULL,
    txid          TEXT NOT NULL,
    position      INTEGER NOT NULL,
    chain_units   TEXT NOT NULL,
    amount        INTEGER NOT NULL,
    fee           INTEGER NOT NULL,
    net           INTEGER NOT NULL,
    state         INTEGER NOT NULL,
    height        INTEGER NOT NULL,
    block         TEXT NOT NULL,
    seen_ms       INTEGER NOT NULL,
    internal      INTEGER NOT NULL
) STRICT;
CREATE INDEX deposit_by_state ON deposit (network, state);
CREATE INDEX deposit_by_block ON deposit (network, block);

CREATE TABLE outpoint (
    network  INTEGER NOT NULL,
    txid     TEXT NOT NULL,
    position INTEGER NOT NULL,
    ref      INTEGER NOT NULL,
    PRIMARY KEY (network, txid, position)
) STRICT, WITHOUT ROWID;

CREATE TABLE withdrawal (
    ref          INTEGER PRIMARY KEY,
    owner        INTEGER NOT NULL,
    asset        INTEGER NOT NULL,
    network      INTEGER NOT NULL,
    address      TEXT NOT NULL,
    tag          TEXT NOT NULL,
    asked        INTEGER NOT NULL,
    to_address   INTEGER NOT NULL,
    fee          INTEGER NOT NULL,
    state        INTEGER NOT NULL,
    requested_ms INTEGER NOT NULL,
    deposit      INTEGER NOT NULL,
    payment      INTEGER NOT NULL,
    txid         TEXT NOT NULL,
    height       INTEGER NOT NULL,
    uuid         TEXT NOT NULL
) STRICT;
CREATE INDEX withdrawal_by_state ON withdrawal (state);

CREATE TABLE payment (
    ref             INTEGER PRIMARY KEY,
    network         INTEGER NOT NULL,
    asset           INTEGER NOT NULL,
    withdrawal      INTEGER NOT NULL,
    spends          TEXT NOT NULL,
    state           INTEGER NOT NULL,
    candidates      TEXT NOT NULL,
    blob            BLOB NOT NULL,
    chain_fee_units TEXT NOT NULL,
    height          INTEGER NOT NULL,
    created_ms      INTEGER NOT NULL
) STRICT;
CREATE INDEX payment_by_state ON payment (network, state);

CREATE TABLE reserved (
    network INTEGER NOT NULL,
    spends  TEXT NOT NULL,
    payment INTEGER NOT NULL,
    PRIMARY KEY (network, spends)
) STRICT, WITHOUT ROWID;

CREATE TABLE spent (
    owner  INTEGER NOT NULL,
    asset  INTEGER NOT NULL,
    day    INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (owner, asset, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL, snapshot TEXT NOT NULL) STRICT;
