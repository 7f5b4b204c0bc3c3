//! Ordinary stops and starts, in calm weather: the roll call must not keep a cluster without a leader.

use crate::world::World;

/// Seeds of each test.
const SEEDS: u64 = 100;
/// Election time-outs within which there is a leader that has applied an entry of its term. An election takes up to two, and one may be
/// undecided.
const MOST_TIMEOUTS: u64 = 6;

/// Return a calm world of three members, with a leader.
fn led(seed: u64) -> World {
    let mut world = World::calm(seed);
    until_led(&mut world);
    (0..100).for_each(|_| world.step().unwrap());
    world
}

/// Let time pass until there is a leader again; return how many election time-outs that takes, rounded up.
fn until_led(world: &mut World) -> u64 {
    let begun = world.now;
    while !world.is_led() {
        world.step().unwrap();
        assert!(world.now < begun + 10_000, "there is no leader");
    }
    (world.now - begun).div_ceil(world.weather.setting.election_ticks as u64)
}

fn slowest(mut stop: impl FnMut(&mut World)) -> u64 {
    let timeouts = (0..SEEDS).map(|seed| {
        let mut world = led(seed);
        stop(&mut world);
        until_led(&mut world)
    });
    let (most, sum) = timeouts.fold((0, 0), |(most, sum), timeouts| (timeouts.max(most), sum + timeouts));
    println!("{most} election time-outs at most, {sum} in {SEEDS} runs");
    most
}

/// Return the leader and the two others.
fn roles(world: &World) -> (u64, u64, u64) {
    let leader = world.leader().unwrap();
    let others: Vec<_> = (1..=3).filter(|&id| id != leader).collect();
    (leader, others[0], others[1])
}

#[test]
fn three_that_start_at_once_elect_a_leader_soon() {
    let timeouts = slowest(|world| (1..=3).for_each(|id| world.stop(id, false, 5)));
    assert!(timeouts <= MOST_TIMEOUTS, "{timeouts}");
}

#[test]
fn three_that_lose_their_power_elect_a_leader_soon() {
    let timeouts = slowest(|world| (1..=3).for_each(|id| world.stop(id, true, 5)));
    assert!(timeouts <= MOST_TIMEOUTS, "{timeouts}");
}

#[test]
fn one_that_starts_while_another_is_down_elects_a_leader_soon() {
    let timeouts = slowest(|world| {
        let (_, one, other) = roles(world);
        world.stop(one, false, u64::MAX / 2);
        world.stop(other, false, 5);
        // The leader stays one for a while, but without a majority it can commit nothing.
        (0..world.weather.setting.election_ticks * 3).for_each(|_| world.step().unwrap());
    });
    assert!(timeouts <= MOST_TIMEOUTS, "{timeouts}");
}

#[test]
fn one_that_starts_while_the_leader_is_down_elects_a_leader_soon() {
    let timeouts = slowest(|world| {
        let (leader, one, _) = roles(world);
        world.stop(leader, false, u64::MAX / 2);
        world.stop(one, false, 5);
    });
    assert!(timeouts <= MOST_TIMEOUTS, "{timeouts}");
}
