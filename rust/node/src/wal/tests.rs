use proptest::prelude::*;

use super::*;
use crate::segments::memory::{Memory, SEGMENT_BYTES};

fn entries(first: u64, count: u64, term: u64, size_bytes: usize) -> Vec<Entry> {
    let entry = |index| Entry { index, term, data: vec![0xff; size_bytes], ..Entry::default() };
    (first..first + count).map(entry).collect()
}

fn state(term: u64, vote: u64, commit: u64) -> HardState {
    HardState { term, vote, commit }
}

fn frame(first: u64, count: u64, size_bytes: usize) -> Frame {
    Frame { hard_state: state(1, 1, first - 1), bounds: None, entries: entries(first, count, 1, size_bytes) }
}

fn forget(index: u64) -> Frame {
    let bounds = Some(Bounds { index, term: 1, is_reset: false });
    Frame { hard_state: state(1, 1, index), bounds, entries: Vec::new() }
}

fn open(store: &Memory) -> Result<(Wal<Memory>, Recovered), WalError> {
    Wal::open(store.clone())
}

/// Return a log with these frames, and the position of each: its segment, its first byte, the byte after it.
fn written(frames: &[Frame]) -> (Memory, Vec<(u64, usize, usize)>) {
    let store = Memory::default();
    let (mut wal, _) = open(&store).unwrap();
    let mut places = Vec::new();
    for frame in frames {
        let before = wal.segments.last().map(|segment| (segment.number, wal.position));
        wal.append(frame).unwrap();
        let number = wal.segments.last().unwrap().number;
        let from = before.filter(|(last, _)| *last == number).map_or(0, |(_, position)| position);
        places.push((number, from, wal.position));
    }
    (store, places)
}

fn copy_of(store: &Memory) -> Memory {
    let copy = Memory::default();
    copy.0.lock().segments = store.0.lock().segments.clone();
    copy
}

fn indices(recovered: &Recovered) -> Vec<u64> {
    recovered.entries.iter().map(|entry| entry.index).collect()
}

/// The expected content of a log, kept without files.
#[derive(Debug, Default)]
struct Model {
    hard_state: HardState,
    bounds: (u64, u64),
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
enum Step {
    /// Replace a number of the last entries by a number of others.
    Append {
        back: u64,
        count: u64,
        size_bytes: usize,
    },
    Vote(u64),
    Forget(usize),
    /// Restart the log a number of entries after the last one, with a number of entries.
    Reset {
        ahead: u64,
        count: u64,
    },
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (prop_oneof![3 => Just(0), 1 => 0_u64..6], 1_u64..4, 0_usize..700)
            .prop_map(|(back, count, size_bytes)| Step::Append { back, count, size_bytes }),
        2 => (0_u64..5).prop_map(Step::Vote),
        2 => (0_usize..9).prop_map(Step::Forget),
        1 => (0_u64..5, 0_u64..3).prop_map(|(ahead, count)| Step::Reset { ahead, count }),
        1 => Just(Step::Reopen),
    ]
}

impl Model {
    fn last(&self) -> u64 {
        self.entries.last().map_or(self.bounds.0, |entry| entry.index)
    }

    fn term(&self) -> u64 {
        self.entries.last().map_or(self.bounds.1, |entry| entry.term)
    }

    /// Apply a step, and return the frame that asks the log for the same.
    fn apply(&mut self, step: &Step) -> Option<Frame> {
        let mut frame = Frame::default();
        match *step {
            Step::Reopen => return None,
            Step::Append { back, count, size_bytes } => {
                let first = (self.last() + 1).saturating_sub(back).max(self.bounds.0 + 1);
                frame.entries = entries(first, count, self.term() + back, size_bytes);
                self.entries.retain(|entry| entry.index < first);
                self.entries.extend(frame.entries.clone());
            }
            Step::Vote(vote) => self.hard_state.vote = vote,
            Step::Forget(count) => {
                let mut gone = self.entries.drain(..count.min(self.entries.len()));
                self.bounds = gone.next_back().map_or(self.bounds, |entry| (entry.index, entry.term));
                frame.bounds = Some(Bounds { index: self.bounds.0, term: self.bounds.1, is_reset: false });
            }
            Step::Reset { ahead, count } => {
                self.bounds = (self.last() + ahead, self.term() + 1);
                frame.bounds = Some(Bounds { index: self.bounds.0, term: self.bounds.1, is_reset: true });
                self.entries = entries(self.bounds.0 + 1, count, self.bounds.1, 9);
                frame.entries.clone_from(&self.entries);
            }
        }
        (self.hard_state.term, self.hard_state.commit) = (self.term(), self.bounds.0);
        frame.hard_state = self.hard_state.clone();
        Some(frame)
    }

