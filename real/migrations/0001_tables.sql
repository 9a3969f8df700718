-- The tables of the ledger. They are written by the functions of the next migration and by nobody else.
--
-- A counter that another process draws (nonce, epoch, version, a wall clock) may be any unsigned number of 64 bits, so it is
-- numeric(20). What the ledger itself counts is bigint.
--
-- Checks are few: PostgreSQL reads each of a table's checks anew for every statement that writes it, and a dozen of them cost
-- more than the write. What is checked is what would make money or hit points out of nothing.

-- The name that an operator knows an entity by: its kind is the high byte of its id. Null, and so no entity, for other kinds.
create function worldline.name_of(id bigint) returns text language sql immutable strict parallel safe as $$
    select (array['character', 'boss', 'npc'])[(id >> 56)::integer] || '-' || (id & 72057594037927935)
$$;

-- How many results are kept for a character: the latest.
create function worldline.results_kept() returns integer language sql immutable parallel safe as 'select 64';

create table worldline.entities (
    name text collate "C" not null unique generated always as (worldline.name_of(id)) stored,
    id bigint primary key,
    -- The session that counts, and the nonce of the login that began it.
    generation bigint not null default 0,
    login_nonce numeric(20),
    -- Who may write: since which epoch, under which lease (16 hexadecimal digits).
    fence_epoch numeric(20),
    fence_lease text collate "C",
    fence_since timestamptz,
    -- The last operation that has a result.
    applied_through bigint not null default 0,
    hit_points bigint not null,
    experience bigint not null default 0,
    balance bigint not null,
    -- The last checkpoint that was accepted.
    checkpoint_epoch numeric(20),
    checkpoint_version numeric(20),
    x_mm bigint,
    y_mm bigint,
    cooldown_end_unix_ns numeric(20),
    -- As the world began.
    born_x_mm bigint not null,
    born_y_mm bigint not null,
    pinned_region smallint,
    minted bigint not null,
    check (balance >= 0 and hit_points between 0 and 4294967295 and experience >= 0)
) with (fillfactor = 50);
comment on table worldline.entities is 'One row an entity: the durable state, and the fence under which it may be written.';

-- A ring of slots: the result of operation n stands in slot n modulo the number that is kept. Numbers are without gaps, so
-- the ring always holds the latest.
create table worldline.results (
    entity bigint not null references worldline.entities (id),
    slot smallint not null,
    number bigint not null,
    digest text collate "C" not null,
    result jsonb not null,
    primary key (entity, slot)
) with (fillfactor = 50);
comment on table worldline.results is 'The latest results of each character''s operations, by operation number.';

-- What was accepted. The id is drawn while the rows that it tells of are locked: so of two entries about one entity, the one
-- with the higher id was committed later.
create table worldline.journal (
    id bigint generated always as identity primary key,
    at timestamptz not null default clock_timestamp(),
    kind text not null,
    what jsonb not null
);
comment on table worldline.journal is
    'What the ledger accepted, in order: fences raised, sessions begun, operations applied with the rows after them. With '
    'the database setting worldline.audit = ''full'' also checkpoints, and operations that were answered without a write.';
