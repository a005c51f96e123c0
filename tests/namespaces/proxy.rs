//! A TCP proxy that delays what it passes on, and can be cut.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const PIECE_LEN: usize = 256 << 10;

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    delay: Duration,
    is_cut: AtomicBool,
    ends: AtomicBool,
    /// Both ends of all connections there were.
    streams: Mutex<Vec<TcpStream>>,
}

/// A proxy in front of one address.
#[derive(Debug)]
pub(super) struct Proxy {
    pub(super) addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens on a free port of `ip`. What goes through is late by `delay`, each way.
    pub(super) fn start(ip: &str, target: SocketAddr, delay: Duration) -> Self {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            target,
            delay,
            is_cut: AtomicBool::new(false),
            ends: AtomicBool::new(false),
            streams: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if of_thread.ends.load(Ordering::SeqCst) {
                    return;
                }
                if !of_thread.is_cut.load(Ordering::SeqCst) {
                    let shared = Arc::clone(&of_thread);
                    std::thread::spawn(move || relay(&shared, stream));
                }
            }
        });
        Self { addr, shared }
    }

    /// Ends all connections, and each new one at once.
    pub(super) fn cut(&self) {
        self.shared.is_cut.store(true, Ordering::SeqCst);
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            // One that has ended already can't be ended.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Lets connections through again.
    pub(super) fn mend(&self) {
        self.shared.is_cut.store(false, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ends.store(true, Ordering::SeqCst);
        self.cut();
        // Wakes the thread that accepts.
        drop(TcpStream::connect(self.addr));
    }
}

fn relay(shared: &Arc<Shared>, client: TcpStream) {
    let Ok(server) = TcpStream::connect_timeout(&shared.target, Duration::from_secs(5)) else {
        return;
    };
    let (Ok(client2), Ok(server2)) = (client.try_clone(), server.try_clone()) else {
        return;
    };
    for stream in [&client, &server] {
        drop(stream.set_nodelay(true));
        if let Ok(stream) = stream.try_clone() {
            shared.streams.lock().unwrap().push(stream);
        }
    }
    if shared.is_cut.load(Ordering::SeqCst) {
        drop(client.shutdown(Shutdown::Both));
        return;
    }
    let delay = shared.delay;
    std::thread::spawn(move || pass_on(client2, server2, delay));
    pass_on(server, client, delay);
}

fn pass_on(mut from: TcpStream, mut to: TcpStream, delay: Duration) {
    let mut piece = vec![0; PIECE_LEN];
    while let Ok(len @ 1..) = from.read(&mut piece) {
        std::thread::sleep(delay);
        if to.write_all(&piece[..len]).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Write));
    drop(from.shutdown(Shutdown::Read));
}
