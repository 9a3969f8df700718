-- The stored functions: login, claim, commit, roster. One call is one transaction, at READ COMMITTED.
--
-- * A call first locks every row that it will read or write, in id order. Two calls that share a row are so executed one
--   after the other, and none waits for another in a circle.
-- * Each answers with what came of it as JSON: {"Done": ..} or {"Refused": ..}.
-- * A call that answers always leaves a record in the write-ahead log, if only that of its row locks. So its answer waits
--   until the synchronous standbys have everything that the answer tells of, also where the call itself changed nothing.

-- Whether what wrote nothing is journaled too.
create function worldline.audits_all() returns boolean language plpgsql stable as $$
begin
    return coalesce(current_setting('worldline.audit', true) = 'full', false);
end $$;

-- Who may write a row, as [epoch, lease], or null. These are PL/pgSQL since a call of an SQL function costs ten times as much.
create function worldline.fence_of(entity worldline.entities) returns jsonb language plpgsql immutable as $$
begin
    return case when entity.fence_epoch is not null then jsonb_build_array(entity.fence_epoch, entity.fence_lease) end;
end $$;

-- A row as the journal shows it.
create function worldline.shown(entity worldline.entities) returns jsonb language plpgsql immutable as $$
begin
    return jsonb_build_object(
        'entity', entity.name,
        'fence', worldline.fence_of(entity),
        'hit_points', entity.hit_points,
        'experience', entity.experience,
        'balance', entity.balance);
end $$;

-- A row as its claim returns it, with the results that are kept, oldest first.
create function worldline.durable(held worldline.entities) returns jsonb language plpgsql stable as $$
begin
    return jsonb_build_object(
        'entity', held.name,
        'generation', held.generation,
        'applied_through', held.applied_through,
        'hit_points', held.hit_points,
        'experience', held.experience,
        'balance', held.balance,
        'checkpoint', case when held.checkpoint_epoch is not null then jsonb_build_array(
            held.checkpoint_epoch,
            held.checkpoint_version,
            jsonb_build_object(
                'position', jsonb_build_object('x_mm', held.x_mm, 'y_mm', held.y_mm),
                'cooldown_end', held.cooldown_end_unix_ns)) end,
        'results', coalesce(
            (select jsonb_agg(
                jsonb_build_object('number', r.number, 'digest', r.digest, 'result', r.result) order by r.number)
             from worldline.results r where r.entity = held.id),
            '[]'));
end $$;

-- Begins a session, unless the last login had the same nonce: then it returns that session again.
create function worldline.login(who text, nonce numeric) returns jsonb language plpgsql as $$
declare
    hero worldline.entities;
begin
    select * into hero from worldline.entities where name = who for no key update;
    if not found then
        return '{"Refused": "Malformed"}';
    end if;
    if hero.login_nonce is distinct from nonce then
        hero.generation := hero.generation + 1;
        update worldline.entities set generation = hero.generation, login_nonce = nonce where id = hero.id;
        insert into worldline.journal (kind, what)
        values ('LoggedIn', jsonb_build_object('character', who, 'generation', hero.generation));
    end if;
    return jsonb_build_object('Done', jsonb_build_object(
        'generation', hero.generation, 'applied_through', hero.applied_through));
end $$;

-- Raises the fences of these entities, given as [[name, epoch], ..], and returns their durable state. A claim passes above
-- the fence, and again where the fence already stands as claimed.
create function worldline.claim(claimant text, entities jsonb) returns jsonb language plpgsql as $$
declare
    claimed jsonb;
    wanted numeric;
    held worldline.entities;
    answers jsonb[] := '{}';
