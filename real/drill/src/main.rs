//! `drill`: a scenario file on real processes.

mod proxy;

fn main() {}
