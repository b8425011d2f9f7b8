//! What people ask and order about a service's rollout: its progress, its revisions, undo, pause, resume, restart. The
//! orders are written as wishes; the reconciler carries them out.

use super::{Objects, Pending};
use crate::{
    clock::now_ms,
    error::{Error, Result},
    keys,
};
use heptad_api::{
    ErrorCode, Object,
    work::{RevisionInfo, RevisionList, RolloutStatus},
};
use heptad_capacity::NodesView;
use heptad_life::nodes_wanted;
use heptad_model::{
    Container, EventKind, Mode, Node, Revision, Rollout, RolloutPhase, Service, ServiceKey, Strategy, standing,
};

/// A service with what is remembered about it.
struct Known {
    service: Object<Service>,
    rollout: Option<Object<Rollout>>,
    revisions: Vec<Revision>,
}

impl Known {
    fn key(&self) -> ServiceKey {
        self.service.object.key()
    }

    fn current(&self) -> u64 {
        self.rollout.as_ref().map_or(0, |item| item.object.revision)
    }

    /// The revision to go back to.
    fn target(&self, to: Option<u64>) -> Result<&Revision> {
        let (key, current) = (self.key(), self.current());
        let known: Vec<String> = self.revisions.iter().map(|revision| revision.number.to_string()).collect();
        let found = match to {
            Some(number) if number == current => {
                let detail = format!("service/{key}: revision {number} is the present one");
                return Err(Error::refused(ErrorCode::BadRequest, detail));
            }
            Some(number) => self.revisions.iter().find(|revision| revision.number == number),
            // A revision that was never completely ready, such as one abandoned by an automatic rollback, is no way
            // back.
            None => self.revisions.iter().filter(|r| r.number != current && r.proved).max_by_key(|r| r.used),
        };
        found.ok_or_else(|| {
            let detail = match to {
                Some(number) => format!("service/{key}: revision {number} is not kept; there are {}", known.join(", ")),
                None if known.len() < 2 => format!("service/{key}: there is no earlier revision"),
                None => format!(
                    "service/{key}: no other revision was ever ready as a whole; name the one that is meant, of {}",
                    known.join(", ")
                ),
            };
            Error::refused(ErrorCode::NotFound, detail)
        })
    }
}

fn contended(key: &ServiceKey) -> Error {
    Error::refused(ErrorCode::Busy, format!("service/{key} is changed by too many at once; try again"))
}

impl Objects {
    async fn known(&self, key: &ServiceKey) -> Result<Known> {
        let service = self.find_row::<Service>(&keys::service(key)).await?;
        let service = service.ok_or_else(|| Error::not_found(&format!("service/{key}")))?;
        let (rollout, revisions) = self.remembered(key).await?;
        let id = &service.object.id;
        let rollout = rollout.filter(|item| item.object.service_id == *id);
        let revisions = revisions.into_iter().filter(|revision| revision.service_id == *id).collect();
        Ok(Known { service, rollout, revisions })
    }

    /// The progress of a service's rollout.
    pub async fn rollout_status(&self, key: &ServiceKey) -> Result<RolloutStatus> {
        let known = self.known(key).await?;
        let service = &known.service.object;
        let containers = self.containers_of(key).await?;
        let containers: Vec<&Container> =
            containers.values().map(|item| &item.object).filter(|c| c.service_id == service.id).collect();
        let nodes = match service.mode {
            Mode::Daemon => {
                let nodes: Vec<Node> = self.list::<Node>(None).await?.items.into_iter().map(|i| i.object).collect();
                nodes_wanted(service, &NodesView::new(&nodes, []))
            }
            _ => 0,
        };
        // Before the reconciler has seen the present specification, nothing that is remembered concerns it.
        let template = service.template();
        let present = |number: u64| known.revisions.iter().any(|r| r.number == number && r.template == template);
        let rollout = known.rollout.as_ref().map(|item| item.object.clone()).filter(|r| present(r.revision));
        let standing = standing(service, &containers, rollout.as_ref(), nodes, now_ms());
        let rollout = rollout.unwrap_or_default();
        let paused = rollout.paused && rollout.phase != RolloutPhase::Complete;
        let next_run_ms = service.schedule.as_ref().filter(|schedule| !schedule.suspended && !rollout.paused);
        Ok(RolloutStatus {
            service: key.clone(),
            revision: rollout.revision,
            phase: if paused { RolloutPhase::Paused } else { rollout.phase },
            paused: rollout.paused,
            reason: rollout.reason,
            back_from: rollout.back_from,
            split: service.split,
            started_at_ms: rollout.started_at_ms,
            standing,
            runs: rollout.runs,
            next_run_ms: next_run_ms.and_then(|schedule| schedule.cron.next_after(now_ms())),
        })
    }

