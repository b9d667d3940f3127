-- The tables and the one function of the metastore, format 1. Installed under an advisory lock; running it again changes nothing.

CREATE TABLE IF NOT EXISTS forebay_meta_kv (
    key     bytea PRIMARY KEY,
    version bigint NOT NULL,
    value   bytea NOT NULL
);
CREATE TABLE IF NOT EXISTS forebay_meta_token (
    token   bytea PRIMARY KEY,
    version bigint NOT NULL
);
CREATE INDEX IF NOT EXISTS forebay_meta_token_version ON forebay_meta_token (version);
CREATE TABLE IF NOT EXISTS forebay_meta_counter (
    name text PRIMARY KEY,
    next bigint NOT NULL
);
CREATE SEQUENCE IF NOT EXISTS forebay_meta_version;

-- A commit. Answers the version, or the index of a check that did not hold. Every statement below sees what was committed before
-- it began (READ COMMITTED, a volatile function), so the checks see the work of whoever held the locks before.
CREATE OR REPLACE FUNCTION forebay_meta_commit_1(
    in_token bytea,
    lock_ids bigint[], lock_exclusive boolean[],
    check_key bytea[], check_at bigint[], check_index integer[],
    range_from bytea[], range_to bytea[], range_index integer[],
    put_key bytea[], put_value bytea[], delete_key bytea[],
    OUT out_version bigint, OUT out_conflict integer)
LANGUAGE plpgsql VOLATILE AS $$
BEGIN
    -- In the order of the arrays: ascending in all transactions, the root first.
    FOR i IN 1 .. cardinality(lock_ids) LOOP
        IF lock_exclusive[i] THEN
            PERFORM pg_advisory_xact_lock(lock_ids[i]);
        ELSE
            PERFORM pg_advisory_xact_lock_shared(lock_ids[i]);
        END IF;
    END LOOP;

    IF in_token IS NOT NULL THEN
        SELECT t.version INTO out_version FROM forebay_meta_token t WHERE t.token = in_token;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;

    SELECT min(c.index) INTO out_conflict
        FROM unnest(check_key, check_at, check_index) AS c(key, at, index)
        LEFT JOIN forebay_meta_kv kv ON kv.key = c.key
        WHERE coalesce(kv.version, 0) <> c.at;
    IF out_conflict IS NOT NULL THEN
        RETURN;
    END IF;
    IF cardinality(range_from) > 0 THEN
        SELECT min(r.index) INTO out_conflict
            FROM unnest(range_from, range_to, range_index) AS r(low, high, index)
            WHERE EXISTS (SELECT FROM forebay_meta_kv kv WHERE kv.key >= r.low AND kv.key < r.high);
        IF out_conflict IS NOT NULL THEN
            RETURN;
        END IF;
    END IF;

    -- Drawn under the locks, so that a key's version only grows.
    out_version := nextval('forebay_meta_version');
    IF cardinality(put_key) > 0 THEN
        INSERT INTO forebay_meta_kv (key, version, value)
            SELECT p.key, out_version, p.value FROM unnest(put_key, put_value) AS p(key, value)
            ON CONFLICT (key) DO UPDATE SET version = excluded.version, value = excluded.value;
    END IF;
    IF cardinality(delete_key) > 0 THEN
        DELETE FROM forebay_meta_kv kv USING unnest(delete_key) AS d(key) WHERE kv.key = d.key;
    END IF;
    IF in_token IS NOT NULL THEN
        INSERT INTO forebay_meta_token (token, version) VALUES (in_token, out_version);
    END IF;
END
$$;
