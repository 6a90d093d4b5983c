//! Control flow of a kernel: where the two paths of a branch join, and which registers can share a place.

use crate::lanes::{Class, LANES};
use crate::program::{Action, Instruction, Preset, Role, SCRATCH};
use std::ops::Range;

/// Stretches of instructions that run one after the other.
#[derive(Debug)]
struct Blocks {
    ranges: Vec<Range<usize>>,
    /// Blocks that follow each; the number of blocks means the end of the kernel.
    successors: Vec<Vec<usize>>,
}

impl Blocks {
    fn of(instructions: &[Instruction]) -> Self {
        let mut starts = vec![0];
        for (number, instruction) in instructions.iter().enumerate() {
            if let Action::Branch { target, .. } = instruction.action {
                starts.extend([target as usize, number + 1]);
            } else if matches!(instruction.action, Action::Return | Action::Trap) {
                starts.push(number + 1);
            }
        }
        starts.sort_unstable();
        starts.dedup();
        starts.retain(|start| *start < instructions.len());
        let end_of = |block: usize| starts.get(block + 1).copied().unwrap_or(instructions.len());
        let ranges: Vec<_> = (0..starts.len()).map(|block| starts[block]..end_of(block)).collect();
        let block_of = |number: usize| starts.binary_search(&number).unwrap_or(starts.len());
        let successors = ranges.iter().map(|range| {
            let last = &instructions[range.end - 1];
            let mut next = Vec::new();
            match last.action {
                Action::Branch { target, .. } => next.push(block_of(target as usize)),
                Action::Return | Action::Trap => next.push(starts.len()),
                _ => {}
            }
            let goes_on = !matches!(last.action, Action::Branch { .. } | Action::Return | Action::Trap);
            if goes_on || last.guard.is_some() {
                next.push(block_of(range.end));
            }
            next
        });
        let successors = successors.collect();
        Self { ranges, successors }
    }
}

/// Sets the `join` of each branch to the first instruction that all paths from it pass: the immediate post-dominator.
pub fn join_branches(instructions: &mut [Instruction]) {
    let blocks = Blocks::of(instructions);
    let dominators = post_dominators(&blocks.successors);
    let end = instructions.len();
    for (block, range) in blocks.ranges.iter().enumerate() {
        if let Action::Branch { join, .. } = &mut instructions[range.end - 1].action {
            *join = blocks.ranges.get(dominators[block]).map_or(end, |range| range.start) as u32;
        }
    }
}

/// Immediate post-dominator of each block; the number of blocks is the end. By Cooper, Harvey and Kennedy, "A Simple,
/// Fast Dominance Algorithm", on the reversed graph. A block from which no path leads to the end gets the end.
fn post_dominators(successors: &[Vec<usize>]) -> Vec<usize> {
    let end = successors.len();
    let mut predecessors = vec![Vec::new(); end + 1];
    for (block, next) in successors.iter().enumerate() {
        for successor in next {
            predecessors[*successor].push(block);
        }
    }
    // Postorder of the reversed graph, from the end.
    let mut order = Vec::new();
    let mut place = vec![usize::MAX; end + 1];
    let mut is_seen = vec![false; end + 1];
    let mut stack = vec![(end, 0)];
    is_seen[end] = true;
    while let Some((block, child)) = stack.pop() {
        if let Some(next) = predecessors[block].get(child) {
            stack.push((block, child + 1));
            if !is_seen[*next] {
                is_seen[*next] = true;
                stack.push((*next, 0));
            }
        } else {
            place[block] = order.len();
            order.push(block);
        }
    }
    let mut dominators = vec![usize::MAX; end + 1];
    dominators[end] = end;
    let mut has_changed = true;
    while has_changed {
        has_changed = false;
        for block in order.iter().rev().copied().filter(|block| *block != end) {
            let known = successors[block].iter().copied().filter(|next| dominators[*next] != usize::MAX);
            let dominator = known.reduce(|mut a, mut b| {
                while a != b {
                    while place[a] < place[b] {
                        a = dominators[a];
                    }
                    while place[b] < place[a] {
                        b = dominators[b];
                    }
                }
                a
            });
            let dominator = dominator.unwrap_or(end);
            has_changed |= dominators[block] != dominator;
            dominators[block] = dominator;
        }
    }
    dominators.truncate(end);
    dominators.iter().map(|dominator| if *dominator == usize::MAX { end } else { *dominator }).collect()
}

