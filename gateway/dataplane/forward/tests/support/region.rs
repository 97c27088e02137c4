//! Three nodes in a row, and packets carried over them.

use tgw_contract::Point;
use tgw_forward::Pipeline;

use super::{frame, frame_to, ip, send, untunnel, verify, Plan, Result, EDGE_MAC, ROUTER, SERVER_MAC};

pub struct Region {
    pub plan: Plan,
    pub eip: Box<dyn Pipeline>,
    pub clb: Box<dyn Pipeline>,
    pub vswitch: Box<dyn Pipeline>,
}

impl Region {
    pub fn new(plan: Plan) -> Self {
        Self { plan, eip: plan.eip(), clb: plan.clb(), vswitch: plan.vswitch() }
    }

    /// A packet of a client to the public address: what the real server gets, and the points on the way.
    pub fn request(&mut self, packet: &[u8]) -> (Vec<u8>, Vec<Point>) {
        let (arrived, points) = self.forth(packet);
        verify(&arrived);
        (arrived, points)
    }

    /// A packet of the real server: what leaves towards the client, and the points on the way.
    pub fn reply(&mut self, packet: &[u8]) -> (Vec<u8>, Vec<Point>) {
        let (left, points) = self.back(packet);
        verify(&left);
        (left, points)
    }

    /// As [`Region::request`], for what is not a whole packet.
    pub fn forth(&mut self, packet: &[u8]) -> (Vec<u8>, Vec<Point>) {
        let one = send(&mut *self.eip, 1, &frame_to(EDGE_MAC, packet));
        let (arrived, points) = self.after_eip(&one);
        (arrived, [one.points, points].concat())
    }

    /// What an EIP node has sent towards the LDs, on to the real server.
    pub fn after_eip(&mut self, one: &Result) -> (Vec<u8>, Vec<Point>) {
        let plan = self.plan;
        let (src, dst, key, _) = untunnel(&one.frame);
        assert_eq!((src, dst), (ip(plan.eip), ip(plan.service)));
        assert!(key.unwrap_or(0) == 0);
        let two = send(&mut *self.clb, 0, &routed(one));
        assert_eq!(two.port(), 0);
        let (arrived, points) = self.after_ld(&two);
        (arrived, [two.points, points].concat())
    }

    /// What an LD has sent towards the host, on to the real server.
    pub fn after_ld(&mut self, two: &Result) -> (Vec<u8>, Vec<Point>) {
        let plan = self.plan;
        let (src, dst, key, _) = untunnel(&two.frame);
        assert_eq!((src, dst, key), (ip(plan.ld), ip(plan.host), plan.key));
        let three = send(&mut *self.vswitch, 0, &routed(two));
        assert_eq!(three.port(), 1);
        (to_server(&three), three.points)
    }

    /// As [`Region::reply`], for what is not a whole packet.
    pub fn back(&mut self, packet: &[u8]) -> (Vec<u8>, Vec<Point>) {
        let one = send(&mut *self.vswitch, 1, &frame_to(EDGE_MAC, packet));
        assert_eq!(one.port(), 0);
        let (left, points) = self.after_host(&one);
        (left, [one.points, points].concat())
    }

    /// What a vSwitch has sent to the LD, on to the edge.
    pub fn after_host(&mut self, one: &Result) -> (Vec<u8>, Vec<Point>) {
        let plan = self.plan;
        let (src, dst, key, _) = untunnel(&one.frame);
        assert_eq!((src, dst, key), (ip(plan.host), ip(plan.ld), plan.key));
        let two = send(&mut *self.clb, 0, &routed(one));
        assert_eq!(two.port(), 0);
        let (left, points) = self.reply_after_ld(&two);
        (left, [two.points, points].concat())
    }

    /// What an LD has sent to the EIP nodes, on to the edge.
    pub fn reply_after_ld(&mut self, two: &Result) -> (Vec<u8>, Vec<Point>) {
        let plan = self.plan;
        let (src, dst, ..) = untunnel(&two.frame);
        assert_eq!((src, dst), (ip(plan.ld), ip(plan.anycast)));
        let three = send(&mut *self.eip, 0, &routed(two));
        assert_eq!(three.port(), 1);
        (to_router(&three), three.points)
    }
}

/// The packet in a frame for the real server.
pub fn to_server(result: &Result) -> Vec<u8> {
    assert_eq!((&result.frame[..6], &result.frame[6..12]), (&SERVER_MAC.0[..], &EDGE_MAC.0[..]));
    result.frame[14..].to_vec()
}

/// The packet in a frame for the edge router.
pub fn to_router(result: &Result) -> Vec<u8> {
    assert_eq!((&result.frame[..6], &result.frame[6..12]), (&ROUTER.0[..], &EDGE_MAC.0[..]));
    result.frame[14..].to_vec()
}

/// The frame as the next node gets it from its router.
pub fn routed(result: &Result) -> Vec<u8> {
    assert_eq!(result.frame[..6], ROUTER.0);
    frame(&result.frame[14..])
}
