//! Who is who in every simulation of this process: issued once, so that two runs of one seed show the same certificates.

use super::number;
use std::{fs, sync::OnceLock};
use worldline_laws::network::{GATEWAY, WORKER};
use worldline_proto::NodeId;
use worldline_real::network::tls::{Authority, Holder, Identity};

pub(super) struct Identities {
    gateway: Identity,
    worker: Identity,
    stranger: Identity,
}

impl Identities {
    pub fn all() -> &'static Self {
        static ALL: OnceLock<Identities> = OnceLock::new();
        ALL.get_or_init(Self::issue)
    }

    pub fn of(&self, node: usize) -> Identity {
        match node {
            GATEWAY => self.gateway.clone(),
            WORKER => self.worker.clone(),
            _ => self.stranger.clone(),
        }
    }

    fn issue() -> Self {
        let folder = std::env::temp_dir().join(format!("worldline-simulated-{}", std::process::id()));
        let authority = Authority::create().expect("entropy");
        authority.save(&folder).expect("a folder for temporary files");
        let ca = folder.join("ca.pem");
        let role = |node| {
            let holder = Holder::Node(NodeId(number(node)));
            authority.issue(&holder, &[]).expect("issues").save(&folder).expect("a folder for temporary files");
            let file = |extension| folder.join(format!("{}.{extension}", holder.stem()));
            Identity::load(&ca, &file("pem"), &file("key")).expect("just issued")
        };
        let (gateway, worker) = (role(GATEWAY), role(WORKER));
        let stranger = Identity::stranger(&ca).expect("just made");
        drop(fs::remove_dir_all(&folder));
        Self { gateway, worker, stranger }
    }
}
