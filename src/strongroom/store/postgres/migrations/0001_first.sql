-- The journal: appended in every commit, never changed. `text` is JSON: number, at_ms, command, and where there are any
-- refusal, postings, lines and rows; the views below spell it out. The seal covers it byte for byte.

CREATE TABLE item (
    number BIGINT PRIMARY KEY,
    text   TEXT NOT NULL,
    salt   BYTEA NOT NULL
);

-- The one row that every batch locks before it decides: how many commits there were, how far the journal went, the stamp
-- of its newest item, and the seal's complete subtrees (32 bytes each, largest first); how many commits were made only to
-- end a doubt.
CREATE TABLE journal (
    id        BIGINT PRIMARY KEY CHECK (id = 0),
    commits   BIGINT NOT NULL,
    last_item BIGINT NOT NULL,
    last_ms   BIGINT NOT NULL,
    peaks     BYTEA NOT NULL,
    forced    BIGINT NOT NULL
) WITH (fillfactor = 20);
INSERT INTO journal VALUES (0, 0, 0, 0, '', 0);

-- One row for every commit: by its id whoever lost the connection finds out whether it is there. `items` counts those it
-- appended; a row of a commit without any is forgotten after a day, the others are the journal's seals. `changed` is what
-- other nodes may have in memory: JSON, a list of [kind, key...]; empty where there is nothing. `owners` are those whose
-- folios it has written.
CREATE TABLE batch (
    number    BIGINT PRIMARY KEY,
    id        UUID NOT NULL UNIQUE,
    items     BIGINT NOT NULL,
    last_item BIGINT NOT NULL,
    at_ms     BIGINT NOT NULL,
    peaks     BYTEA NOT NULL,
    changed   TEXT NOT NULL,
    owners    BIGINT[] NOT NULL DEFAULT '{}'
);
CREATE INDEX batch_by_age ON batch (at_ms) WHERE items = 0;

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the journal is append-only'; END $$;
CREATE TRIGGER item_stands  BEFORE DELETE OR UPDATE ON item FOR EACH ROW EXECUTE FUNCTION refuse_change();
CREATE TRIGGER item_stays   BEFORE TRUNCATE ON item EXECUTE FUNCTION refuse_change();
CREATE TRIGGER batch_stands BEFORE DELETE OR UPDATE ON batch FOR EACH ROW WHEN (OLD.items > 0)
    EXECUTE FUNCTION refuse_change();
CREATE TRIGGER batch_stays  BEFORE TRUNCATE ON batch EXECUTE FUNCTION refuse_change();

-- The numbers of nodes that make order references at the same time. Whoever has the advisory lock of a number makes
-- references with it; `holder` tells a node that has lost its connection whether another one had the number meanwhile.
CREATE TABLE node (number BIGINT PRIMARY KEY, holder UUID NOT NULL);

-- Rate limits that somebody broke, so that all nodes refuse it (docs/reference/settings.md, rate_limits): until when, on which
-- rung of the ladder, when the ladder starts again, and when the row was written, by the server's clock. No part of the books.
CREATE TABLE block (
    name     TEXT COLLATE "C" PRIMARY KEY,
    until_ms BIGINT NOT NULL,
    rung     BIGINT NOT NULL,
    fresh_ms BIGINT NOT NULL,
    told_ms  BIGINT NOT NULL
);
CREATE INDEX block_by_telling ON block (told_ms, name);
CREATE INDEX block_by_end ON block (fresh_ms);

-- What every owner's accounts and histories have come to, written with the commit. `heads` is JSON: by account its balance
-- and number of postings; `spines` is MessagePack: by asset * 256 + type the thread's (count, line) pairs, two
-- little-endian int64 each; the lines' own links tell the same. `edition` counts how many times it was written: a batch
-- that was decided over another edition is refused.
CREATE TABLE folio (
    owner   BIGINT PRIMARY KEY,
    heads   TEXT NOT NULL,
    spines  BYTEA NOT NULL,
    edition BIGINT NOT NULL DEFAULT 1
) WITH (fillfactor = 70);

CREATE VIEW posting AS
    SELECT item.number AS item, p.place - 1 AS place, (p.value ->> 0)::bigint AS account, (p.value ->> 1)::bigint AS amount,
           (p.value ->> 2)::bigint AS after, (p.value ->> 3)::bigint AS count
    FROM item, json_array_elements(item.text::json -> 'postings') WITH ORDINALITY AS p (value, place);

CREATE VIEW balance AS
    SELECT h.key::bigint AS account, h.key::bigint >> 22 AS owner, h.key::bigint >> 6 & 65535 AS asset,
           h.key::bigint & 63 AS purpose, (h.value ->> 0)::bigint AS after, (h.value ->> 1)::bigint AS count
    FROM folio, json_each(folio.heads::json) AS h;

