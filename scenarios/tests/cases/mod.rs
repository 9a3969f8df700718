//! One wrong line each.

/// A file with nothing wrong. Each case changes a line of it.
pub const GOOD: &str = r#"name = "test"
summary = "A test."
duration = "40s"
settle = "10s"
[[world.region]]
name = "frankfurt"
workers = 2
gateways = 1
players = 4
[[world.region]]
name = "singapore"
workers = 1
gateways = 1
players = 4
[[world.boss]]
name = "boss-1"
region = "frankfurt"
hit_points = 100
purse = 10
[workload]
target = "boss-1"
[[fault]]
at = "10s"
kind = "crash"
node = "worker:frankfurt:0"
[[budget]]
timing = "failover"
within = "30s"
"#;

/// Which line of the good file is changed to what, and what is then said, all of it.
pub const CASES: &[(usize, &str, &[&str])] = &[
    (
        1,
        r#"name = "Überfall""#,
        &[
            r#"1:8: found `Überfall`, expected a name of 1 to 40 lower-case letters a-z, digits and hyphens that begins with a letter"#,
        ],
    ),
    (
        1,
        r#"name = "Worker_Crash""#,
        &[
            r#"1:8: found `Worker_Crash`, expected a name of 1 to 40 lower-case letters a-z, digits and hyphens that begins with a letter; did you mean `worker-crash`?"#,
        ],
    ),
    (
        1,
        r#"nam = "test""#,
        &[
            r#"1:1: found the unknown key `nam`, expected one of the keys of a scenario: budget, core, duration, fault, knobs, lease, name, settle, summary, workload, world; did you mean `name`?"#,
        ],
    ),
    (
        1,
        r#"name = 5"#,
        &[
            r#"1:8: found the number 5, expected a name of 1 to 40 lower-case letters a-z, digits and hyphens that begins with a letter"#,
        ],
    ),
    (1, r#"# nothing"#, &[r#"1:1: found no `name`, expected a scenario to have one"#]),
    (
        3,
        r#"duration = "40sec""#,
        &[r#"3:12: found `40sec`, expected a duration such as `250ms`, `5s` or `2m`; did you mean `40s`?"#],
    ),
    (
        3,
        r#"duration = 40"#,
        &[r#"3:12: found the number 40, expected a duration such as `250ms`, `5s` or `2m`; did you mean `40s`?"#],
    ),
    (3, "duration = -4", &[r#"3:12: found the number -4, expected a duration such as `250ms`, `5s` or `2m`"#]),
    (3, r#"duration = "-5s""#, &[r#"3:12: found `-5s`, expected a duration of `0s` or more"#]),
    (3, r#"duration = "2h""#, &[r#"3:12: found `2h`, expected a duration such as `250ms`, `5s` or `2m`"#]),
    (3, r#"duration = "31m""#, &[r#"3:12: found `31m`, expected a duration from `1s` to `1800s`"#]),
    (3, r#"duration = "0s""#, &[r#"3:12: found `0s`, expected a duration from `1s` to `1800s`"#]),
    (3, r#"duration = "5s""#, &[r#"23:6: found `10s`, expected a time before the end of the fault phase at `5s`"#]),
    (
        3,
        r#"duration = "fourty seconds""#,
        &[r#"3:12: found `fourty seconds`, expected a duration such as `250ms`, `5s` or `2m`"#],
    ),
    (
        3,
        r#"duration = 1979-05-27"#,
        &[r#"3:12: found the date 1979-05-27, expected a duration such as `250ms`, `5s` or `2m`"#],
    ),
    (
        3,
        r#"durration = "40s""#,
        &[
            r#"3:1: found the unknown key `durration`, expected one of the keys of a scenario: budget, core, duration, fault, knobs, lease, name, settle, summary, workload, world; did you mean `duration`?"#,
        ],
    ),
    (
        4,
        r#"settle = "99999999999999999999s""#,
        &[r#"4:10: found `99999999999999999999s`, expected a duration of at most a day"#],
    ),
    (
        4,
        r#"settle = "5s" x"#,
        &[r#"4:15: found what is no TOML, expected valid TOML: unexpected key or value, expected newline, `#`"#],
    ),
    (
        4,
        r#"settle = "5s"#,
        &[r#"4:13: found what is no TOML, expected valid TOML: invalid basic string, expected `"`"#],
    ),
    (4, r#"name = "twice""#, &[r#"4:1: found `name`, expected valid TOML: duplicate key"#]),
    (
        6,
        r#"name = "singapore""#,
        &[
            r#"11:8: found the name `singapore` again, expected a name of its own"#,
            r#"17:10: found `frankfurt`, expected one of this world's regions: singapore, singapore"#,
            r#"25:8: found `worker:frankfurt:0`, expected one of this world's regions: `singapore`, `singapore`"#,
        ],
    ),
    (
        6,
        r#"name = "zürich""#,
        &[
            r#"6:8: found `zürich`, expected a name of 1 to 40 lower-case letters a-z, digits and hyphens that begins with a letter"#,
            r#"17:10: found `frankfurt`, expected one of this world's regions: zürich, singapore"#,
            r#"25:8: found `worker:frankfurt:0`, expected one of this world's regions: `zürich`, `singapore`"#,
        ],
    ),
    (
        6,
        "name = 7",
        &[
            r#"6:8: found the number 7, expected a name of 1 to 40 lower-case letters a-z, digits and hyphens that begins with a letter"#,
            r#"17:10: found `frankfurt`, expected one of this world's regions: singapore"#,
            r#"25:8: found `worker:frankfurt:0`, expected one of this world's regions: `singapore`"#,
        ],
    ),
    (
        6,
        r#"name = "paris""#,
        &[
            r#"5:1: found no `place`, expected `[[world.region]]` to have one"#,
            r#"17:10: found `frankfurt`, expected one of this world's regions: paris, singapore"#,
            r#"25:8: found `worker:frankfurt:0`, expected one of this world's regions: `paris`, `singapore`"#,
        ],
    ),
    (
        6,
        "name = \"frankfurt\"\nplace = \"frankfort\"",
        &[
            r#"7:9: found `frankfort`, expected a place of the WAN matrix: singapore, tokyo, sydney, frankfurt, virginia, oregon; did you mean `frankfurt`?"#,
        ],
    ),
    (
        7,
        r#"worker = 2"#,
        &[
            r#"7:1: found the unknown key `worker`, expected one of the keys of `[[world.region]]`: gateways, name, npcs, place, players, travellers, workers; did you mean `workers`?"#,
        ],
    ),
    (7, r#"workers = 0"#, &[r#"7:11: found the number 0, expected a number of workers from 1 to 64"#]),
    (7, r#"workers = "2""#, &[r#"7:11: found `2`, expected a number of workers from 1 to 64"#]),
    (7, r#"workers = 2.5"#, &[r#"7:11: found the number 2.5, expected a number of workers from 1 to 64"#]),
    (
        7,
        r#"dragons = 2"#,
        &[
            r#"5:1: found no `workers`, expected `[[world.region]]` to have one"#,
            r#"7:1: found the unknown key `dragons`, expected one of the keys of `[[world.region]]`: gateways, name, npcs, place, players, travellers, workers"#,
        ],
    ),
    (9, r#"players = 1_000_000"#, &[r#"9:11: found the number 1000000, expected a number of players from 0 to 10000"#]),
    (9, r#"players = -1"#, &[r#"9:11: found the number -1, expected a number of players from 0 to 10000"#]),
    (
        9,
        r#"players = 999999999999999999999"#,
        &[r#"9:11: found the number 999999999999999999999, expected a number of players from 0 to 10000"#],
    ),
    (
        9,
        r#"players = 9_999"#,
        &[r#"14:11: found 10003 players, expected from 1 to 10000 players in all regions together"#],
    ),
    (
        16,
        r#"name = "boss-0""#,
        &[
            r#"16:8: found `boss-0`, expected a boss's name: `boss-1` to `boss-9999`"#,
            r#"21:10: found `boss-1`, expected the name of a `[[world.boss]]` (this world has none)"#,
        ],
    ),
    (
        16,
        r#"name = "dragon-1""#,
        &[
            r#"16:8: found `dragon-1`, expected a boss's name: `boss-1` to `boss-9999`"#,
            r#"21:10: found `boss-1`, expected the name of a `[[world.boss]]` (this world has none)"#,
        ],
    ),
    (
        17,
        r#"region = "frankfrut""#,
        &[
            r#"17:10: found `frankfrut`, expected one of this world's regions: frankfurt, singapore; did you mean `frankfurt`?"#,
        ],
    ),
    (18, r#"hit_points = 0"#, &[r#"18:14: found the number 0, expected hit points from 1 to 1000000000"#]),
    (19, r#"purse = -1"#, &[r#"19:9: found the number -1, expected minor units from 0 to 1000000000000"#]),
    (
        20,
        r#"[workloads]"#,
        &[
            r#"20:2: found the unknown key `workloads`, expected one of the keys of a scenario: budget, core, duration, fault, knobs, lease, name, settle, summary, workload, world; did you mean `workload`?"#,
        ],
    ),
    (
        21,
        r#"target = "boss-2""#,
        &[r#"21:10: found `boss-2`, expected one of this world's bosses: boss-1; did you mean `boss-1`?"#],
    ),
    (
        21,
        r#"speed_hack = "2""#,
        &[r#"21:14: found `2`, expected a share from `0%` to `100%`, such as `2%` or `0.5%`; did you mean `2%`?"#],
    ),
    (
        21,
        r#"speed_hack = 0.02"#,
        &[
            r#"21:14: found the number 0.02, expected a share from `0%` to `100%`, such as `2%` or `0.5%`; did you mean `2%`?"#,
        ],
    ),
    (
        21,
        r#"speed_hack = "101%""#,
        &[r#"21:14: found `101%`, expected a share from `0%` to `100%`, such as `2%` or `0.5%`"#],
    ),
    (
        21,
        "speed_hack = \"60%\"\nreused_numbers = \"60%\"",
        &[r#"20:1: found shares of 120% in all, expected shares of misbehaving players of at most `100%` in all"#],
    ),
    (21, r#"moves_per_second = 61"#, &[r#"21:20: found the number 61, expected movements a second from 0 to 60"#]),
    (23, r#"at = "45s""#, &[r#"23:6: found `45s`, expected a time before the end of the fault phase at `40s`"#]),
    (23, r#"at = "40s""#, &[r#"23:6: found `40s`, expected a time before the end of the fault phase at `40s`"#]),
    (
        23,
        r#"at = "5sec""#,
        &[r#"23:6: found `5sec`, expected a duration such as `250ms`, `5s` or `2m`; did you mean `5s`?"#],
    ),
    (23, r#"at = "-1s""#, &[r#"23:6: found `-1s`, expected a duration of `0s` or more"#]),
    (
        23,
        r#"at = "14s..10s""#,
        &[r#"23:6: found `14s..10s`, expected a window that ends after it begins; did you mean `10s..14s`?"#],
    ),
    (
        23,
        r#"at = "10..14s""#,
        &[
            r#"23:6: found `10..14s`, expected a moment such as `10s` or a window such as `10s..14s`; did you mean `10s..14s`?"#,
        ],
    ),
    (
        23,
        r#"at = "30s..41s""#,
        &[r#"23:6: found `30s..41s`, expected a time before the end of the fault phase at `40s`"#],
    ),
    (23, r#"# no time"#, &[r#"22:1: found no `at`, expected `[[fault]]` to have one"#]),
    (
        24,
        r#"kind = "crsh""#,
        &[
            r#"24:8: found `crsh`, expected a kind of fault: crash, kill, stop, restart, pause, slow, crash-between-submissions, hold-outbox, clock-step, clock-drift, clock-freeze, wall-step, cut, degrade, revoke-tokens, ledger-lose-answers, ledger-lose-connections, ledger-delay-commits, ledger-conflicts, ledger-slow-disk, ledger-disks-lie, ledger-read-only, ledger-disk-full, ledger-switchover, directory-leader-change, directory-lose-answers, directory-delay-requests, directory-delay-news, directory-revoke-early, directory-cancel-watches, directory-compact, directory-full, directory-restore-backup, directory-slow-disk, directory-disks-lie, bus-leader-change, bus-lose-answers, bus-lose-requests, bus-delay-deliveries, bus-disconnect, bus-rewind, bus-end-consumers, bus-forget-ids, bus-purge, bus-full, cache-flush, cache-evict, cache-wrong-types, cache-failover, cache-delay-replication, cache-delay-requests, cache-lose-answers; did you mean `crash`?"#,
        ],
    ),
    (
        24,
        r#"kind = "explode""#,
        &[
            r#"24:8: found `explode`, expected a kind of fault: crash, kill, stop, restart, pause, slow, crash-between-submissions, hold-outbox, clock-step, clock-drift, clock-freeze, wall-step, cut, degrade, revoke-tokens, ledger-lose-answers, ledger-lose-connections, ledger-delay-commits, ledger-conflicts, ledger-slow-disk, ledger-disks-lie, ledger-read-only, ledger-disk-full, ledger-switchover, directory-leader-change, directory-lose-answers, directory-delay-requests, directory-delay-news, directory-revoke-early, directory-cancel-watches, directory-compact, directory-full, directory-restore-backup, directory-slow-disk, directory-disks-lie, bus-leader-change, bus-lose-answers, bus-lose-requests, bus-delay-deliveries, bus-disconnect, bus-rewind, bus-end-consumers, bus-forget-ids, bus-purge, bus-full, cache-flush, cache-evict, cache-wrong-types, cache-failover, cache-delay-replication, cache-delay-requests, cache-lose-answers"#,
        ],
    ),
    (
        24,
        "kind = \"revoke-tokens\"\nplayer = \"worker:frankfurt:0\"",
        &[
            r#"25:10: found `worker:frankfurt:0`, expected players: `player:1` to `player:8`"#,
            r#"26:1: found the unknown key `node`, expected a key of a fault of kind `revoke-tokens`: at, kind, player (`node` belongs to crash, kill, stop, restart, pause, slow, crash-between-submissions, hold-outbox, clock-step, clock-drift, clock-freeze, wall-step, directory-revoke-early)"#,
        ],
    ),
    (
        24,
        "kind = \"crash\"\nuntil = \"9s\"",
        &[r#"25:9: found `9s`, expected an end after the fault, which may come as late as `10s`"#],
    ),
    (
        24,
        "kind = \"crash\"\nfor = \"0s\"",
        &[r#"25:7: found `0s`, expected an end after the fault, which may come as late as `10s`"#],
    ),
    (
        24,
        "kind = \"crash\"\nfor = \"31s\"",
        &[
            r#"25:7: found `31s`, expected an end by `40s`, the end of the fault phase (everything heals then; leave it out to last so long)"#,
        ],
    ),
    (
        24,
        "kind = \"crash\"\nfor = \"1s\"\nuntil = \"12s\"",
        &[r#"26:9: found both `for` and `until`, expected one of them"#],
    ),
    (24, "kind = \"restart\"\nfor = \"1s\"", &[r#"25:7: found `1s`, expected no end: `restart` is over at once"#]),
    (
        24,
        "kind = \"crash\"\nloss = \"2%\"",
        &[
            r#"25:1: found the unknown key `loss`, expected a key of a fault of kind `crash`: at, kind, node, for, until (`loss` belongs to degrade)"#,
        ],
    ),
    (
        24,
        r#"kinds = "crash""#,
        &[r#"24:1: found the unknown key `kinds`, expected one of the keys of `[[fault]]`; did you mean `kind`?"#],
    ),
    (24, r#"kind = "slow""#, &[r#"22:1: found no `times`, expected `[[fault]]` to have one"#]),
    (
        24,
        r#"kind = "cut""#,
        &[
            r#"22:1: found no `from`, expected `[[fault]]` to have one"#,
            r#"22:1: found no `to`, expected `[[fault]]` to have one"#,
            r#"25:1: found the unknown key `node`, expected a key of a fault of kind `cut`: at, kind, from, to, one_way, for, until (`node` belongs to crash, kill, stop, restart, pause, slow, crash-between-submissions, hold-outbox, clock-step, clock-drift, clock-freeze, wall-step, directory-revoke-early)"#,
        ],
    ),
    (25, r#"# no node"#, &[r#"22:1: found no `node`, expected `[[fault]]` to have one"#]),
    (
        25,
        r#"node = """#,
        &[
            r#"25:8: found ``, expected a node: `worker:REGION:N`, `gateway:REGION:N`, `region:REGION`, `owner-of:boss-N`, `owner-of:character-N`, `player:N`, `replica:REGION`, `cache:REGION:N`, `core`, `core:PLACE`, `orchestrator:N`, `orchestrator:leader`, `directory:N`, `directory:leader`, `ledger:N`, `ledger:primary`, `bus:N` or `bus:leader`"#,
        ],
    ),
    (25, r#"node = []"#, &[r#"25:8: found an empty list, expected at least one node"#]),
    (
        25,
        r#"node = "worker:frankfrut:0""#,
        &[
            r#"25:8: found `worker:frankfrut:0`, expected one of this world's regions: `frankfurt`, `singapore`; did you mean `worker:frankfurt:0`?"#,
        ],
    ),
    (
        25,
        r#"node = "worker:frankfurt:2""#,
        &[
            r#"25:8: found `worker:frankfurt:2`, expected one of this world's: `worker:frankfurt:0` to `worker:frankfurt:1`; did you mean `worker:frankfurt:0`?"#,
        ],
    ),
    (
        25,
        r#"node = "worker:singapore:1""#,
        &[
            r#"25:8: found `worker:singapore:1`, expected `worker:singapore:0`, the only one of this world; did you mean `worker:singapore:0`?"#,
        ],
    ),
    (
        25,
        r#"node = "wroker:frankfurt:0""#,
        &[
            r#"25:8: found `wroker:frankfurt:0`, expected a node: `worker:REGION:N`, `gateway:REGION:N`, `region:REGION`, `owner-of:boss-N`, `owner-of:character-N`, `player:N`, `replica:REGION`, `cache:REGION:N`, `core`, `core:PLACE`, `orchestrator:N`, `orchestrator:leader`, `directory:N`, `directory:leader`, `ledger:N`, `ledger:primary`, `bus:N` or `bus:leader`; did you mean `worker:frankfurt:0`?"#,
        ],
    ),
    (
        25,
        r#"node = "worker:frankfurt""#,
        &[
            r#"25:8: found `worker:frankfurt`, expected a node: `worker:REGION:N`, `gateway:REGION:N`, `region:REGION`, `owner-of:boss-N`, `owner-of:character-N`, `player:N`, `replica:REGION`, `cache:REGION:N`, `core`, `core:PLACE`, `orchestrator:N`, `orchestrator:leader`, `directory:N`, `directory:leader`, `ledger:N`, `ledger:primary`, `bus:N` or `bus:leader`; did you mean `worker:frankfurt:0`?"#,
        ],
    ),
    (
        25,
        r#"node = "owner-of:boss-2""#,
        &[
            r#"25:8: found `owner-of:boss-2`, expected an entity of this world: `boss-1`, `character-1` to `character-8`; did you mean `owner-of:boss-1`?"#,
        ],
    ),
    (
        25,
        r#"node = "owner-of:character-9""#,
        &[
            r#"25:8: found `owner-of:character-9`, expected an entity of this world: `boss-1`, `character-1` to `character-8`"#,
        ],
    ),
    (
        25,
        r#"node = "player:0""#,
        &[r#"25:8: found `player:0`, expected a player of this world: `player:1` to `player:8`"#],
    ),
    (
        25,
        r#"node = ["core", "regoin:singapore"]"#,
        &[
            r#"25:17: found `regoin:singapore`, expected a node: `worker:REGION:N`, `gateway:REGION:N`, `region:REGION`, `owner-of:boss-N`, `owner-of:character-N`, `player:N`, `replica:REGION`, `cache:REGION:N`, `core`, `core:PLACE`, `orchestrator:N`, `orchestrator:leader`, `directory:N`, `directory:leader`, `ledger:N`, `ledger:primary`, `bus:N` or `bus:leader`; did you mean `region:singapore`?"#,
        ],
    ),
    (
        25,
        r#"node = 3"#,
        &[
            r#"25:8: found the number 3, expected a node: `worker:REGION:N`, `gateway:REGION:N`, `region:REGION`, `owner-of:boss-N`, `owner-of:character-N`, `player:N`, `replica:REGION`, `cache:REGION:N`, `core`, `core:PLACE`, `orchestrator:N`, `orchestrator:leader`, `directory:N`, `directory:leader`, `ledger:N`, `ledger:primary`, `bus:N` or `bus:leader`"#,
        ],
    ),
    (
        25,
        r#"node = "directory:leadr""#,
        &[
            r#"25:8: found `directory:leadr`, expected one of this world's: `directory:0` to `directory:2`; did you mean `directory:leader`?"#,
        ],
    ),
    (
        25,
        "node = \"\u{202e}evil\\u0007\"",
        &[
            r#"25:8: found `�evil�`, expected a node: `worker:REGION:N`, `gateway:REGION:N`, `region:REGION`, `owner-of:boss-N`, `owner-of:character-N`, `player:N`, `replica:REGION`, `cache:REGION:N`, `core`, `core:PLACE`, `orchestrator:N`, `orchestrator:leader`, `directory:N`, `directory:leader`, `ledger:N`, `ledger:primary`, `bus:N` or `bus:leader`"#,
        ],
    ),
    (
        24,
        r#"kind = "ledger-lose-answer""#,
        &[
            r#"24:8: found `ledger-lose-answer`, expected a kind of fault: crash, kill, stop, restart, pause, slow, crash-between-submissions, hold-outbox, clock-step, clock-drift, clock-freeze, wall-step, cut, degrade, revoke-tokens, ledger-lose-answers, ledger-lose-connections, ledger-delay-commits, ledger-conflicts, ledger-slow-disk, ledger-disks-lie, ledger-read-only, ledger-disk-full, ledger-switchover, directory-leader-change, directory-lose-answers, directory-delay-requests, directory-delay-news, directory-revoke-early, directory-cancel-watches, directory-compact, directory-full, directory-restore-backup, directory-slow-disk, directory-disks-lie, bus-leader-change, bus-lose-answers, bus-lose-requests, bus-delay-deliveries, bus-disconnect, bus-rewind, bus-end-consumers, bus-forget-ids, bus-purge, bus-full, cache-flush, cache-evict, cache-wrong-types, cache-failover, cache-delay-replication, cache-delay-requests, cache-lose-answers; did you mean `ledger-lose-answers`?"#,
        ],
    ),
    (
        24,
        "kind = \"ledger-lose-answers\"\nshare = \"150%\"",
        &[
            r#"25:9: found `150%`, expected a share from `0%` to `100%`, such as `2%` or `0.5%`"#,
            r#"26:1: found the unknown key `node`, expected a key of a fault of kind `ledger-lose-answers`: at, kind, share, from, count, for, until (`node` belongs to crash, kill, stop, restart, pause, slow, crash-between-submissions, hold-outbox, clock-step, clock-drift, clock-freeze, wall-step, directory-revoke-early)"#,
        ],
    ),
    (
        24,
        "kind = \"ledger-delay-commits\"\nby = \"20\"\nfrom = \"core\"",
        &[
            r#"25:6: found `20`, expected a duration such as `250ms`, `5s` or `2m`; did you mean `20s`?"#,
            r#"26:8: found `core`, expected a selector of a single node"#,
            r#"27:1: found the unknown key `node`, expected a key of a fault of kind `ledger-delay-commits`: at, kind, by, from, for, until (`node` belongs to crash, kill, stop, restart, pause, slow, crash-between-submissions, hold-outbox, clock-step, clock-drift, clock-freeze, wall-step, directory-revoke-early)"#,
        ],
    ),
    (
        24,
        r#"kind = "ledger-conflicts""#,
        &[
            r#"22:1: found no conflicts, expected `serialization` or `deadlock` to be above `0%`"#,
            r#"25:1: found the unknown key `node`, expected a key of a fault of kind `ledger-conflicts`: at, kind, serialization, deadlock, for, until (`node` belongs to crash, kill, stop, restart, pause, slow, crash-between-submissions, hold-outbox, clock-step, clock-drift, clock-freeze, wall-step, directory-revoke-early)"#,
        ],
    ),
    (
        27,
        r#"timing = "failovr""#,
        &[
            r#"27:10: found `failovr`, expected a timing: failover, detect, reassign, reconstruct, redirect, reconnect, resume, operation, visibility; did you mean `failover`?"#,
        ],
    ),
    (
        28,
        r#"within = "30""#,
        &[r#"28:10: found `30`, expected a duration such as `250ms`, `5s` or `2m`; did you mean `30s`?"#],
    ),
    (
        28,
        "within = \"30s\"\n[[budget]]\ntiming = \"failover\"\nwithin = \"1s\"",
        &[r#"30:10: found a second budget for `failover`, expected one budget a timing"#],
    ),
    (26, r#"[budget]"#, &[r#"26:1: found a table, expected a list of tables: write `[[budget]]`"#]),
    (22, r#"[fault]"#, &[r#"22:1: found a table, expected a list of tables: write `[[fault]]`"#]),
];
