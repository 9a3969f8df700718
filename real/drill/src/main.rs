//! `drill`: a scenario file on real processes.

fn main() {}
