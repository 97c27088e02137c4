//! Faults that a lab injects into a running node: the ground truth for whoever looks for them.

use std::fmt;

use tgw_forward as forward;

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The encapsulation step fails (TUNNEL_ENCAP_FAIL).
    EncapFail,
    /// Frames vanish; only the counters know.
    LossSilent,
    /// Frames are dropped with a Drop Point (INJECTED_LOSS).
    LossVisible,
    /// Frames wait inside the node for this long before they are processed.
    Delay {
        /// Microseconds.
        delay_us: u32,
    },
    /// The worker stops turning: no frames, no heartbeat.
    StuckWorker,
    /// One VIP is missing from the tables.
    VipMissing {
        /// Its id in the fleet document.
        vip_id: u32,
    },
    /// Replies vanish, requests do not.
    ReplyLoss,
}

/// One fault, on one worker or on all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// For each frame on its own, from 0 to 1.
    pub probability: f64,
    /// The same seed and frames give the same faults.
    pub seed: u64,
    /// The worker concerned, by the number of its tap; `None`: every worker.
    pub worker: Option<u16>,
}

/// Why a fault cannot be injected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultError(pub String);

impl fmt::Display for FaultError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for FaultError {}

const KINDS: &str = "encap_fail, loss_silent, loss_visible, delay, stuck_worker, vip_missing or reply_loss";

impl Fault {
    /// A fault by the name of its kind. `FaultError` when the kind is unknown, its option is missing or the probability
    /// is none.
    pub fn new(
        kind: &str,
        probability: f64,
        seed: u64,
        worker: Option<u16>,
        delay_us: Option<u32>,
        vip_id: Option<u32>,
    ) -> Result<Self, FaultError> {
        if !(0.0..=1.0).contains(&probability) {
            return Err(FaultError(format!("probability: expected 0 to 1, got {probability}")));
        }
        let needs = |option: &str| FaultError(format!("{option}: expected with the kind {kind}"));
        let kind = match kind {
            "encap_fail" => FaultKind::EncapFail,
            "loss_silent" => FaultKind::LossSilent,
            "loss_visible" => FaultKind::LossVisible,
            "delay" => FaultKind::Delay { delay_us: delay_us.ok_or_else(|| needs("delay_us"))? },
            "stuck_worker" => FaultKind::StuckWorker,
            "vip_missing" => FaultKind::VipMissing { vip_id: vip_id.ok_or_else(|| needs("vip_id"))? },
            "reply_loss" => FaultKind::ReplyLoss,
            other => return Err(FaultError(format!("kind: expected {KINDS}, got {other}"))),
        };
        Ok(Self { kind, probability, seed, worker })
    }

    pub(crate) fn concerns(&self, worker: u16) -> bool {
        self.worker.is_none_or(|only| only == worker)
    }
}

/// What the pipeline itself does of these faults; the runtime does the rest.
pub(crate) fn pipeline_faults(faults: &[&Fault]) -> forward::Faults {
    let kind = |kind| match kind {
        FaultKind::EncapFail => Some(forward::FaultKind::EncapFail),
        FaultKind::LossSilent => Some(forward::FaultKind::LossSilent),
        FaultKind::LossVisible => Some(forward::FaultKind::LossVisible),
        FaultKind::VipMissing { vip_id } => Some(forward::FaultKind::VipMissing { vip_id }),
        FaultKind::ReplyLoss => Some(forward::FaultKind::ReplyLoss),
        FaultKind::Delay { .. } | FaultKind::StuckWorker => None,
    };
    forward::Faults::new(faults.iter().filter_map(|fault| {
        Some(forward::Fault { kind: kind(fault.kind)?, probability: fault.probability, seed: fault.seed })
    }))
}

/// A seeded die: SplitMix64 against a threshold.
#[derive(Clone, Debug)]
pub(crate) struct Dice {
    state: u64,
    probability: f64,
}

impl Dice {
    pub(crate) fn new(probability: f64, seed: u64) -> Self {
        Self { state: seed, probability }
    }

    pub(crate) fn roll(&mut self) -> bool {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        // 53 bits fill a double's mantissa: a fair number in [0, 1).
        ((z >> 11) as f64) < self.probability * (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_kind_names_the_known_ones() {
        let error = Fault::new("lightning", 0.5, 1, None, None, None).unwrap_err();
        assert!(error.to_string().contains("stuck_worker"), "{error}");
        assert!(Fault::new("delay", 0.5, 1, None, None, None).unwrap_err().to_string().contains("delay_us"));
        assert!(Fault::new("reply_loss", 1.5, 1, None, None, None).unwrap_err().to_string().contains("0 to 1"));
        assert!(Fault::new("reply_loss", f64::NAN, 1, None, None, None).is_err());
    }

    #[test]
    fn dice_are_fair_and_repeat_themselves() {
        let mut dice = Dice::new(0.25, 7);
        let hits = (0..10_000).filter(|_| dice.roll()).count();
        assert!((2300..2700).contains(&hits), "{hits}");
        let mut again = Dice::new(0.25, 7);
        assert_eq!(hits, (0..10_000).filter(|_| again.roll()).count());
        let mut never = Dice::new(0.0, 7);
        let mut always = Dice::new(1.0, 7);
        assert!((0..1000).all(|_| !never.roll() && always.roll()));
    }
}
