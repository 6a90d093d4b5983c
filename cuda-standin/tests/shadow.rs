//! Which accesses race.

#![allow(missing_docs, reason = "a test")]

use cuda::shadow::{Race, Shadow, Thread};

#[test]
fn accesses_race_unless_a_barrier_orders_them() {
    let thread = |block, phase, number| Thread { block, phase, number };
    let a = thread(0, 0, 1);
    // (first access, second access, whether they race); an access is its thread and whether it writes.
    let table = [
        ((a, true), (a, true), false),
        ((a, true), (thread(0, 0, 2), false), true),
        ((a, false), (thread(0, 0, 2), true), true),
        ((a, false), (thread(0, 0, 2), false), false),
        ((a, true), (thread(0, 1, 2), true), false),
        ((a, true), (thread(0, 1, 2), false), false),
        ((a, true), (thread(1, 1, 1), false), true),
        ((a, false), (thread(1, 1, 1), true), true),
    ];
    for ((first, first_writes), (second, second_writes), races) in table {
        let mut shadow = Shadow::new(64);
        assert_eq!(shadow.access(8, 4, first_writes, first, 1), Ok(()));
        assert_eq!(shadow.access(8, 4, second_writes, second, 1).is_err(), races, "{first:?} {second:?}");
        // Another word, and another epoch.
        assert_eq!(shadow.access(12, 4, true, second, 1), Ok(()));
        assert_eq!(shadow.access(8, 4, true, second, 2), Ok(()));
    }
}

#[test]
fn several_readers_are_remembered_and_bytes_of_a_word_are_told_apart() {
    let thread = |block, number| Thread { block, phase: 0, number };
    let mut shadow = Shadow::new(8);
    for number in 0..3 {
        assert_eq!(shadow.access(0, 4, false, thread(0, number), 1), Ok(()));
    }
    let race = shadow.access(0, 4, true, thread(0, 1), 1);
    assert_eq!(race, Err(Race { wrote: false, block: Some(0), thread: None }));
    assert_eq!(shadow.access(4, 1, true, thread(0, 1), 1), Ok(()));
    assert_eq!(shadow.access(5, 1, true, thread(3, 2), 1), Ok(()));
    let race = shadow.access(5, 1, false, thread(0, 1), 1);
    assert_eq!(race, Err(Race { wrote: true, block: Some(3), thread: Some(2) }));
}
