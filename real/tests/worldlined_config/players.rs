//! What a bot is told of its players: whatever nobody could play is refused before anybody tries.

use super::common::{Folder, NOBODY, World, free_address, run};

#[tokio::test]
async fn a_bots_file_is_told_what_is_wrong_with_each_player() {
    let world =
        World::new("bots", &format!("http://{NOBODY}"), &format!("postgres://me@{NOBODY}/x"), &[(7, free_address())])
            .await;
    let text = std::fs::read_to_string(&world.config).expect("reads");
    let players = "[[player]]\ncharacter = 1\nconduct = 'honset'\nstart = 5\n[[player]]\nnode = 4\ngateways = [9]\n\
                   [[player]]\nnode = 4\ncharacter = 2\ntoken = 'deadbeef'\ncolour = 'red'\n";
    let config = world.folder.write("bots.toml", &format!("{text}{players}"));
    let line = text.lines().count() + 9;
    let ended = run(&["bot", "--config", &config], &[]).await;
    ended.says(
        64,
        &[
            "did you mean `honest`?",
            "did you mean `5s`?",
            "found no `character`, expected `[[player]]` to have one",
            "found the gateway 9, which is not in `peers`",
            "found what is no token (not shown)",
            "found the unknown key `colour`",
            &format!("{config}:{line}:8: found the node n4 again, expected a node of its own"),
        ],
    );
    assert!(!ended.stderr.contains("deadbeef"));
}

/// What a bot needs, and no player.
struct Bot {
    folder: Folder,
    ca: String,
    key: String,
}

impl Bot {
    async fn new(name: &str) -> Self {
        let folder = Folder::new(name);
        let key = folder.write("token.key", &"5a".repeat(32));
        run(&["cert", "--out", &folder.text("certs")], &[]).await.says(0, &[]);
        let ca = folder.text("certs/ca.pem");
        Self { folder, ca, key }
    }

    /// Refuses these, and says so once.
    async fn refuses(&self, arguments: &[&str], told: &str) {
        let gateways = format!("1={NOBODY},2=127.0.0.1:2");
        let needed = ["bot", "--tls-ca", &self.ca, "--token-key", &self.key, "--peers", &gateways];
        let ended = run(&[&needed[..], arguments].concat(), &[]).await;
        ended.says(64, &[told]);
        assert_eq!(ended.stderr.lines().count(), 1, "nothing else is wrong: {}", ended.stderr);
    }
}

#[tokio::test]
async fn players_that_count_past_the_last_number_are_refused() {
    let bot = Bot::new("counted").await;
    let last = "72057594037927935";
    bot.refuses(
        &["--players", "5", "--character", last],
        "flag --character: found `72057594037927935`, counted up by 1 for another player, \
         expected a character up to 72057594037927935 for each player",
    )
    .await;
    let of_node = "counted up by 2 for another player, expected a node's id up to 4294967294 for each player";
    bot.refuses(&["--players", "5", "--character", "1", "--node", "4294967293"], of_node).await;
    let config = bot.folder.write("bots.toml", &format!("character = {last}\n[[player]]\n[[player]]\n"));
    bot.refuses(&["--config", &config], &format!("{config}:1:13: found the number {last}, counted up by 1")).await;
}

#[tokio::test]
async fn what_nobody_could_play_is_refused() {
    let bot = Bot::new("unplayable").await;
    for (arguments, told) in [
        (["--start", "5s", "--stop", "1s"], "flag --stop: found a `stop` of `1s` and a `start` of `5s`"),
        (["--start", "5s", "--stop", "5s"], "expected `stop` to be later than `start`"),
        (
            ["--moves-every", "1ns", "--players", "3"],
            "flag --moves-every: found `1ns`, expected `1ms` or longer, or `0s`",
        ),
        (["--attacks-every", "1ns", "--moves-every", "0s"], "flag --attacks-every: found `1ns`"),
        (["--target", "character-5", "--players", "3"], "flag --target: found `character-5`, expected a boss"),
        (["--gateways", "1,2,1", "--players", "3"], "flag --gateways: found n1 again, expected each gateway once"),
        (["--node", "2", "--players", "3"], "flag --node: found the node n2, which `peers` has for another"),
    ] {
        bot.refuses(&[&["--character", "1"], &arguments[..]].concat(), told).await;
    }
}