-- Guards.

CREATE TABLE nonce (
    api_key    BIGINT NOT NULL,
    signature  BYTEA NOT NULL,
    expires_ms BIGINT NOT NULL,
    spent      BOOLEAN NOT NULL,
    PRIMARY KEY (api_key, signature)
);
CREATE INDEX nonce_by_expiry ON nonce (expires_ms);

CREATE TABLE reply (
    owner       BIGINT NOT NULL,
    digest      BYTEA NOT NULL,
    fingerprint BYTEA NOT NULL,
    at_ms       BIGINT NOT NULL,
    result      BYTEA NOT NULL,
    expires_ms  BIGINT NOT NULL,
    PRIMARY KEY (owner, digest)
);
CREATE INDEX reply_by_expiry ON reply (expires_ms);

-- Kept rows.

CREATE TABLE "user" (
    uid        BIGINT PRIMARY KEY,
    parent     BIGINT NOT NULL,
    created_ms BIGINT NOT NULL,
    frozen     BOOLEAN NOT NULL,
    active     BOOLEAN NOT NULL
);
CREATE INDEX user_by_parent ON "user" (parent);

CREATE TABLE profile (uid BIGINT PRIMARY KEY, username TEXT COLLATE "C" NOT NULL, mail TEXT COLLATE "C" NOT NULL);

CREATE TABLE name (folded TEXT COLLATE "C" NOT NULL PRIMARY KEY, uid BIGINT NOT NULL);

CREATE TABLE api_key (
    text        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    number      BIGINT NOT NULL,
    owner       BIGINT NOT NULL,
    secret      BYTEA NOT NULL,
    permissions BIGINT NOT NULL,
    networks    TEXT COLLATE "C" NOT NULL,
    expires_ms  BIGINT NOT NULL,
    revoked_ms  BIGINT NOT NULL,
    created_ms  BIGINT NOT NULL,
    tier        TEXT COLLATE "C" NOT NULL,
    label       TEXT COLLATE "C" NOT NULL
);
CREATE INDEX api_key_by_owner ON api_key (owner);

CREATE TABLE address (
    network  BIGINT NOT NULL,
    address  TEXT COLLATE "C" NOT NULL,
    tag      TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    owner    BIGINT NOT NULL,
    asset    BIGINT NOT NULL,
    given_ms BIGINT NOT NULL,
    paid     BOOLEAN NOT NULL,
    deleted  BOOLEAN NOT NULL,
    PRIMARY KEY (network, address, tag)
);

CREATE TABLE address_book (
    owner   BIGINT NOT NULL,
    asset   BIGINT NOT NULL,
    network BIGINT NOT NULL,
    listed  TEXT COLLATE "C" NOT NULL,
    unpaid  TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (owner, asset, network)
);

CREATE TABLE placed (
    network  BIGINT NOT NULL,
    position BIGINT NOT NULL,
    address  TEXT COLLATE "C" NOT NULL,
    tag      TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (network, position)
);

CREATE TABLE branch (
    network BIGINT NOT NULL,
    number  BIGINT NOT NULL,
    derived BIGINT NOT NULL,
    known   BIGINT NOT NULL,
    PRIMARY KEY (network, number)
);

CREATE TABLE epoch (id BIGINT PRIMARY KEY CHECK (id = 0), number BIGINT NOT NULL, began_ms BIGINT NOT NULL);

CREATE TABLE reconciled (
    network BIGINT PRIMARY KEY,
    epoch   BIGINT NOT NULL,
    by_hand BOOLEAN NOT NULL,
    unknown BIGINT NOT NULL
);

CREATE TABLE tip (network BIGINT PRIMARY KEY, height BIGINT NOT NULL, block TEXT COLLATE "C" NOT NULL, at_ms BIGINT NOT NULL);

CREATE TABLE passed (
    network BIGINT NOT NULL,
    slot    BIGINT NOT NULL,
    height  BIGINT NOT NULL,
    block   TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (network, slot)
);

CREATE TABLE holding (
    network     BIGINT NOT NULL,
    asset       BIGINT NOT NULL,
    chain_units TEXT COLLATE "C" NOT NULL,
    PRIMARY KEY (network, asset)
);

