//! A frame in its buffer, with room in front for the headers of a tunnel.

use crate::prefetch::prefetch;
use crate::Nanos;

/// Bytes kept free in front of a frame: Ethernet + IPv6 + UDP + VXLAN + Ethernet take 84, and a PROXY header of IPv6 takes
/// 52, for which the headers of the tunnel that it came by make room.
pub const HEADROOM: usize = 128;
/// Bytes of a buffer, headroom included, unless told otherwise.
pub const DEFAULT_CAPACITY: usize = 2048;

/// One frame, from the Ethernet header on. The buffer is owned and never grows.
#[derive(Clone, Debug)]
pub struct Frame {
    buffer: Vec<u8>,
    head: usize,
    len: usize,
    /// The port it came in by.
    pub port: u16,
    /// When it came in.
    pub rx_ns: Nanos,
}

impl Default for Frame {
    fn default() -> Self {
        Self::with_capacity(DEFAULT_CAPACITY)
    }
}

impl Frame {
    /// An empty frame in a buffer of `capacity` bytes, [`HEADROOM`] included.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { buffer: vec![0; capacity.max(HEADROOM)], head: HEADROOM, len: 0, port: 0, rx_ns: 0 }
    }

    /// Copy a received frame in. False, and the frame is empty, when it does not fit.
    pub fn load(&mut self, port: u16, rx_ns: Nanos, bytes: &[u8]) -> bool {
        self.port = port;
        self.rx_ns = rx_ns;
        let tail = self.writable_tail();
        let fits = match tail.get_mut(..bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                true
            }
            None => false,
        };
        self.set_len(if fits { bytes.len() } else { 0 });
        fits
    }

    /// The frame.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.buffer.get(self.head..self.head + self.len).unwrap_or_default()
    }

    /// The frame, to change.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.buffer.get_mut(self.head..self.head + self.len).unwrap_or_default()
    }

    /// Empty the frame and return the whole room behind the headroom, to receive into; then call [`Frame::set_len`].
    pub fn writable_tail(&mut self) -> &mut [u8] {
        self.head = HEADROOM;
        self.len = 0;
        self.buffer.get_mut(HEADROOM..).unwrap_or_default()
    }

    /// The frame is `len` bytes long from where it starts now; at most what fits.
    pub fn set_len(&mut self, len: usize) {
        self.len = len.min(self.buffer.len() - self.head);
    }

    /// Put `count` bytes in front (their content is what the buffer held) and return them; `None`, and nothing changes,
    /// without that much headroom.
    pub fn prepend(&mut self, count: usize) -> Option<&mut [u8]> {
        let head = self.head.checked_sub(count)?;
        self.head = head;
        self.len += count;
        self.buffer.get_mut(head..head + count)
    }

    /// Keep the `len` bytes from `at` on, with `front` bytes ahead of them (their content is what the buffer held), and
    /// return the whole. `None`, and nothing changes, when the frame does not reach so far or there is no such headroom.
    #[inline]
    pub fn reframe(&mut self, at: usize, len: usize, front: usize) -> Option<&mut [u8]> {
        if at + len > self.len {
            return None;
        }
        let head = (self.head + at).checked_sub(front)?;
        let whole = self.buffer.get_mut(head..head + front + len)?;
        (self.head, self.len) = (head, front + len);
        Some(whole)
    }

    /// Ask for the cache lines of the headers: soon they will be read.
    #[inline]
    pub(crate) fn prefetch(&self) {
        if let Some(lines) = self.buffer.get(self.head..self.head + 128) {
            prefetch(&lines[0]);
            prefetch(&lines[64]);
        }
    }

    /// Cut `count` bytes off the front; everything when the frame is shorter.
    pub fn trim_front(&mut self, count: usize) {
        let count = count.min(self.len);
        self.head += count;
        self.len -= count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_fills_and_refuses_what_does_not_fit() {
        let mut frame = Frame::with_capacity(HEADROOM + 4);
        assert!(frame.load(3, 9, &[1, 2, 3, 4]));
        assert_eq!((frame.bytes(), frame.port, frame.rx_ns), (&[1, 2, 3, 4][..], 3, 9));
        assert!(!frame.load(3, 9, &[0; 5]));
        assert!(frame.bytes().is_empty());
    }

    #[test]
    fn prepend_and_trim_move_the_front() {
        let mut frame = Frame::default();
        assert!(frame.load(0, 0, &[7; 10]));
        assert!(frame.prepend(HEADROOM + 1).is_none());
        assert_eq!(frame.bytes().len(), 10);
        frame.prepend(2).unwrap().copy_from_slice(&[1, 2]);
        assert_eq!(&frame.bytes()[..4], &[1, 2, 7, 7]);
        frame.trim_front(3);
        assert_eq!(frame.bytes().len(), 9);
        frame.trim_front(100);
        assert!(frame.bytes().is_empty());
        assert!(frame.prepend(HEADROOM).is_some());
    }

    #[test]
    fn reframe_keeps_the_middle_behind_new_room() {
        let mut frame = Frame::default();
        assert!(frame.load(0, 0, &[1, 2, 3, 4, 5, 6]));
        assert!(frame.reframe(3, 4, 2).is_none() && frame.reframe(0, 1, HEADROOM + 1).is_none());
        frame.prefetch();
        let whole = frame.reframe(2, 3, 4).unwrap();
        whole[..4].fill(9);
        assert_eq!(frame.bytes(), &[9, 9, 9, 9, 3, 4, 5]);
    }

    #[test]
    fn receive_into_the_tail() {
        let mut frame = Frame::with_capacity(0);
        assert!(frame.writable_tail().is_empty());
        frame.set_len(5);
        assert!(frame.bytes().is_empty());
        let mut frame = Frame::default();
        let room = frame.writable_tail().len();
        assert_eq!(room, DEFAULT_CAPACITY - HEADROOM);
        frame.set_len(usize::MAX);
        assert_eq!(frame.bytes().len(), room);
    }
}
