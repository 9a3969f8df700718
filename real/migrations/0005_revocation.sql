-- Tokens that do not count any more. A token says when it was issued; from when on tokens of a character count stands here, and
-- only ever rises.

-- In milliseconds since 1970. Zero: none was ever revoked.
alter table worldline.entities add column tokens_valid_from_unix_ms numeric(20) not null default 0;

create view worldline.revocations as
select
    name as "character",
    to_timestamp(tokens_valid_from_unix_ms / 1000) as tokens_valid_from,
    tokens_valid_from_unix_ms,
    generation
from worldline.entities where tokens_valid_from_unix_ms > 0 order by id;
comment on view worldline.revocations is 'Whose tokens were revoked: those that were issued before this.';

-- How the sessions of a character stand.
create function worldline.stands(hero worldline.entities) returns jsonb language plpgsql immutable as $$
begin
    return jsonb_build_object(
        'character', hero.name,
        'generation', hero.generation,
        'tokens_valid_from_unix_ms', hero.tokens_valid_from_unix_ms);
end $$;

-- Begins a session, unless the last login had the same nonce: then it returns that session again. Whether the token counts is
-- looked at first: a login that is sent again after a revocation must not find the session that it had begun.
drop function worldline.login(text, numeric);
create function worldline.login(who text, nonce numeric, issued_unix_ms numeric) returns jsonb language plpgsql as $$
declare
    hero worldline.entities;
begin
    select * into hero from worldline.entities where name = who for no key update;
    if not found then
        return '{"Refused": "Malformed"}';
    end if;
    if issued_unix_ms < hero.tokens_valid_from_unix_ms then
        return '{"Refused": "TokenRevoked"}';
    end if;
    if hero.login_nonce is distinct from nonce then
        hero.generation := hero.generation + 1;
        update worldline.entities set generation = hero.generation, login_nonce = nonce where id = hero.id;
        insert into worldline.journal (kind, what) values ('LoggedIn', jsonb_build_object(
            'character', who, 'generation', hero.generation, 'issued_unix_ms', issued_unix_ms));
    end if;
    return jsonb_build_object('Done', jsonb_build_object(
        'generation', hero.generation, 'applied_through', hero.applied_through));
end $$;

-- Revokes the tokens of a character that were issued before this, and ends its session. Where as many are revoked already it
-- changes nothing.
create function worldline.revoke(who text, valid_from_unix_ms numeric) returns jsonb language plpgsql as $$
declare
    hero worldline.entities;
    news boolean;
begin
    select * into hero from worldline.entities where name = who for no key update;
    if not found then
        return '{"Refused": "Malformed"}';
    end if;
    news := hero.tokens_valid_from_unix_ms < valid_from_unix_ms;
    if news then
        update worldline.entities set
            tokens_valid_from_unix_ms = valid_from_unix_ms,
            generation = generation + 1,
            login_nonce = null
        where id = hero.id returning * into hero;
        insert into worldline.journal (kind, what) values ('TokensRevoked', jsonb_build_object(
            'character', who, 'valid_from_unix_ms', valid_from_unix_ms, 'generation', hero.generation));
    end if;
    return jsonb_build_object('Done', jsonb_build_object('standing', worldline.stands(hero), 'news', news));
end $$;

-- How the sessions of characters, given as [name, ..], stand: those that exist, in id order. Like a roster it locks nothing, and
-- writes a record to wait for the standbys.
create function worldline.standing(characters jsonb) returns jsonb language plpgsql as $$
begin
    perform pg_logical_emit_message(true, 'worldline', 'standing');
    return jsonb_build_object('Done', coalesce(
        (select jsonb_agg(worldline.stands(e) order by e.id)
         from worldline.entities e where e.name = any (array(select jsonb_array_elements_text(characters)))),
        '[]'));
end $$;