    /// The revisions of a service.
    pub async fn revisions(&self, key: &ServiceKey) -> Result<RevisionList> {
        let known = self.known(key).await?;
        let containers = self.containers_of(key).await?;
        let (current, mut revisions) = (known.current(), known.revisions);
        revisions.sort_by_key(|revision| revision.used);
        let of = |number: u64| {
            let own = containers.values().filter(|c| c.object.revision == number && c.object.is_alive());
            u32::try_from(own.count()).unwrap_or(u32::MAX)
        };
        let revisions = revisions.into_iter().map(|revision| RevisionInfo {
            number: revision.number,
            current: revision.number == current,
            proved: revision.proved,
            at_ms: revision.at_ms,
            cause: revision.cause,
            image: revision.template.image,
            containers: of(revision.number),
        });
        Ok(RevisionList { service: key.clone(), revisions: revisions.collect() })
    }

    /// Makes an earlier revision the wanted one again: by default the latest other one that was completely ready.
    pub async fn undo_rollout(&self, key: &ServiceKey, to: Option<u64>) -> Result<()> {
        self.change_service(key, "RolloutUndone", |known, service| {
            let target = known.target(to)?;
            service.set_template(&target.template);
            Ok(format!("back from revision {} to revision {}", known.current(), target.number))
        })
        .await
    }

    /// Replaces all containers of a service by new ones of the same specification; a job runs again.
    pub async fn restart_rollout(&self, key: &ServiceKey) -> Result<()> {
        self.change_service(key, "RestartAsked", |_, service| {
            service.restarts_asked = service.restarts_asked.saturating_add(1);
            Ok("all containers are to be replaced by new ones".to_owned())
        })
        .await
    }

    async fn change_service(
        &self,
        key: &ServiceKey,
        word: &str,
        change: impl Fn(&Known, &mut Service) -> Result<String>,
    ) -> Result<()> {
        for _ in 0..super::WRITE_TRIES_MAX {
            let known = self.known(key).await?;
            let mut service = known.service.object.clone();
            let message = change(&known, &mut service)?;
            service.generation += 1;
            let row = keys::service(key);
            let mut pending = Pending::default();
            pending.expect(&row, known.service.revision);
            pending.put(&row, &service);
            pending.event(&self.event(EventKind::Normal, word, &format!("service/{key}"), message)?);
            if pending.commit(&*self.store).await?.is_some() {
                return Ok(());
            }
        }
        Err(contended(key))
    }

    /// Pauses the rollout of a service; a schedule starts no run.
    pub async fn pause_rollout(&self, key: &ServiceKey) -> Result<()> {
        self.change_rollout(key, "RolloutPaused", |_, rollout| rollout.paused = true).await
    }

    /// Resumes a paused rollout, the next step of a canary, the end of a switch, or a failed rollout.
    pub async fn resume_rollout(&self, key: &ServiceKey) -> Result<()> {
        self.change_rollout(key, "RolloutResumed", |service, rollout| {
            let was_paused = std::mem::take(&mut rollout.paused);
            rollout.progress_at_ms = now_ms();
            match (rollout.phase, &service.strategy) {
                (RolloutPhase::Failed, _) => rollout.phase = RolloutPhase::Progressing,
                (RolloutPhase::Waiting, Strategy::Canary(_)) if !was_paused => {
                    (rollout.step, rollout.reached_at_ms) = (rollout.step + 1, None);
                    rollout.phase = RolloutPhase::Progressing;
                }
                (RolloutPhase::Waiting, Strategy::BlueGreen(_)) if !was_paused => rollout.reached_at_ms = Some(0),
                _ => return,
            }
            rollout.reason.clear();
        })
        .await
    }

    async fn change_rollout(
        &self,
        key: &ServiceKey,
        word: &str,
        change: impl Fn(&Service, &mut Rollout),
    ) -> Result<()> {
        for _ in 0..super::WRITE_TRIES_MAX {
            let known = self.known(key).await?;
            let service = &known.service.object;
            let (row, subject) = (keys::rollout(key), format!("service/{key}"));
            let fresh = Rollout { service_id: service.id.clone(), ..Rollout::default() };
            let old = known.rollout.unwrap_or(Object { revision: 0, object: fresh });
            let mut new = old.object.clone();
            change(service, &mut new);
            if new == old.object {
                return Ok(());
            }
            let mut pending = Pending::default();
            pending.expect(&keys::service(key), known.service.revision);
            pending.expect(&row, old.revision);
            pending.put(&row, &new);
            pending.event(&self.event(EventKind::Normal, word, &subject, "somebody asked for it")?);
            if pending.commit(&*self.store).await?.is_some() {
                return Ok(());
            }
        }
        Err(contended(key))
    }
}
