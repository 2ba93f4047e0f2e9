-- The peer's database. Amounts are integers in units of 10^-8, balances have their floor in the table.

CREATE TABLE users (
    id bigint PRIMARY KEY,
    username text NOT NULL UNIQUE,
    mail text NOT NULL UNIQUE
);

CREATE TABLE api_keys (
    key text PRIMARY KEY,
    secret text NOT NULL,
    user_id bigint NOT NULL REFERENCES users
);

CREATE TABLE balances (
    user_id bigint NOT NULL REFERENCES users,
    asset text NOT NULL,
    amount bigint NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (user_id, asset)
);

CREATE TABLE nonces (
    key text NOT NULL,
    nonce bigint NOT NULL,
    PRIMARY KEY (key, nonce)
);

CREATE TABLE transfers (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    sender bigint NOT NULL,
    receiver bigint NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE postings (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    transfer bigint NOT NULL,
    user_id bigint NOT NULL,
    asset text NOT NULL,
    amount bigint NOT NULL,
    after bigint NOT NULL
);

CREATE INDEX postings_of_user ON postings (user_id, id);