begin
    perform 1 from worldline.entities e
    where e.name = any (array(select value ->> 0 from jsonb_array_elements(entities)))
    order by e.id for no key update;

    for claimed in select value from jsonb_array_elements(entities) loop
        wanted := (claimed -> 1)::numeric;
        select * into held from worldline.entities where name = claimed ->> 0;
        if not found then
            answers := answers || '{"Err": "Malformed"}'::jsonb;
        elsif wanted < held.fence_epoch or wanted = held.fence_epoch and claimant <> held.fence_lease then
            answers := answers || jsonb_build_object('Err', jsonb_build_object(
                'Fenced', jsonb_build_object('highest', held.fence_epoch)));
        else
            update worldline.entities set
                fence_epoch = wanted,
                fence_lease = claimant,
                fence_since = case when fence_epoch = wanted then fence_since else clock_timestamp() end
            where id = held.id;
            insert into worldline.journal (kind, what) values ('FenceRaised', jsonb_build_object(
                'authority', jsonb_build_object('entity', held.name, 'epoch', wanted, 'lease', claimant),
                'before', worldline.fence_of(held)));
            answers := answers || jsonb_build_object('Ok', worldline.durable(held));
        end if;
    end loop;
    return jsonb_build_object('Done', to_jsonb(answers));
end $$;

-- Why an operation may not take effect, or null. The order of the questions is the contract: a stored result comes before
-- session, gap and fence, so that a new owner can answer for an old one.
create function worldline.refusal(operation jsonb, hero worldline.entities) returns jsonb language plpgsql stable as $$
declare
    asked constant numeric := (operation -> 'number')::numeric;
    stored worldline.results;
    barred text;
    highest numeric;