    fn require(&self, recovered: &Recovered) {
        assert_eq!(self.hard_state, recovered.hard_state);
        assert_eq!(self.bounds, (recovered.bounds.index, recovered.bounds.term));
        assert_eq!(self.entries, recovered.entries);
    }
}

proptest! {
    #![proptest_config(crate::seeds::searching(256))]

    #[test]
    fn what_was_appended_is_recovered(steps in prop::collection::vec(step(), 0..60)) {
        let (store, mut model) = (Memory::default(), Model::default());
        let (mut wal, _) = open(&store).unwrap();
        for step in &steps {
            if let Some(frame) = model.apply(step) {
                wal.append(&frame).unwrap();
            } else {
                let (reopened, recovered) = open(&store).unwrap();
                model.require(&recovered);
                wal = reopened;
            }
        }
        model.require(&open(&store).unwrap().1);
    }

    #[test]
    fn decoding_arbitrary_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let _ = frame_at(&bytes, 0);
    }

    #[test]
    fn arbitrary_segments_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..2 * SEGMENT_BYTES)) {
        let store = Memory::default();
        store.0.lock().segments.insert(0, bytes);
        let _ = open(&store);
    }
}

#[test]
fn a_frame_cut_at_any_byte_is_gone_and_the_log_goes_on() {
    for frames in [vec![frame(1, 2, 20), frame(3, 3, 30)], vec![frame(1, 2, 180), frame(3, 1, 300)]] {
        let (store, places) = written(&frames);
        let &(number, from, to) = places.last().unwrap();
        let written = store.0.lock().segments[&number][from..to].iter().rposition(|&byte| byte != 0).unwrap();
        for cut in from..=from + written {
            let store = copy_of(&store);
            store.0.lock().segments.get_mut(&number).unwrap()[cut..].fill(0);
            let (mut wal, recovered) = open(&store).unwrap();
            assert_eq!((indices(&recovered), recovered.hard_state.commit), (vec![1, 2], 0), "cut at {cut}");
            wal.append(&frame(3, 1, 5)).unwrap();
            assert_eq!(indices(&open(&store).unwrap().1), [1, 2, 3]);
        }
    }
}

#[test]
fn a_torn_frame_of_which_only_the_end_was_written_is_gone() {
    let (store, places) = written(&[frame(1, 1, 20), frame(2, 1, 300)]);
    let (number, from, to) = places[1];
    for cut in (from..to).step_by(ALIGNMENT) {
        let store = copy_of(&store);
        store.0.lock().segments.get_mut(&number).unwrap()[from..=cut].fill(0);
        assert_eq!(indices(&open(&store).unwrap().1), [1]);
    }
}

#[test]
fn a_torn_frame_that_quotes_an_earlier_one_is_gone() {
    let (store, places) = written(&[frame(1, 1, 20)]);
    let end = places[0].2;
    let quoted = store.0.lock().segments[&0][..end].to_vec();
    store.0.lock().segments.get_mut(&0).unwrap().resize(4 * SEGMENT_BYTES, 0);
    let (mut wal, _) = open(&store).unwrap();
    // One of the copies of a frame begins at a multiple of the alignment.
    let data = (0..ALIGNMENT).flat_map(|_| [quoted.as_slice(), &[0xff]].concat()).collect();
    let entry = Entry { index: 2, term: 1, data, ..Entry::default() };
    wal.append(&Frame { hard_state: state(1, 1, 1), bounds: None, entries: vec![entry] }).unwrap();
    store.0.lock().noted = 1;
    store.0.lock().segments.get_mut(&0).unwrap()[end..end + ALIGNMENT].fill(0);
    assert_eq!(indices(&open(&store).unwrap().1), [1]);
}