CREATE TABLE deposit (
    ref           BIGINT PRIMARY KEY,
    owner         BIGINT NOT NULL,
    asset         BIGINT NOT NULL,
    network       BIGINT NOT NULL,
    address       TEXT COLLATE "C" NOT NULL,
    tag           TEXT COLLATE "C" NOT NULL,
    txid          TEXT COLLATE "C" NOT NULL,
    position      BIGINT NOT NULL,
    chain_units   TEXT COLLATE "C" NOT NULL,
    amount        BIGINT NOT NULL,
    fee           BIGINT NOT NULL,
    net           BIGINT NOT NULL,
    state         BIGINT NOT NULL,
    height        BIGINT NOT NULL,
    block         TEXT COLLATE "C" NOT NULL,
    seen_ms       BIGINT NOT NULL,
    internal      BOOLEAN NOT NULL,
    coinbase      BOOLEAN NOT NULL
);
CREATE INDEX deposit_by_state ON deposit (network, state);
CREATE INDEX deposit_by_block ON deposit (network, block);

CREATE TABLE outpoint (
    network  BIGINT NOT NULL,
    txid     TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    ref      BIGINT NOT NULL,
    PRIMARY KEY (network, txid, position)
);

CREATE TABLE withdrawal (
    ref          BIGINT PRIMARY KEY,
    owner        BIGINT NOT NULL,
    asset        BIGINT NOT NULL,
    network      BIGINT NOT NULL,
    address      TEXT COLLATE "C" NOT NULL,
    tag          TEXT COLLATE "C" NOT NULL,
    asked        BIGINT NOT NULL,
    to_address   BIGINT NOT NULL,
    fee          BIGINT NOT NULL,
    state        BIGINT NOT NULL,
    requested_ms BIGINT NOT NULL,
    deposit      BIGINT NOT NULL,
    payment      BIGINT NOT NULL,
    txid         TEXT COLLATE "C" NOT NULL,
    height       BIGINT NOT NULL,
    uuid         TEXT COLLATE "C" NOT NULL
);
CREATE INDEX withdrawal_by_state ON withdrawal (state);

CREATE TABLE payment (
    ref             BIGINT PRIMARY KEY,
    network         BIGINT NOT NULL,
    asset           BIGINT NOT NULL,
    withdrawals     TEXT COLLATE "C" NOT NULL,
    spends          TEXT COLLATE "C" NOT NULL,
    state           BIGINT NOT NULL,
    candidates      TEXT COLLATE "C" NOT NULL,
    body            BYTEA NOT NULL,
    blob            BYTEA NOT NULL,
    chain_fee_units TEXT COLLATE "C" NOT NULL,
    height          BIGINT NOT NULL,
    created_ms      BIGINT NOT NULL,
    signed_ms       BIGINT NOT NULL,
    txid            TEXT COLLATE "C" NOT NULL,
    purpose         BIGINT NOT NULL,
    source          BIGINT NOT NULL,
    target          BIGINT NOT NULL,
    address         TEXT COLLATE "C" NOT NULL,
    units           TEXT COLLATE "C" NOT NULL,
    block           TEXT COLLATE "C" NOT NULL,
    filling         BOOLEAN NOT NULL,
    fillers         TEXT COLLATE "C" NOT NULL
);
CREATE INDEX payment_by_state ON payment (network, state);
CREATE INDEX payment_by_block ON payment (network, block);

CREATE TABLE reserved (
    network BIGINT NOT NULL,
    spends  TEXT COLLATE "C" NOT NULL,
    payment BIGINT NOT NULL,
    PRIMARY KEY (network, spends)
);

CREATE TABLE coin (
    network  BIGINT NOT NULL,
    outpoint TEXT COLLATE "C" NOT NULL,
    position BIGINT NOT NULL,
    units    BIGINT NOT NULL,
    height   BIGINT NOT NULL,
    payment  BIGINT NOT NULL,
    PRIMARY KEY (network, outpoint)
);
CREATE INDEX coin_by_payment ON coin (network, payment);

CREATE TABLE pot (
    network     BIGINT NOT NULL,
    position    BIGINT NOT NULL,
    asset       BIGINT NOT NULL,
    chain_units TEXT COLLATE "C" NOT NULL,
    filled      BOOLEAN NOT NULL,
    due         BOOLEAN NOT NULL,
    PRIMARY KEY (network, position, asset)
);
CREATE INDEX pot_by_filled ON pot (network, filled);
CREATE INDEX pot_by_due ON pot (network, due);

CREATE TABLE sent (
    network BIGINT NOT NULL,
    txid    TEXT COLLATE "C" NOT NULL,
    payment BIGINT NOT NULL,
    PRIMARY KEY (network, txid)
);

CREATE TABLE spent (
    owner  BIGINT NOT NULL,
    asset  BIGINT NOT NULL,
    day    BIGINT NOT NULL,
    amount BIGINT NOT NULL,
    PRIMARY KEY (owner, asset, day)
);

CREATE TABLE settings (id BIGINT PRIMARY KEY CHECK (id = 0), version BIGINT NOT NULL, snapshot TEXT COLLATE "C" NOT NULL);
