//! `worldlined`: one binary, a subcommand a role.

fn main() {}
