-- The outbox: durable news. A fact is written in the transaction of its effect; it is flagged once it is known to be published,
-- by its owner's next batch or by the relay, and it can be read again for ever.

-- The last fact of an entity. Its row is locked when a fact is written, so the numbers are without gaps in the order of the commits.
alter table worldline.entities add column facts bigint not null default 0;

-- It has no reference to `entities`: whoever inserts here holds that row's lock, and asking for it again costs as much as the
-- insert.
create table worldline.outbox (
    aggregate bigint not null,
    sequence bigint not null,
    -- The operation that caused it.
    character bigint not null,
    number bigint not null,
    body jsonb not null,
    written timestamptz not null,
    published timestamptz,
    primary key (aggregate, sequence)
);
comment on table worldline.outbox is 'Facts, numbered from 1 in each aggregate, and since when each is known to be published.';
-- What the relay sweeps. A flagged fact leaves it.
create index outbox_unpublished on worldline.outbox (written, aggregate, sequence) where published is null;

create view worldline.facts as
select
    worldline.name_of(aggregate) as aggregate,
    sequence,
    worldline.name_of("character") as "character",
    number,
    body,
    written,
    published
from worldline.outbox;
comment on view worldline.facts is 'Every fact by the names that an operator knows; published is null until it is known to be.';

-- A fact as a reader is told it.
create function worldline.fact_shown(fact worldline.outbox) returns jsonb language plpgsql immutable as $$
begin
    return jsonb_build_object(
        'aggregate', worldline.name_of(fact.aggregate),
        'sequence', fact.sequence,
        'character', worldline.name_of(fact.character),
        'number', fact.number,
        'body', fact.body);
end $$;

-- Facts as an answer: at most `page` of them, and whether there were more.
create function worldline.fact_page(facts jsonb[], page integer) returns jsonb language plpgsql immutable as $$
begin
    return jsonb_build_object('Done', jsonb_build_object(
        'facts', to_jsonb(facts[1:page]), 'more', cardinality(facts) > page));
end $$;

-- What came of one operation: its verdict, and the fact that it wrote.
create type worldline.operated as (verdict jsonb, fact jsonb);

-- Executes one operation. Amounts are clipped, never wrapped: a blow takes what is left, a bounty is at most what the purse
-- holds, a gain is paid as far as it fits. What was really paid stands in the result, and in the fact.
drop function worldline.operate(jsonb);
create function worldline.operate(operation jsonb, moment timestamptz) returns worldline.operated language plpgsql as $$
declare
    blow constant jsonb := operation #> '{effect,Attack,blow}';
    hero worldline.entities;
    victim worldline.entities;
    done worldline.operated;
    outcome jsonb;
    body jsonb;
    dealt bigint;
    gained bigint := 0;
    paid bigint := 0;
