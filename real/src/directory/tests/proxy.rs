//! A TCP proxy before etcd that can be cut.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    runtime::Runtime,
    sync::watch,
};

/// The proxy; it lives as long as the runtime.
pub(super) struct Proxy {
    address: SocketAddr,
    open: Arc<watch::Sender<bool>>,
    to: Arc<Mutex<String>>,
}

impl Proxy {
    pub fn new(runtime: &Runtime, url: &str) -> Self {
        let to = Arc::new(Mutex::new(String::new()));
        let proxy_to = to.clone();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("bound");
        let open = Arc::new(watch::channel(true).0);
        let state = open.clone();
        runtime.spawn(async move {
            while let Ok((mut here, _)) = listener.accept().await {
                let (mut state, to) = (state.subscribe(), proxy_to.lock().expect("no panic").clone());
                tokio::spawn(async move {
                    if !*state.borrow_and_update() {
                        return;
                    }
                    let Ok(mut there) = TcpStream::connect(to).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut here, &mut there) => {}
                        _ = state.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        let proxy = Self { address, open, to };
        proxy.leads_to(url);
        proxy
    }

    /// Leads new connections there; those that stand stay as they are.
    pub fn leads_to(&self, url: &str) {
        url.trim_start_matches("http://").clone_into(&mut self.to.lock().expect("no panic"));
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends all connections and lets none through.
    pub fn cut(&self) {
        self.open.send_replace(false);
    }

    pub fn heal(&self) {
        self.open.send_replace(true);
    }
}