#[test]
fn any_bit_of_the_last_frame_that_flips_after_its_sync_is_found() {
    let (store, places) = written(&[frame(1, 1, 11), frame(2, 2, 30)]);
    let (number, from, to) = places[1];
    for bit in from * 8..to * 8 {
        let copy = copy_of(&store);
        copy.0.lock().noted = store.0.lock().noted;
        copy.0.lock().segments.get_mut(&number).unwrap()[bit / 8] ^= 1 << (bit % 8);
        let opened = open(&copy);
        assert!(matches!(opened, Err(WalError::Corrupt(_))), "bit {bit}: {opened:?}");
        assert_eq!(copy.0.lock().changes, 0, "a damaged log is not changed");
    }
}

#[test]
fn any_bit_of_an_earlier_frame_that_flips_is_found() {
    let (store, places) = written(&[frame(1, 1, 11), frame(2, 2, 30), frame(4, 1, 301), frame(5, 1, 3)]);
    assert_eq!(places.iter().map(|place| place.0).collect::<Vec<_>>(), [0, 0, 1, 1]);
    for &(number, from, to) in &places[..3] {
        for bit in from * 8..to * 8 {
            let store = copy_of(&store);
            store.0.lock().segments.get_mut(&number).unwrap()[bit / 8] ^= 1 << (bit % 8);
            let opened = open(&store);
            assert!(matches!(opened, Err(WalError::Corrupt(_))), "bit {bit} of segment {number}: {opened:?}");
            assert_eq!(store.0.lock().changes, 0, "a damaged log is not changed");
        }
    }
}

#[test]
fn a_segment_that_is_missing_is_found() {
    let (store, places) = written(&(0..8).map(|at| frame(1 + at, 1, 300)).collect::<Vec<_>>());
    let last = places.last().unwrap().0;
    for missing in 1..last {
        let store = copy_of(&store);
        store.0.lock().segments.remove(&missing);
        let error = open(&store).unwrap_err();
        assert_eq!(error, WalError::Corrupt(format!("segment {missing} is missing")));
    }
    // The first segment may have been deleted, but then a frame would show that its entries are not needed.
    store.0.lock().segments.remove(&0);
    assert!(matches!(open(&store), Err(WalError::Corrupt(_))));
}

#[test]
fn a_segment_that_is_wiped_or_cut_off_is_found() {
    let (store, places) = written(&(0..8).map(|at| frame(1 + at, 1, 300)).collect::<Vec<_>>());
    let last = places.last().unwrap().0;
    for number in 0..last {
        let store = copy_of(&store);
        store.0.lock().segments.get_mut(&number).unwrap().fill(0);
        assert!(matches!(open(&store), Err(WalError::Corrupt(_))), "segment {number} wiped");
    }
    for number in 0..=last {
        for left in 0..SEGMENT_BYTES {
            let store = copy_of(&store);
            store.0.lock().segments.get_mut(&number).unwrap().truncate(left);
            assert!(matches!(open(&store), Err(WalError::Corrupt(_))), "segment {number} with {left} bytes");
        }
    }
}

#[test]
fn the_only_segment_cannot_be_empty_if_it_is_not_the_first() {
    let (store, _) = written(&[frame(1, 1, 300), Frame { hard_state: state(1, 1, 1), ..frame(2, 1, 300) }, forget(2)]);
    assert_eq!(store.0.lock().segments.keys().copied().collect::<Vec<_>>(), [1]);
    store.0.lock().segments.get_mut(&1).unwrap().fill(0);
    assert!(matches!(open(&store), Err(WalError::Corrupt(_))));
}

