//! The applier: the thread that owns the state of a member and carries out its jobs in order.
//!
//! It is separate from the driver's thread, so that heartbeats continue while a large batch is hashed, and one batch is applied while
//! the next is synced and sent.

use std::sync::Arc;

use qed_core::log::Added;
use qed_core::page::PageError;

use crate::member::{Input, Job, Report};
use crate::outbox::{Completion, Failure, Success};
use crate::state::{State, StateError};
use crate::ticket::Ticket;

impl Job {
    /// Return the tickets that wait for the job.
    #[must_use]
    pub fn tickets(&self) -> Vec<Ticket> {
        match self {
            Self::Apply(_, tickets) => tickets.clone().unwrap_or_default(),
            Self::Install(ticket, _) => vec![*ticket],
            Self::Sync => Vec::new(),
        }
    }
}

/// Carry out a job on the state; return the report to the member, and the outcomes that are known without the member.
///
/// # Errors
///
/// [`StateError`]: the member must stop.
///
/// # Panics
///
/// If an entry added for more or fewer requests than it was proposed with.
pub fn perform(state: &mut State, job: Job) -> Result<(Option<Input>, Vec<Completion>), StateError> {
    let before = Arc::clone(state.membership());
    let (log_id, conf_state, page, completions) = match job {
        Job::Apply(committed, tickets) => {
            let added = state.apply(&committed, tickets.is_some())?;
            (committed.log_id, committed.conf_state, None, answers(tickets.unwrap_or_default(), added))
        }
        Job::Install(ticket, page) => match state.install(&page) {
            Ok(conf_state) => (state.applied(), Some(conf_state), Some(ticket), Vec::new()),
            Err(PageError::Log(error)) => return Err(StateError::Log(error)),
            // The page is wrong, or the log has grown since the page was requested; the log has not changed. Whether two logs have
            // diverged is checked when entries are applied.
            Err(error) => return Ok((None, vec![Completion { ticket, outcome: Err(Failure::PageRefused(error)) }])),
        },
        Job::Sync => return Ok((Some(Input::Synced(state.log().sync()?)), Vec::new())),
    };
    let membership = (!Arc::ptr_eq(&before, state.membership())).then(|| Arc::clone(state.membership()));
    let acts = state.log().acts_end().log_id.index;
    let report = Report { log_id, conf_state, membership, acts, is_fetched: page.is_some(), ticket: page };
    Ok((Some(Input::Report(report)), completions))
}

/// Return the outcome of each ticket that waits for an entry. Only an entry that appends adds anything, and then for every ticket.
fn answers(tickets: Vec<Ticket>, added: Vec<Added>) -> Vec<Completion> {
    if added.is_empty() {
        return tickets.into_iter().map(|ticket| Completion { ticket, outcome: Ok(Success::Done) }).collect();
    }
    assert_eq!(added.len(), tickets.len(), "an answer for each request of an entry");
    let answer = |(ticket, added)| Completion { ticket, outcome: Ok(Success::Added(added)) };
    tickets.into_iter().zip(added).map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "an answer for each request of an entry")]
    fn an_entry_that_answers_some_of_its_requests_stops_the_applier() {
        let added = Added { snapshots: Vec::new(), added: 0..1 };
        answers(vec![Ticket::new(1), Ticket::new(2)], vec![added]);
    }
}
