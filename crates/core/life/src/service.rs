//! The next steps of one service, from its present to its wanted state; to be called again after every change, and at
//! the time that a step names. Level-triggered: it remembers only what it is handed, and the same state gives the same
//! steps. Knows no clock and draws no identifiers.

use crate::{
    actions::Actions,
    daemon, jobs,
    progress::Progress,
    rollout,
    steps::{ServiceView, Steps, StopReason},
};
use heptad_model::{Container, DesiredState, Mode, Service};

/// The next steps of one service. `draw` gives random suffixes: the container `SERVICE-SUFFIX` gets one that no
/// container of the service has; a suffix that is taken is drawn anew, a few times.
pub fn next_steps(view: &ServiceView<'_>, draw: impl FnMut() -> String) -> Steps {
    let mut actions = Actions::new(view.nodes);
    let (wanted, leaving): (Vec<_>, Vec<_>) =
        view.containers.iter().copied().partition(|c| c.desired == DesiredState::Running);
    leaving.iter().for_each(|container| actions.bury(container));
    let (own, strange): (Vec<_>, Vec<_>) =
        wanted.into_iter().partition(|c| view.service.is_some_and(|service| service.id == c.service_id));
    strange.iter().for_each(|container| actions.end(container, StopReason::ServiceDeleted));
    let Some(service) = view.service else {
        let forgotten = view.revisions.iter().map(|revision| revision.number).collect();
        return Steps { actions: actions.into_list(&view.containers), forgotten, ..Steps::default() };
    };
    let mut progress = Progress::recall(view, service);
    match &service.mode {
        Mode::Service => rollout::steps(view, service, own, &mut actions, &mut progress, draw),
        Mode::Daemon => daemon::steps(view, service, own, &mut actions, &mut progress, draw),
        Mode::Job(job) => jobs::steps(view, service, job, own, &mut actions, &mut progress, draw),
    }
    progress.into_steps(actions.into_list(&view.containers))
}

/// Whether no change of the service is under way: as many containers as requested are ready in their wanted form, and
/// none is being moved. A move that was given up does not count.
pub fn is_at_rest(service: &Service, own: &[&Container], now_ms: u64) -> bool {
    let moves = |c: &Container| c.move_to.as_ref().is_some_and(|place| place.until_ms > now_ms);
    let template = service.template();
    own.len() == service.replicas as usize
        && own.iter().all(|c| c.is_alive() && c.ready && !moves(c) && c.is_made_of(service, &template))
}

#[cfg(test)]
mod tests {
    use super::*;
    use heptad_model::Reservation;

    #[test]
    fn a_service_is_at_rest_when_nothing_is_under_way_and_a_move_that_was_given_up_is_not() {
        let service = Service { replicas: 2, ..Service::new("a", "image") };
        let ready = |id: &str| Container { ready: true, ..Container::pending(id.into(), &service, 0) };
        let mut own = ["a-0", "a-1"].map(ready);
        let at_rest = |service: &Service, own: &[Container; 2], now_ms| is_at_rest(service, &own.each_ref(), now_ms);
        assert!(at_rest(&service, &own, 0));
        own[0].move_to = Some(Reservation { node: "n1".into(), until_ms: 10 });
        assert!(!at_rest(&service, &own, 9) && at_rest(&service, &own, 10));
        let settings = [("config/main".to_owned(), "c1.2".to_owned())].into();
        assert!(!at_rest(&Service { settings, ..service.clone() }, &own, 10));
        own[1].ready = false;
        assert!(!at_rest(&service, &own, 10));
    }
}
