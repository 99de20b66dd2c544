//! Real daemons on real hosts: a mesh of network namespaces on this machine, and what such meshes do to a swarm.
//!
//! ```text
//!  swarm-lab -> Mesh (mesh/meshlab)   hosts h1..hN: own network, /run, hostname, resolver; WireGuard between them
//!            -> Lab                   one `swarmd` on each: own state directory, own config, the binaries that ship
//!            -> Load                  jobs at a steady pace at every host; each answer is written down
//!            -> Step                  one thing that goes wrong, until it has shown; then it heals
//!            -> judge                 nothing acknowledged lost, one leader, all members alive, no task twice where that was promised
//! ```
//!
//! **Why namespaces.** They have what a loopback swarm lacks: a link that can be cut, one way or both, an address that moves, an
//! interface that is not there yet, a resolver that lies. WireGuard is `wireguard-go`, a user-space program: for behaviour, not for
//! speed. There is no kernel support needed beyond `tun`, veth and nftables; delay is a relay of ours where netem is missing.
//!
//! **What it costs.** Root, the packages that `tests/run` installs, and some 10 MiB a host beside the daemon's. A lab of 5 hosts is up
//! in half a second, of 100 in six.
//!
//! **It always cleans up.** meshlab writes down what it makes before it makes it. A process of its own waits for the end of this one,
//! however that comes, and then takes the mesh away; it holds the lock that keeps two runs of one name apart. `--name` makes another
//! lab beside the first.
//!
//! **How hosts find each other** is the lab's to choose ([`Finding`]): no daemon is told more than an operator would type. What the
//! README shows for several machines is typed here too ([`readme()`]).
//!
//! What it does not show:
//! - How many hosts WireGuard carries. Each of its processes takes some 3 % of a core beside the daemon's 1 %, and no interrupt runs
//!   it, as the kernel's would be: thirty of them on two cores that compile something else hold packets back for longer than a swarm
//!   with the timings of one building waits. Crowds are therefore counted without it (`crowd --plain`).
//! - A one-way cut does not end a WireGuard session at once: it lives until its keys end (180 s), then both directions are dead. Steps
//!   that cut one way are shorter than that.
//! - Delay belongs to a host's link, not to a pair; it adds up between two delayed hosts, and jitter reorders.
//! - `Online` in the LocalAPI is what was set, not derived from cuts: so it is with Tailscale, where it means "reaches the control
//!   server". There is no relay (DERP), no NAT and no ACL.

mod crowd;
mod fan_out;
mod finding;
mod host;
mod judge;
mod lab;
mod load;
mod mesh;
mod readme;
mod record;
mod step;
mod wait;

pub use self::{
    crowd::crowd,
    fan_out::{ROUNDS, beside_nc, control, fan_out, killed, sources},
    finding::Finding,
    judge::judge,
    lab::{Lab, Preset, Spec},
    load::Load,
    mesh::Mesh,
    readme::readme,
    record::Figures,
    step::Step,
    wait::until,
};
