-- What an operator reads.

create view worldline.owners as
select name as entity, fence_epoch as epoch, fence_lease as lease, fence_since as since, pinned_region
from worldline.entities where fence_epoch is not null order by id;
comment on view worldline.owners is 'Who may write each entity: the epoch and the lease of its fence.';

create view worldline.operations as
select
    id,
    at,
    what #>> '{operation,character}' as character,
    (what #>> '{operation,number}')::numeric as number,
    what #>> '{operation,effect,Attack,target}' as target,
    (what #>> '{verdict,Applied,Hit,dealt}')::bigint as dealt,
    (what #>> '{verdict,Applied,Hit,remaining}')::bigint as remaining,
    (what #>> '{verdict,Applied,Hit,experience}')::bigint as experience,
    (what #>> '{verdict,Applied,Hit,bounty}')::bigint as bounty,
    what #>> '{verdict,Applied,Refused}' as refused,
    what #>> '{operation,authority,0,lease}' as lease
from worldline.journal where kind = 'OperationApplied';
comment on view worldline.operations is 'Every operation that has taken effect, in the order of its execution.';

create view worldline.money as
select count(*) as entities, sum(minted) as minted, sum(balance) as held from worldline.entities;
comment on view worldline.money is 'Money is moved and never made: what is held equals what was minted.';
