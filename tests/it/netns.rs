//! A second host: a network namespace with one link to ours, and a firewall of its own. Needs root,
//! `ip` and `nft`. Gone at the end of the test.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use rustix::fd::AsFd;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// See the module.
pub struct Host {
    pub name: String,
    /// Our end of the link.
    pub here: Ipv4Addr,
    /// Its end.
    pub there: Ipv4Addr,
}

impl Host {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Names and networks of test programs that run at the same time must differ.
        let unique = std::process::id().wrapping_mul(16).wrapping_add(number);
        let name = format!("weft{unique}");
        let [.., a, b] = unique.to_be_bytes();
        // Of 100.64.0.0/10, which is nobody's on the public network.
        let net = |last| Ipv4Addr::new(100, 64 + (a & 63), b, last);
        let host = Self { name, here: net(1), there: net(2) };
        let (name, near, far) = (&host.name, host.near(), host.far());
        run(&format!("ip netns add {name}"));
        run(&format!("ip link add {near} type veth peer name {far} netns {name}"));
        run(&format!("ip addr add {}/30 dev {near}", host.here));
        run(&format!("ip link set {near} up"));
        for command in [
            format!("addr add {}/30 dev {far}", host.there),
            format!("link set {far} up"),
            "link set lo up".to_owned(),
        ] {
            run(&format!("ip -n {name} {command}"));
        }
        host.nft("add table inet weft");
        for hook in ["input", "output"] {
            host.nft(&format!("add chain inet weft {hook} {{ type filter hook {hook} priority 0; }}"));
        }
        host
    }

    fn near(&self) -> String {
        format!("{}a", self.name)
    }

    fn far(&self) -> String {
        format!("{}b", self.name)
    }

    /// Drops what matches, in both directions; everything when the match is empty.
    pub fn drop_packets(&self, matching: &str) {
        let link = self.far();
        self.nft(&format!("add rule inet weft input iifname {link} {matching} drop"));
        self.nft(&format!("add rule inet weft output oifname {link} {matching} drop"));
    }

    /// Whether everything that was sent over the link, either way, is acknowledged.
    pub fn is_quiet(&self) -> bool {
        let tables = [sockets(), self.spawn(sockets).join().unwrap()];
        // As the kernel writes an address, and a queue with nothing in it.
        let address = format!("{:08X}:", u32::from_ne_bytes(self.there.octets()));
        let over_the_link = |line: &&str| line.contains(&address);
        let lines = tables.iter().flat_map(|table| table.lines().filter(over_the_link));
        lines.into_iter().all(|line| line.split_whitespace().nth(4).unwrap().starts_with("00000000:"))
    }

    fn nft(&self, command: &str) {
        let arguments = ["netns", "exec", &self.name, "nft", command];
        let done = Command::new("ip").args(arguments).output().unwrap();
        assert!(done.status.success(), "nft {command}: {}", String::from_utf8_lossy(&done.stderr));
    }

    /// Runs something on a thread of its own there. Sockets stay in the namespace they were made in.
    pub fn spawn<T: Send + 'static>(&self, run: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.name)).unwrap();
        std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            run()
        })
    }

    /// A listener there, for instance on its end of the link.
    pub fn listen(&self, address: impl Into<IpAddr>) -> TcpListener {
        let address = SocketAddr::new(address.into(), 0);
        self.spawn(move || weft::net::socket::listen(address).unwrap()).join().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // With the namespace its end of the link goes, and with that ours.
        let _gone = Command::new("ip").args(["netns", "del", &self.name]).status();
        let _gone = Command::new("ip").args(["link", "del", &self.near()]).output();
    }
}

/// The TCP sockets of the namespace that this thread is in.
fn sockets() -> String {
    std::fs::read_to_string("/proc/thread-self/net/tcp").unwrap()
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let done = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(done.status.success(), "{command}: {}", String::from_utf8_lossy(&done.stderr));
}
