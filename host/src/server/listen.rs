//! Sockets: one listener per entry point and worker.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};

use anyhow::{Context, bail};
use socket2::{Domain, Socket, Type};

use crate::config::install::{EntryPoint, Protocol};

const BACKLOG: i32 = 4096;

/// An entry point's listeners, one for each worker.
pub(super) struct Bound {
    pub(super) address: SocketAddr,
    pub(super) listeners: Vec<TcpListener>,
}

/// How many threads serve: one per core.
pub(super) fn workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

pub(super) fn bind(entry_points: &BTreeMap<String, EntryPoint>) -> anyhow::Result<BTreeMap<String, Bound>> {
    let tcp = entry_points.iter().filter(|(_, entry_point)| entry_point.address.protocol == Protocol::Tcp);
    tcp.map(|(name, entry_point)| {
        let bound = bind_one(entry_point)
            .with_context(|| format!("listening on `{}` for the entry point `{name}`", entry_point.address))?;
        Ok((name.clone(), bound))
    })
    .collect()
}

fn bind_one(entry_point: &EntryPoint) -> anyhow::Result<Bound> {
    let wanted = address(entry_point)?;
    // With SO_REUSEPORT a second proxy would share the port in silence: the first socket asks for it alone.
    let first = socket(wanted, entry_point.reuse_port)?;
    let address = first.local_addr()?.as_socket().context("a TCP socket has an IP address")?;
    if cfg!(not(target_os = "linux")) {
        // Elsewhere the kernel does not spread connections over sockets: the workers share one.
        first.listen(BACKLOG)?;
        let first = TcpListener::from(first);
        let listeners = (0..workers()).map(|_| first.try_clone()).collect::<Result<_, _>>()?;
        return Ok(Bound { address, listeners });
    }
    drop(first);
    let listeners = (0..workers()).map(|_| {
        let socket = socket(address, true)?;
        socket.listen(BACKLOG)?;
        Ok(TcpListener::from(socket))
    });
    Ok(Bound { address, listeners: listeners.collect::<anyhow::Result<_>>()? })
}

/// `:80` means every address of the machine, IPv6 and IPv4.
fn address(entry_point: &EntryPoint) -> anyhow::Result<SocketAddr> {
    let (host, port) = (entry_point.address.host.as_str(), entry_point.address.port);
    if host.is_empty() {
        let everywhere: SocketAddr = (std::net::Ipv6Addr::UNSPECIFIED, port).into();
        let has_ipv6 = Socket::new(Domain::IPV6, Type::STREAM, None).is_ok();
        return Ok(if has_ipv6 { everywhere } else { (std::net::Ipv4Addr::UNSPECIFIED, port).into() });
    }
    match (host, port).to_socket_addrs()?.next() {
        Some(address) => Ok(address),
        None => bail!("`{host}` has no address"),
    }
}

fn socket(address: SocketAddr, share: bool) -> anyhow::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    #[cfg(unix)]
    {
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(share)?;
    }
    #[cfg(not(unix))]
    let _ = share;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
