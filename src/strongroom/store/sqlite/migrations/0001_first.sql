-- The journal: appended in every commit, never changed. `text` is JSON: number, at_ms, command, and where there are any
-- refusal, postings, lines and rows; the views below spell it out. The seal covers it byte for byte.

CREATE TABLE item (
    number INTEGER PRIMARY KEY,
    text   TEXT NOT NULL,
    salt   BLOB NOT NULL
) STRICT;

CREATE VIEW posting AS
    SELECT item.number AS item, p.key AS place, p.value ->> 0 AS account, p.value ->> 1 AS amount,
           p.value ->> 2 AS after, p.value ->> 3 AS count
    FROM item, json_each(item.text, '$.postings') AS p;

CREATE VIEW line AS
    SELECT item.number AS item, l.value ->> 0 AS number, l.value ->> 1 AS at_ms, l.value ->> 2 AS owner,
           l.value ->> 3 AS asset, l.value ->> 4 AS type, l.value ->> 5 AS ref, l.value ->> 6 AS amount,
           l.value ->> 7 AS net, l.value ->> 8 AS fees, l.value ->> 9 AS network, l.value ->> 10 AS other,
           l.value ->> 11 AS other_asset, l.value ->> 12 AS other_amount, l.value ->> 13 AS rate,
           l.value ->> 14 AS note, l.value ->> 15 AS all_count, l.value ->> 16 AS all_before,
           l.value ->> 17 AS all_jump, l.value ->> 18 AS kind_count, l.value ->> 19 AS kind_before,
           l.value ->> 20 AS kind_jump
    FROM item, json_each(item.text, '$.lines') AS l;

-- one row for every commit that had items: how far the journal went, and the seal's complete subtrees (32 bytes each,
-- largest first); `number` is the commit's
CREATE TABLE batch (
    number    INTEGER PRIMARY KEY,
    last_item INTEGER NOT NULL,
    at_ms     INTEGER NOT NULL,
    peaks     BLOB NOT NULL
) STRICT;

CREATE TRIGGER item_is_kept  BEFORE DELETE ON item  BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER item_stands   BEFORE UPDATE ON item  BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER batch_is_kept BEFORE DELETE ON batch BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;
CREATE TRIGGER batch_stands  BEFORE UPDATE ON batch BEGIN SELECT RAISE(ABORT, 'the journal is append-only'); END;

-- Swept behind the commits: what an owner's accounts and histories have come to, with all up to item
-- `progress.swept_item` in it. `heads` is JSON: by account its balance and number of postings; `spines` is MessagePack:
-- by asset * 256 + type the thread's (count, line) pairs, two little-endian int64 each; the lines' own links tell the same.

CREATE TABLE folio (
    owner   INTEGER PRIMARY KEY,
    heads   TEXT NOT NULL,
    spines  BLOB NOT NULL
) STRICT;

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
    FROM (SELECT CAST(h.key AS INTEGER) AS account, h.value ->> 0 AS after, h.value ->> 1 AS count
          FROM folio, json_each(folio.heads) AS h
          UNION ALL
          SELECT account, after, count FROM posting WHERE item > (SELECT swept_item FROM progress))
    GROUP BY account;

-- Guards.

-- One row for every commit that used signatures: for each the key's number (8 bytes), 48 bytes of signature, and the end
-- of its window in Unix ms * 2, + 1 if it authorised a change (8 bytes); numbers are big-endian. `expires_ms` is the
-- latest of them: then the row goes.
CREATE TABLE nonce (
    number     INTEGER PRIMARY KEY,
    expires_ms INTEGER NOT NULL,
    used       BLOB NOT NULL
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

CREATE TABLE branch (
    network INTEGER NOT NULL,
    number  INTEGER NOT NULL,
    derived INTEGER NOT NULL,
    known   INTEGER NOT NULL,
    PRIMARY KEY (network, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE epoch (id INTEGER PRIMARY KEY CHECK (id = 0), number INTEGER NOT NULL, began_ms INTEGER NOT NULL) STRICT;

CREATE TABLE reconciled (
    network INTEGER PRIMARY KEY,
    epoch   INTEGER NOT NULL,
    by_hand INTEGER NOT NULL,
    unknown INTEGER NOT NULL
) STRICT;

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
    internal      INTEGER NOT NULL,
    coinbase      INTEGER NOT NULL
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
    withdrawals     TEXT NOT NULL,
    spends          TEXT NOT NULL,
    state           INTEGER NOT NULL,
    candidates      TEXT NOT NULL,
    body            BLOB NOT NULL,
    blob            BLOB NOT NULL,
    chain_fee_units TEXT NOT NULL,
    height          INTEGER NOT NULL,
    created_ms      INTEGER NOT NULL,
    signed_ms       INTEGER NOT NULL,
    txid            TEXT NOT NULL,
    purpose         INTEGER NOT NULL,
    source          INTEGER NOT NULL,
    target          INTEGER NOT NULL,
    address         TEXT NOT NULL,
    units           TEXT NOT NULL,
    block           TEXT NOT NULL,
    filling         INTEGER NOT NULL,
    fillers         TEXT NOT NULL
) STRICT;
CREATE INDEX payment_by_state ON payment (network, state);
CREATE INDEX payment_by_block ON payment (network, block);

CREATE TABLE reserved (
    network INTEGER NOT NULL,
    spends  TEXT NOT NULL,
    payment INTEGER NOT NULL,
    PRIMARY KEY (network, spends)
) STRICT, WITHOUT ROWID;

CREATE TABLE coin (
    network  INTEGER NOT NULL,
    outpoint TEXT NOT NULL,
    position INTEGER NOT NULL,
    units    INTEGER NOT NULL,
    height   INTEGER NOT NULL,
    payment  INTEGER NOT NULL,
    PRIMARY KEY (network, outpoint)
) STRICT, WITHOUT ROWID;
CREATE INDEX coin_by_payment ON coin (network, payment);

CREATE TABLE pot (
    network     INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    asset       INTEGER NOT NULL,
    chain_units TEXT NOT NULL,
    filled      INTEGER NOT NULL,
    due         INTEGER NOT NULL,
    PRIMARY KEY (network, position, asset)
) STRICT, WITHOUT ROWID;
CREATE INDEX pot_by_filled ON pot (network, filled);
CREATE INDEX pot_by_due ON pot (network, due);

CREATE TABLE sent (
    network INTEGER NOT NULL,
    txid    TEXT NOT NULL,
    payment INTEGER NOT NULL,
    PRIMARY KEY (network, txid)
) STRICT, WITHOUT ROWID;

CREATE TABLE spent (
    owner  INTEGER NOT NULL,
    asset  INTEGER NOT NULL,
    day    INTEGER NOT NULL,
    amount INTEGER NOT NULL,
    PRIMARY KEY (owner, asset, day)
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (id INTEGER PRIMARY KEY CHECK (id = 0), version INTEGER NOT NULL, snapshot TEXT NOT NULL) STRICT;
