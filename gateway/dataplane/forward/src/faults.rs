//! Faults that a lab injects into a pipeline: seeded, so that localization has a ground truth.

/// What goes wrong inside a pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// The encapsulation step fails (TUNNEL_ENCAP_FAIL).
    EncapFail,
    /// Frames are dropped; the counter of INJECTED_LOSS knows, no Drop Point tells.
    LossSilent,
    /// Frames are dropped with a Drop Point (INJECTED_LOSS).
    LossVisible,
    /// The VIP of this id is not found (NO_VIP).
    VipMissing {
        /// Its id in the fleet document.
        vip_id: u32,
    },
    /// As [`FaultKind::LossSilent`], but for replies only.
    ReplyLoss,
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Fault {
    /// What goes wrong.
    pub kind: FaultKind,
    /// For each frame on its own, from 0 to 1.
    pub probability: f64,
    /// The same seed and frames give the same faults.
    pub seed: u64,
}

/// The faults of one pipeline; none by default.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    armed: Vec<Armed>,
}

#[derive(Clone, Debug)]
struct Armed {
    kind: FaultKind,
    threshold: u64,
    state: u64,
}

impl Faults {
    /// Arm these faults.
    pub fn new(faults: impl IntoIterator<Item = Fault>) -> Self {
        let arm = |fault: Fault| Armed {
            kind: fault.kind,
            // 53 bits fill a double's mantissa; a NaN becomes 0.
            threshold: (fault.probability.clamp(0.0, 1.0) * (1u64 << 53) as f64) as u64,
            state: fault.seed,
        };
        Self { armed: faults.into_iter().map(arm).collect() }
    }

    /// Whether there is none, so that the packet path need not ask.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed.is_empty()
    }

    /// Roll the dice of every fault of this kind; whether one strikes.
    pub fn strikes(&mut self, kind: FaultKind) -> bool {
        let mut struck = false;
        for fault in self.armed.iter_mut().filter(|fault| fault.kind == kind) {
            // SplitMix64.
            fault.state = fault.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut z = fault.state;
            z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            z ^= z >> 31;
            struck |= (z >> 11) < fault.threshold;
        }
        struck
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind, probability: f64, seed: u64) -> Fault {
        Fault { kind, probability, seed }
    }

    #[test]
    fn strikes_as_often_as_told_and_repeats_itself() {
        let make = || Faults::new([fault(FaultKind::EncapFail, 0.25, 7)]);
        let run = |mut faults: Faults| (0..10_000).filter(|_| faults.strikes(FaultKind::EncapFail)).count();
        let hits = run(make());
        assert!((2300..2700).contains(&hits), "{hits}");
        assert_eq!(hits, run(make()));
    }

    #[test]
    fn only_its_own_kind_and_never_or_always_at_the_ends() {
        let mut faults = Faults::new([
            fault(FaultKind::LossSilent, 1.0, 1),
            fault(FaultKind::LossVisible, 0.0, 1),
            fault(FaultKind::VipMissing { vip_id: 3 }, 1.0, 1),
            fault(FaultKind::EncapFail, f64::NAN, 1),
        ]);
        for _ in 0..1000 {
            assert!(faults.strikes(FaultKind::LossSilent));
            assert!(!faults.strikes(FaultKind::LossVisible));
            assert!(!faults.strikes(FaultKind::EncapFail));
            assert!(faults.strikes(FaultKind::VipMissing { vip_id: 3 }));
            assert!(!faults.strikes(FaultKind::VipMissing { vip_id: 4 }));
            assert!(!faults.strikes(FaultKind::ReplyLoss));
        }
        assert!(Faults::default().is_empty() && !faults.is_empty());
    }
}
