//! What a Linux interface is asked besides its index: queues, MTU, the addresses of its host. Unsafe code.

use std::io;
use std::mem;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

const ETHTOOL_GCHANNELS: u32 = 0x3C;

/// `struct ethtool_channels` (linux/ethtool.h).
#[repr(C)]
#[derive(Default)]
struct Channels {
    command: u32,
    most: [u32; 4],
    receive: u32,
    transmit: u32,
    other: u32,
    combined: u32,
}

/// How many queues an interface has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queues {
    pub(crate) receive: u32,
    pub(crate) transmit: u32,
}

/// Asks the kernel about one interface, in the network namespace where this was made.
pub(crate) struct Interface {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Interface {
    pub(crate) fn new(name: &str) -> io::Result<Self> {
        // SAFETY: no pointers.
        let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor, and nobody else knows it.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let mut field = [0; libc::IFNAMSIZ];
        if name.len() >= field.len() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        for (place, byte) in field.iter_mut().zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        Ok(Self { socket, name: field })
    }

    /// Its MTU, Ethernet header not counted [bytes].
    pub(crate) fn mtu(&self) -> io::Result<u32> {
        let mut request = self.request();
        // SAFETY: `request` is alive for the call, and the kernel fills the member that is read.
        let mtu = unsafe {
            self.ask(libc::SIOCGIFMTU as libc::Ioctl, &mut request)?;
            request.ifr_ifru.ifru_mtu
        };
        Ok(mtu as u32)
    }

    /// Its queues; one, when the driver does not say.
    pub(crate) fn queues(&self) -> Queues {
        let mut channels = Channels { command: ETHTOOL_GCHANNELS, ..Channels::default() };
        let mut request = self.request();
        request.ifr_ifru.ifru_data = (&raw mut channels).cast();
        // SAFETY: `request` and the `channels` that it points to are alive for the call; the kernel writes one
        // `struct ethtool_channels`.
        let known = unsafe { self.ask(libc::SIOCETHTOOL as libc::Ioctl, &mut request) };
        match known {
            Ok(()) => Queues {
                receive: (channels.receive + channels.combined).max(1),
                transmit: (channels.transmit + channels.combined).max(1),
            },
            Err(_) => Queues { receive: 1, transmit: 1 },
        }
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: a C struct of integers and a union of such and pointers, for which zero bytes are a value.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        request.ifr_name = self.name;
        request
    }

    /// # Safety
    /// What `request` points to is what the kernel expects for `code`.
    unsafe fn ask(&self, code: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
        // SAFETY: the pointer is to `request`, borrowed for the call; the rest is the caller's.
        match unsafe { libc::ioctl(self.socket.as_raw_fd(), code, &raw mut *request) } {
            status if status < 0 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

/// Every address of this network namespace, IPv4 mapped: the stack answers for each of them on every interface.
pub(crate) fn host_addresses() -> io::Result<Vec<u128>> {
    let mut list: *mut libc::ifaddrs = ptr::null_mut();
    // SAFETY: `list` is alive for the call, which sets it to a list that is ours until freeifaddrs.
    if unsafe { libc::getifaddrs(&raw mut list) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let mut found = Vec::new();
    let mut next = list;
    // SAFETY: `next` walks the list that getifaddrs gave, null at its end; nothing of it is freed meanwhile.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let place = entry.ifa_addr;
        // SAFETY: an address that is not null begins with its family, and is a struct of that family's kind; read
        // unaligned, as nothing promises alignment.
        unsafe {
            match (!place.is_null()).then(|| libc::c_int::from((*place).sa_family)) {
                Some(libc::AF_INET) => {
                    let address = place.cast::<libc::sockaddr_in>().read_unaligned().sin_addr.s_addr;
                    found.push(u128::from(Ipv4Addr::from(u32::from_be(address)).to_ipv6_mapped()));
                }
                Some(libc::AF_INET6) => {
                    let address = place.cast::<libc::sockaddr_in6>().read_unaligned().sin6_addr.s6_addr;
                    found.push(u128::from(Ipv6Addr::from(address)));
                }
                _ => {}
            }
        }
    }
    // SAFETY: the list that getifaddrs gave, once; the references into it are gone.
    unsafe { libc::freeifaddrs(list) };
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_known() {
        let interface = Interface::new("lo").unwrap();
        assert!(interface.mtu().unwrap() >= 1500);
        assert_eq!(interface.queues(), Queues { receive: 1, transmit: 1 });
        assert!(Interface::new("a-name-that-is-too-long").is_err());
        assert!(Interface::new("nothing").unwrap().mtu().is_err());
        assert!(host_addresses().unwrap().contains(&u128::from(Ipv4Addr::LOCALHOST.to_ipv6_mapped())));
    }
}