#[test]
fn a_crash_before_the_first_frame_of_a_segment_is_harmless() {
    let (store, _) = written(&[frame(1, 2, 20)]);
    // Twice, with frames in between that do not fit.
    for (number, at) in [(1, 3), (3, 4)] {
        store.clone().create(number, SEGMENT_BYTES).unwrap();
        let (mut wal, recovered) = open(&store).unwrap();
        assert_eq!(indices(&recovered), (1..at).collect::<Vec<_>>());
        wal.append(&frame(at, 1, 2 * SEGMENT_BYTES)).unwrap();
    }
    assert_eq!(indices(&open(&store).unwrap().1), [1, 2, 3, 4]);
    // A crash between two deletions, which leaves an empty first segment, is harmless too.
    let (mut wal, _) = open(&store).unwrap();
    let before = copy_of(&store);
    wal.append(&forget(3)).unwrap();
    assert_eq!(store.0.lock().segments.keys().copied().collect::<Vec<_>>(), [4, 5]);
    store.0.lock().segments.insert(3, before.0.lock().segments[&3].clone());
    assert_eq!(indices(&open(&store).unwrap().1), [4]);
}

#[test]
fn a_crash_before_the_first_frame_of_all_is_harmless() {
    let store = Memory::default();
    store.clone().create(0, SEGMENT_BYTES).unwrap();
    let (mut wal, recovered) = open(&store).unwrap();
    assert_eq!((wal.is_new(), recovered), (true, Recovered::default()));
    wal.append(&frame(1, 1, 5)).unwrap();
    let (wal, recovered) = open(&store).unwrap();
    assert_eq!((wal.is_new(), indices(&recovered)), (false, vec![1]));
}

#[test]
fn a_frame_larger_than_a_segment_gets_one_of_its_size() {
    let (store, places) = written(&[frame(1, 1, 5), frame(2, 3, 5 * SEGMENT_BYTES), frame(5, 1, 5)]);
    assert_eq!(places.iter().map(|place| place.0).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(store.0.lock().segments[&1].len(), places[1].2);
    assert_eq!(indices(&open(&store).unwrap().1), [1, 2, 3, 4, 5]);
}

#[test]
fn needless_segments_are_deleted_and_the_others_are_not() {
    let frames: Vec<_> = (0..40).map(|at| frame(1 + at, 1, 100)).collect();
    let (store, places) = written(&frames);
    for (next, index) in (1..=40).enumerate() {
        let store = copy_of(&store);
        let (mut wal, _) = open(&store).unwrap();
        wal.append(&forget(index)).unwrap();
        let first = store.0.lock().segments.keys().next().copied().unwrap();
        // The first segment is the one with the first entry that is needed, unless that is the segment being written.
        let last = *store.0.lock().segments.keys().last().unwrap();
        assert_eq!(first, places.get(next + 1).map_or(last, |place| place.0));
        let (_, recovered) = open(&store).unwrap();
        assert_eq!(indices(&recovered), (index + 1..=40).collect::<Vec<_>>());
        assert_eq!(recovered.bounds.index, index);
    }
}

#[test]
fn a_change_that_fails_is_an_error_and_is_not_retried() {
    // Create, write and sync of the first frame; write and sync of the second.
    for good in 0..5 {
        let store = Memory::default();
        store.0.lock().good_changes = Some(good);
        let (mut wal, _) = open(&store).unwrap();
        let outcomes = [wal.append(&frame(1, 1, 5)), wal.append(&frame(2, 1, 5))];
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), good / 3);
        assert!(matches!(outcomes[1], Err(WalError::Io { .. })));
        // The disk works again, but the lost writes do not return.
        store.0.lock().good_changes = None;
        assert_eq!(wal.append(&frame(2, 1, 5)), outcomes[1]);
        assert_eq!(store.0.lock().changes, good + 1);
    }
}

#[test]
fn what_is_too_long_for_a_frame_is_refused() {
    // Untouched zeros use no memory.
    let longest = vec![0; (1 << 32) - 1];
    assert_eq!(length_of(&longest), Ok([0xff; 4]));
    assert_eq!(length_of(&vec![0; 1 << 32]), Err(WalError::TooLarge(1 << 32)));
}
