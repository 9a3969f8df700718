//! `worldlined`: one binary, a subcommand a role.

fn main() -> std::process::ExitCode {
    worldline_real::server::main(std::env::args_os(), std::env::vars_os()).into()
}
