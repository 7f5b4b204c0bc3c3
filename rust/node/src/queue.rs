//! A queue between threads that is closed by the producers and ended by the consumers.

use std::collections::VecDeque;

use parking_lot::{Condvar, Mutex};

/// Items that pass from some threads to others, in order.
#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    /// Notified when an item arrives, and when no more will.
    arrived: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    /// Whether producers will add no more items.
    is_closed: bool,
    /// Whether consumers will take no more items.
    is_over: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { items: VecDeque::new(), is_closed: false, is_over: false };
        Self { state: Mutex::new(state), arrived: Condvar::new() }
    }
}

impl<T> Queue<T> {
    /// Add items; if the queue was ended, return them instead.
    #[must_use]
    pub fn put(&self, items: Vec<T>) -> Vec<T> {
        let mut state = self.state.lock();
        if state.is_over {
            return items;
        }
        state.items.extend(items);
        drop(state);
        self.arrived.notify_all();
        Vec::new()
    }

    /// Close the queue for producers. Waiting items can still be taken.
    pub fn close(&self) {
        self.state.lock().is_closed = true;
        self.arrived.notify_all();
    }

    /// End the queue for consumers, and return the waiting items.
    pub fn end(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.is_over = true;
        std::mem::take(&mut state.items).into()
    }

    /// Wait for an item and take it; None if no more will arrive.
    pub fn take(&self) -> Option<T> {
        self.take_up_to(1).pop()
    }

    /// Wait for items and take at most `limit` of them; empty if no more will arrive.
    pub fn take_up_to(&self, limit: usize) -> Vec<T> {
        let mut state = self.state.lock();
        while state.items.is_empty() && !state.is_closed {
            self.arrived.wait(&mut state);
        }
        let count = state.items.len().min(limit);
        state.items.drain(..count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_taken_in_order_until_the_queue_is_closed_and_empty() {
        let queue = Queue::default();
        assert!(queue.put(vec![1, 2, 3, 4]).is_empty());
        queue.close();
        assert_eq!(queue.take(), Some(1));
        assert_eq!(queue.take_up_to(2), [2, 3]);
        assert_eq!(queue.take_up_to(9), [4]);
        assert_eq!(queue.take(), None);
    }

    #[test]
    fn items_that_nobody_takes_come_back() {
        let queue = Queue::default();
        assert!(queue.put(vec![1, 2]).is_empty());
        assert_eq!(queue.end(), [1, 2]);
        assert_eq!(queue.put(vec![3]), [3]);
    }

    #[test]
    fn a_thread_that_waits_is_woken_by_an_item_and_by_the_end() {
        let queue = Queue::default();
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| (queue.take(), queue.take()));
            assert!(queue.put(vec![1]).is_empty());
            queue.close();
            assert_eq!(taken.join().unwrap(), (Some(1), None));
        });
    }
}