/// Replaces virtual registers by byte offsets in the register file and returns its size. Registers whose lifetimes do
/// not overlap share a place, so that the file of a group stays in the first-level cache. Those in `presets` keep their
/// place. A lifetime is the span of instructions between the first and the last at which the value is needed.
pub fn place_registers(
    instructions: &mut [Instruction],
    classes: &[Class],
    presets: &mut [(u32, Class, Preset)],
) -> usize {
    let mut is_preset = vec![false; classes.len()];
    for (register, ..) in presets.iter() {
        is_preset[*register as usize] = true;
    }
    let spans = lifetimes(instructions, classes.len());
    let mut order: Vec<usize> =
        (0..classes.len()).filter(|register| spans[*register].is_some() && !is_preset[*register]).collect();
    let span_of = |register: usize| spans[register].unwrap_or((0, 0));
    order.sort_unstable_by_key(|register| span_of(*register).0);

    // The first place is the scratch register.
    let mut end = Class::B64.bytes() * LANES;
    let mut offsets = vec![0u32; classes.len()];
    let mut take = |class: Class| {
        let offset = end;
        end += class.bytes() * LANES;
        offset as u32
    };
    for (register, class, _) in presets.iter_mut() {
        let offset = take(*class);
        offsets[*register as usize] = offset;
        *register = offset;
    }
    let mut free: [Vec<u32>; 4] = std::array::from_fn(|_| Vec::new());
    let mut active: std::collections::BTreeSet<(usize, usize)> = std::collections::BTreeSet::new();
    for register in order {
        let (begin, last) = span_of(register);
        while let Some((ended, old)) = active.first().copied().filter(|(ended, _)| *ended < begin) {
            active.remove(&(ended, old));
            free[classes[old] as usize].push(offsets[old]);
        }
        let class = classes[register];
        offsets[register] = free[class as usize].pop().unwrap_or_else(|| take(class));
        active.insert((last, register));
    }
    for instruction in instructions {
        instruction
            .visit(|register, _| *register = offsets.get(*register as usize).copied().unwrap_or(SCRATCH));
    }
    end
}

/// For each register the first and the last instruction at which its value is needed or written.
fn lifetimes(instructions: &mut [Instruction], count: usize) -> Vec<Option<(usize, usize)>> {
    let blocks = Blocks::of(instructions);
    let words = count.div_ceil(64);
    // Read before written, and written, in each block.
    let mut reads = vec![vec![0u64; words]; blocks.ranges.len()];
    let mut writes = reads.clone();
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; count];
    for (block, range) in blocks.ranges.iter().enumerate() {
        for number in range.clone() {
            // A guarded instruction keeps the old value in some lanes.
            let is_guarded = instructions[number].guard.is_some();
            instructions[number].visit(|register, role| {
                let register = *register as usize;
                if register >= count {
                    return;
                }
                let (word, bit) = (register / 64, 1 << (register % 64));
                if (role == Role::Source || is_guarded) && writes[block][word] & bit == 0 {
                    reads[block][word] |= bit;
                }
                if role == Role::Result {
                    writes[block][word] |= bit;
                }
                extend(&mut spans[register], number, number);
            });
        }
    }
    let mut live_in = reads.clone();
    let mut has_changed = true;
    while has_changed {
        has_changed = false;
        for block in (0..blocks.ranges.len()).rev() {
            for word in 0..words {
                let next = blocks.successors[block].iter().filter_map(|next| live_in.get(*next));
                let live_out = next.fold(0, |live, next| live | next[word]);
                let live = reads[block][word] | live_out & !writes[block][word];
                has_changed |= live != live_in[block][word];
                live_in[block][word] = live;
            }
        }
    }
    for (block, range) in blocks.ranges.iter().enumerate() {
        for word in 0..words {
            let next = blocks.successors[block].iter().filter_map(|next| live_in.get(*next));
            let live_out = next.fold(0, |live, next| live | next[word]);
            for (live, number) in [(live_in[block][word], range.start), (live_out, range.end - 1)] {
                crate::lanes::lanes_of(live)
                    .for_each(|bit| extend(&mut spans[word * 64 + bit], number, number));
            }
        }
    }
    spans
}

fn extend(span: &mut Option<(usize, usize)>, first: usize, last: usize) {
    let (begin, end) = span.unwrap_or((first, last));
    *span = Some((begin.min(first), end.max(last)));
}
