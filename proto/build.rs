//! Compiles `worldline/**/*.proto` in pure Rust, and writes beside the messages the sums of all unary calls: `Request` and
//! `Reply`, each with its gRPC path, so that one generic adapter can serve every method.

use prost::Message as _;
use prost_build::{Method, Service, ServiceGenerator};
use std::{env, error::Error, fmt::Write as _, fs, path::PathBuf};

const FILES: [&str; 3] =
    ["worldline/client/v1/client.proto", "worldline/server/v1/fact.proto", "worldline/server/v1/server.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    for file in FILES {
        println!("cargo:rerun-if-changed={file}");
    }
    let descriptors = protox::compile(FILES, ["."])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    prost_build::Config::new()
        .include_file("packages.rs")
        .service_generator(Box::new(Calls))
        .compile_fds(descriptors)?;
    Ok(())
}

/// Writes the call sums behind the messages of a package that has a service.
struct Calls;

impl ServiceGenerator for Calls {
    fn generate(&mut self, service: Service, out: &mut String) {
        let path = |m: &Method| format!("/{}.{}/{}", service.package, service.proto_name, m.proto_name);
        let name = |m: &Method| m.proto_name.clone();
        // Writing to a `String` cannot fail.
        let mut line = |text: String| writeln!(out, "{text}").expect("a string takes all text");
        for (sum, what, side) in [("Request", "request", 0), ("Reply", "reply", 1)] {
            let message = |m: &Method| if side == 0 { m.input_type.clone() } else { m.output_type.clone() };
            line(format!("/// The {what} of any unary call."));
            line("#[derive(Clone, Debug, PartialEq, Eq, Hash)]".into());
            line(format!("pub enum {sum} {{"));
            for m in &service.methods {
                line(format!("    /// Of `{}`.\n    {}({}),", path(m), name(m), message(m)));
            }
            line("}".into());
            line(format!("impl {sum} {{"));
            line("    /// The gRPC path of its method.\n    #[must_use]\n    pub fn path(&self) -> &'static str {\n        match self {".into());
            for m in &service.methods {
                line(format!("            Self::{}(_) => {:?},", name(m), path(m)));
            }
            line("        }\n    }".into());
            line("    /// Its protobuf encoding.\n    #[must_use]\n    pub fn encode_to_vec(&self) -> ::prost::alloc::vec::Vec<u8> {\n        match self {".into());
            for m in &service.methods {
                line(format!("            Self::{}(message) => ::prost::Message::encode_to_vec(message),", name(m)));
            }
            line("        }\n    }".into());
            line("    /// How many bytes its encoding has.\n    #[must_use]\n    pub fn encoded_len(&self) -> usize {\n        match self {".into());
            for m in &service.methods {
                line(format!("            Self::{}(message) => ::prost::Message::encoded_len(message),", name(m)));
            }
            line("        }\n    }".into());
            line(format!(
                "    /// Decodes the {what} of the method at `path`; `None` where there is no such method.\n    #[must_use]\n    \
                 pub fn decode(path: &str, bytes: &[u8]) -> Option<Result<Self, ::prost::DecodeError>> {{\n        match path {{"
            ));
            for m in &service.methods {
                line(format!(
                    "            {:?} => Some(::prost::Message::decode(bytes).map(Self::{})),",
                    path(m),
                    name(m)
                ));
            }
            line("            _ => None,\n        }\n    }\n}".into());
        }
    }
}
