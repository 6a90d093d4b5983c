//! The order of the trials: rounds with one trial of each schedule, shuffled from a seed.
//!
//! Trials that will be compared are neighbours: a round goes network by network, and within a network schedule by
//! schedule, in an order that is drawn for each round. So drift affects all schedules equally, and none always follows
//! the same other one.

use domain::SplitMix64;

/// One trial.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Round, from 0.
    pub(crate) round: u32,
    /// Index of the network.
    pub(crate) network: usize,
    /// Index of the schedule within the network.
    pub(crate) schedule: usize,
}

/// All trials in order; `schedules[n]` is the number of schedules of network `n`.
pub(crate) fn interleaved(schedules: &[usize], rounds: u32, seed: u64) -> Vec<Slot> {
    let mut random = SplitMix64::new(seed);
    let mut slots = Vec::new();
    for round in 0..rounds {
        let mut networks: Vec<usize> = (0..schedules.len()).collect();
        random.shuffle(&mut networks);
        for network in networks {
            let mut order: Vec<usize> = (0..schedules[network]).collect();
            random.shuffle(&mut order);
            slots.extend(order.into_iter().map(|schedule| Slot { round, network, schedule }));
        }
    }
    slots
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn each_round_has_each_schedule_once_and_networks_stay_together() {
        let slots = interleaved(&[3, 4, 1], 5, 7);
        assert_eq!(slots.len(), 5 * 8);
        for (round, chunk) in slots.chunks(8).enumerate() {
            let distinct: HashSet<_> = chunk.iter().map(|slot| (slot.network, slot.schedule)).collect();
            assert_eq!(distinct.len(), 8);
            assert!(chunk.iter().all(|slot| slot.round as usize == round));
            let switches = chunk.windows(2).filter(|pair| pair[0].network != pair[1].network).count();
            assert_eq!(switches, 2, "each network's trials lie together");
        }
    }

    #[test]
    fn the_seed_decides() {
        assert_eq!(interleaved(&[3, 3], 4, 1), interleaved(&[3, 3], 4, 1));
        assert_ne!(interleaved(&[3, 3], 4, 1), interleaved(&[3, 3], 4, 2));
    }
}
