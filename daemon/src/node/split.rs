//! Messages that hold lists, cut so that every frame stays within its bound whatever the items weigh.

use swarm_proto::{frame::weight, limits, peer::ToWorker};

/// Leaves room for what surrounds a list.
pub(crate) const ROOM: usize = limits::CONTROL_FRAME - 4_096;

/// Cuts a list where its encoded parts would pass the bound of one frame.
pub(crate) fn by_size<T>(list: Vec<T>, weigh: impl Fn(&T) -> usize) -> Vec<Vec<T>> {
    let mut parts = Vec::new();
    let (mut part, mut weight) = (Vec::new(), 0);
    for item in list {
        let more = weigh(&item);
        if weight + more > ROOM && !part.is_empty() {
            parts.push(std::mem::take(&mut part));
            weight = 0;
        }
        weight += more;
        part.push(item);
    }
    if !part.is_empty() {
        parts.push(part);
    }
    parts
}

/// Grants with large specs become several messages: the jobs first, each before its grants. A long view becomes a row of deltas.
pub(crate) fn to_worker(message: ToWorker) -> Vec<ToWorker> {
    match message {
        ToWorker::Grants { jobs, grants } if jobs.len() > 1 && jobs.iter().map(weight).sum::<usize>() > ROOM => {
            let mut parts: Vec<ToWorker> =
                by_size(jobs, weight).into_iter().map(|jobs| ToWorker::Grants { jobs, grants: Vec::new() }).collect();
            parts.push(ToWorker::Grants { jobs: Vec::new(), grants });
            parts
        }
        ToWorker::View(view) => view.parts(ROOM).into_iter().map(ToWorker::View).collect(),
        ToWorker::Welcome { term, lease, view, now } => {
            let mut parts = view.parts(ROOM).into_iter();
            let view = parts.next().unwrap_or_default();
            std::iter::once(ToWorker::Welcome { term, lease, view, now }).chain(parts.map(ToWorker::View)).collect()
        }
        other @ (ToWorker::NotLeader { .. }
        | ToWorker::Grants { .. }
        | ToWorker::Cancel(_)
        | ToWorker::OutcomesTaken { .. }
        | ToWorker::Lease { .. }
        | ToWorker::Keep { .. }
        | ToWorker::Hint { .. }) => vec![other],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_fits_and_nothing_is_lost() {
        let list: Vec<Vec<u8>> = (0..40).map(|n| vec![n; 100 << 10]).collect();
        let parts = by_size(list.clone(), weight);
        assert!(parts.iter().all(|part| weight(part) <= limits::CONTROL_FRAME));
        assert_eq!(parts.concat(), list);
    }
}