begin
    if hero.id is null then
        return jsonb_build_object('Fenced', jsonb_build_object('entity', operation -> 'character', 'highest', 0));
    end if;
    if asked <= hero.applied_through then
        select * into stored from worldline.results
        where entity = hero.id and slot = (asked::bigint % worldline.results_kept())::smallint and number = asked;
        return case
            when not found then '"Forgotten"'
            when stored.digest = operation ->> 'digest' then jsonb_build_object('Stored', stored.result)
            else '"Conflict"'
        end;
    end if;
    if (operation -> 'generation')::numeric <> hero.generation then
        return jsonb_build_object('StaleSession', jsonb_build_object('current', hero.generation));
    end if;
    if asked <> hero.applied_through + 1 then
        return jsonb_build_object('Gap', jsonb_build_object('expected', hero.applied_through + 1));
    end if;
    -- Every authority must equal its fence, in the order given; then whatever is written must have an authority.
    select claimed.entity, coalesce(e.fence_epoch, 0) into barred, highest
    from rows from (
        jsonb_to_recordset(operation -> 'authority') as (entity text, epoch numeric, lease text)
    ) with ordinality as claimed (entity, epoch, lease, place)
    left join worldline.entities e on e.name = claimed.entity
    where e.fence_epoch is distinct from claimed.epoch or e.fence_lease is distinct from claimed.lease
    order by claimed.place limit 1;
    if not found then
        select written.entity, coalesce(e.fence_epoch, 0) into barred, highest
        from (values (1, operation ->> 'character'), (2, operation #>> '{effect,Attack,target}')) as written (place, entity)
        left join worldline.entities e on e.name = written.entity
        where written.entity is not null
            and not operation -> 'authority' @> jsonb_build_array(jsonb_build_object('entity', written.entity))
        order by written.place limit 1;
    end if;
    if found then
        return jsonb_build_object('Fenced', jsonb_build_object('entity', barred, 'highest', highest));
    end if;
    return null;
end $$;

-- Executes one operation and returns its verdict. Amounts are clipped, never wrapped: a blow takes what is left, a bounty is
-- at most what the purse holds, a gain is paid as far as it fits. What was really paid stands in the result.
create function worldline.operate(operation jsonb) returns jsonb language plpgsql as $$
declare
    blow constant jsonb := operation #> '{effect,Attack,blow}';
    hero worldline.entities;
    victim worldline.entities;
    verdict jsonb;
    outcome jsonb;
    dealt bigint;
    gained bigint := 0;
    paid bigint := 0;
begin
    select * into hero from worldline.entities where name = operation ->> 'character';
    verdict := worldline.refusal(operation, hero);
    if verdict is not null then
        if worldline.audits_all() then
            insert into worldline.journal (kind, what) values ('OperationPassed', jsonb_build_object(
                'character', operation -> 'character',
                'number', operation -> 'number',
                'digest', operation -> 'digest',
                'verdict', verdict));
        end if;
        return verdict;
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
            update worldline.entities set hit_points = hit_points - dealt, balance = balance - paid
            where id = victim.id returning * into victim;
            outcome := jsonb_build_object('Hit', jsonb_build_object(
                'target', victim.name,
                'dealt', dealt,
                'remaining', victim.hit_points,
                'experience', gained,
                'bounty', paid));
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
    verdict := jsonb_build_object('Applied', outcome);
    insert into worldline.journal (kind, what) values ('OperationApplied', jsonb_build_object(
        'operation', operation,
        'verdict', verdict,
        'rows', case
            when outcome ? 'Hit' then jsonb_build_array(worldline.shown(hero), worldline.shown(victim))
            else jsonb_build_array(worldline.shown(hero))
        end));
    return verdict;
end $$;

-- Takes one checkpoint: null where it passed, else the epoch of the fence that refused it. What is stored already, or newer,
-- makes it a repetition: it passes and writes nothing.
create function worldline.keep(checkpoint jsonb) returns numeric language plpgsql as $$
declare
    epoch constant numeric := (checkpoint #> '{authority,epoch}')::numeric;
    version constant numeric := (checkpoint -> 'version')::numeric;
    held worldline.entities;
begin
    select * into held from worldline.entities where name = checkpoint #>> '{authority,entity}';
    if held.fence_epoch is distinct from epoch or held.fence_lease is distinct from checkpoint #>> '{authority,lease}' then
        return coalesce(held.fence_epoch, 0);
    end if;
    if held.checkpoint_epoch = epoch and held.checkpoint_version >= version then
        return null;
    end if;
    update worldline.entities set
        checkpoint_epoch = epoch,
        checkpoint_version = version,
        x_mm = (checkpoint #> '{state,position,x_mm}')::bigint,
        y_mm = (checkpoint #> '{state,position,y_mm}')::bigint,
        cooldown_end_unix_ns = (checkpoint #> '{state,cooldown_end}')::numeric
    where id = held.id;
    if worldline.audits_all() then
        insert into worldline.journal (kind, what) values ('Checkpointed', jsonb_build_object(
            'authority', checkpoint -> 'authority', 'version', version));
    end if;
    return null;
end $$;

-- Commits a batch: its operations in order, then its checkpoints. A refusal of one does not touch another.
create function worldline.commit(batch jsonb) returns jsonb language plpgsql as $$
declare
    item jsonb;
    refused numeric;
    verdicts jsonb[] := '{}';
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

    for item in select value from jsonb_array_elements(batch -> 'operations') loop
        verdicts := verdicts || worldline.operate(item);
    end loop;
    for item in select value from jsonb_array_elements(batch -> 'checkpoints') loop
        refused := worldline.keep(item);
        checkpoints := checkpoints || case
            when refused is null then '{"Ok": null}' else jsonb_build_object('Err', refused) end;
    end loop;
    return jsonb_build_object('Done', jsonb_build_object(
        'verdicts', to_jsonb(verdicts), 'checkpoints', to_jsonb(checkpoints)));
end $$;

-- A page of all entities, in id order: at most `page` of those behind `after`.
create function worldline.roster(after bigint, page integer) returns jsonb language plpgsql as $$
declare
    entries jsonb[];
begin
    -- It locks nothing, so it writes a record of its own to wait for the standbys like every other call.
    perform pg_logical_emit_message(true, 'worldline', 'roster');
    entries := array(
        select jsonb_build_object(
            'entity', name,
            'position', jsonb_build_object('x_mm', coalesce(x_mm, born_x_mm), 'y_mm', coalesce(y_mm, born_y_mm)),
            'pinned', pinned_region)
        from worldline.entities where id > coalesce(after, 0) order by id limit page + 1);
    return jsonb_build_object('Done', jsonb_build_object(
        'entries', to_jsonb(entries[1:page]), 'more', cardinality(entries) > page));
end $$;
