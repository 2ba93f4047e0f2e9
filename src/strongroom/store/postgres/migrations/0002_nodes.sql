-- What a commit changed that other nodes may have in memory: JSON, a list of [kind, key...]; empty where there is nothing.
ALTER TABLE batch ADD COLUMN changed TEXT NOT NULL DEFAULT '';

-- The numbers of nodes that make order references at the same time. Whoever has the advisory lock of a number makes
-- references with it; `holder` tells a node that has lost its connection whether another one had the number meanwhile.
CREATE TABLE node (number BIGINT PRIMARY KEY, holder UUID NOT NULL);
