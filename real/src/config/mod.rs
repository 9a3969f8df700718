//! What a process is told before it starts: a file in TOML, variables, flags; flags win over variables, those over the file.
//!
//! Everything that is wrong is reported at once, each with where it was said, what was found and what would be right. Nothing
//! here prints a secret.
//!
//! Deliberately absent: a reload. A process reads its configuration once; what changes, changes with a restart.

pub mod decode;
pub mod given;
pub mod keys;
mod knobs;
pub mod layers;
mod players;
pub mod problem;
mod server;
mod world;

pub use keys::Command;
pub use layers::Layers;
pub use players::{Bot, Player, bot};
pub use problem::{Problem, Problems, Sink};
pub use server::{Part, Place, Process, Secret, Server, Traces, members, region_cache, server, world_of};
pub use world::{Seed, World, world};