begin
    select * into hero from worldline.entities where name = operation ->> 'character';
    done.verdict := worldline.refusal(operation, hero);
    if done.verdict is not null then
        if worldline.audits_all() then
            insert into worldline.journal (kind, what) values ('OperationPassed', jsonb_build_object(
                'character', operation -> 'character',
                'number', operation -> 'number',
                'digest', operation -> 'digest',
                'verdict', done.verdict));
        end if;
        return done;
    end if;

    if blow is null then
        outcome := jsonb_build_object('Refused', operation #> '{effect,Refuse}');
    else
        select * into victim from worldline.entities where name = operation #>> '{effect,Attack,target}' and id <> hero.id;
        if not found then
            outcome := '{"Refused": "NoSuchTarget"}';
        elsif victim.hit_points = 0 then
            outcome := '{"Refused": "TargetDead"}';
        else
            dealt := least((blow -> 'damage')::bigint, victim.hit_points);
            gained := greatest(0, least((blow -> 'experience')::bigint, 9223372036854775807 - hero.experience));
            paid := greatest(0, least(
                (blow -> 'bounty')::bigint, victim.balance, 9223372036854775807 - hero.balance));
            update worldline.entities set hit_points = hit_points - dealt, balance = balance - paid, facts = facts + 1
            where id = victim.id returning * into victim;
            body := jsonb_build_object(
                'dealt', dealt, 'remaining', victim.hit_points, 'experience', gained, 'bounty', paid);
            outcome := jsonb_build_object('Hit', body || jsonb_build_object('target', victim.name));
            body := jsonb_build_object('Hit', body);
        end if;
    end if;

    update worldline.entities set
        applied_through = applied_through + 1,
        experience = experience + gained,
        balance = balance + paid
    where id = hero.id returning * into hero;
    insert into worldline.results (entity, slot, number, digest, result)
    values (
        hero.id, hero.applied_through % worldline.results_kept(), hero.applied_through, operation ->> 'digest', outcome)
    on conflict (entity, slot) do update
    set number = excluded.number, digest = excluded.digest, result = excluded.result;
    if body is not null then
        insert into worldline.outbox (aggregate, sequence, character, number, body, written)
        values (victim.id, victim.facts, hero.id, hero.applied_through, body, moment);
        done.fact := jsonb_build_object(
            'aggregate', victim.name,
            'sequence', victim.facts,
            'character', hero.name,
            'number', hero.applied_through,
            'body', body);
    end if;
    done.verdict := jsonb_build_object('Applied', outcome);
    insert into worldline.journal (kind, what) values ('OperationApplied', jsonb_build_object(
        'operation', operation,
        'verdict', done.verdict,
        'rows', case
            when body is not null then jsonb_build_array(worldline.shown(hero), worldline.shown(victim))
            else jsonb_build_array(worldline.shown(hero))
        end));
    return done;
end $$;

-- Flags facts, given as [[name, sequence], ..], as published, in their order and behind every row of an entity: so nobody waits
-- for another in a circle.
create function worldline.flag(facts jsonb) returns jsonb language plpgsql as $$
declare
    known record;
begin
    -- Each by its key: a plan that was made for a small outbox and joins it whole would be kept while it grows. That the time
    -- of a flag stays what it was is said where it is set, or the index of what is not flagged would be searched instead.
    for known in
        select e.id as aggregate, least((f ->> 1)::numeric, 9223372036854775807)::bigint as sequence
        from jsonb_array_elements(facts) f join worldline.entities e on e.name = f ->> 0
        order by 1, 2
    loop
        update worldline.outbox set published = coalesce(published, clock_timestamp())
        where aggregate = known.aggregate and sequence = known.sequence;
    end loop;
    -- Where there was none of them it wrote nothing, and still waits for the standbys to have what it saw.
    perform pg_logical_emit_message(true, 'worldline', 'flag');
    return '{"Done": null}';
end $$;

-- Commits a batch: its operations in order, then its checkpoints, then the flags that ride along. A refusal of one does not
-- touch another.
create or replace function worldline.commit(batch jsonb) returns jsonb language plpgsql as $$
declare
    item jsonb;
    done worldline.operated;
    moment timestamptz;
    refused numeric;
    verdicts jsonb[] := '{}';
    facts jsonb[] := '{}';
    checkpoints jsonb[] := '{}';
begin
    perform 1 from worldline.entities e
    where e.name = any (array(
        select o ->> 'character' from jsonb_array_elements(batch -> 'operations') o
        union
        select a ->> 'entity' from jsonb_array_elements(batch -> 'operations') o, jsonb_array_elements(o -> 'authority') a
        union
        select c #>> '{authority,entity}' from jsonb_array_elements(batch -> 'checkpoints') c))
    order by e.id for no key update;
    -- After the locks: facts of one aggregate are so dated in their order.
    moment := clock_timestamp();

    for item in select value from jsonb_array_elements(batch -> 'operations') loop
        done := worldline.operate(item, moment);
        verdicts := verdicts || done.verdict;
        if done.fact is not null then
            facts := facts || done.fact;
        end if;
    end loop;
    for item in select value from jsonb_array_elements(batch -> 'checkpoints') loop
        refused := worldline.keep(item);
        checkpoints := checkpoints || case
            when refused is null then '{"Ok": null}' else jsonb_build_object('Err', refused) end;
    end loop;
    if batch -> 'published' <> '[]' then
        perform worldline.flag(batch -> 'published');
    end if;
    return jsonb_build_object('Done', jsonb_build_object(
        'verdicts', to_jsonb(verdicts), 'checkpoints', to_jsonb(checkpoints), 'facts', to_jsonb(facts)));
end $$;

-- A page of an aggregate's facts: at most `page` of those behind `after`. Like a roster it locks nothing, and writes a record to
-- wait for the standbys.
create function worldline.facts_of(who text, after bigint, page integer) returns jsonb language plpgsql as $$
declare
    whose bigint;
    found_facts jsonb[];
begin
    perform pg_logical_emit_message(true, 'worldline', 'facts');
    select id into whose from worldline.entities where name = who;
    if not found then
        return '{"Refused": "Malformed"}';
    end if;
    found_facts := array(
        select worldline.fact_shown(o)
        from worldline.outbox o where o.aggregate = whose and o.sequence > after order by o.sequence limit page + 1);
    return worldline.fact_page(found_facts, page);
end $$;

-- The oldest facts that are not flagged, at most `page` of those that were written so long ago.
create function worldline.unpublished(older_than_us bigint, page integer) returns jsonb language plpgsql as $$
declare
    found_facts jsonb[];
begin
    perform pg_logical_emit_message(true, 'worldline', 'unpublished');
    found_facts := array(
        select worldline.fact_shown(o)
        from worldline.outbox o
        where o.published is null and o.written <= clock_timestamp() - older_than_us * interval '1 microsecond'
        order by o.written, o.aggregate, o.sequence limit page + 1);
    return worldline.fact_page(found_facts, page);
end $$;

-- How entities, given as [name, ..], stand: those that exist, in id order.
create function worldline.snapshot(entities jsonb) returns jsonb language plpgsql as $$
begin
    perform pg_logical_emit_message(true, 'worldline', 'snapshot');
    return jsonb_build_object('Done', coalesce(
        (select jsonb_agg(
            jsonb_build_object('entity', e.name, 'hit_points', e.hit_points, 'sequence', e.facts) order by e.id)
         from worldline.entities e where e.name = any (array(select jsonb_array_elements_text(entities)))),
        '[]'));
end $$;
