//! A simulated user: creates, scales, changes and deletes services of its own, and remembers what was acknowledged.
//! What it reads must be what it wrote, or wrote with an unknown outcome.

use crate::{draw::Draw, interpose, mirror::Mirror, world::World};
use heptad_api::Object;
use heptad_client::{Client, Error};
use heptad_model::{Bytes, CpuMillis, Job, Mode, ResourceVector, Service, ServiceKey};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::sleep;

/// How long a request that was given up may still be on its way.
const IN_FLIGHT_MS_MAX: u64 = 3_000;
/// Most replicas of a service.
const REPLICAS_MAX: u64 = 5;

/// A user's specification of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Spec {
    pub(crate) replicas: u32,
    /// The only argument; a new one replaces all containers.
    pub(crate) version: u64,
    pub(crate) cpu_millis: u64,
}

impl Spec {
    fn of(service: &Service) -> Self {
        let version = service.args.first().and_then(|arg| arg.parse().ok()).unwrap_or_default();
        Self { replicas: service.replicas, version, cpu_millis: service.resources.cpu_millis.0 }
    }

    fn service(&self, name: &str, world: &World) -> Service {
        let resources =
            ResourceVector { cpu_millis: CpuMillis(self.cpu_millis), memory: Bytes::mib(16), ..ResourceVector::ZERO };
        let args = vec![self.version.to_string()];
        let mut service =
            Service { replicas: self.replicas, args, resources: resources.into(), ..Service::new(name, "host") };
        match name.ends_with("-s1") {
            true if world.shape.has_jobs => service.mode = Mode::Job(Job { retries: 2, ..Job::default() }),
            true => {}
            false => service.health_check = Some(world.shape.health_check.clone()),
        }
        service
    }
}

/// What a user knows about one service.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wish {
    /// What was acknowledged or read last, and its revision.
    known: Option<(Spec, u64)>,
    /// What else it may have become since: writes with an unknown outcome.
    maybe: Vec<Option<Spec>>,
    /// Until then a given-up creation may still come true.
    not_before: Duration,
}

impl Wish {
    fn is(&self, found: Option<&Spec>) -> bool {
        found == self.known.as_ref().map(|(spec, _)| spec) || self.maybe.iter().any(|maybe| maybe.as_ref() == found)
    }
}

/// What all users know.
pub(crate) type Wishes = BTreeMap<ServiceKey, Wish>;

/// The first service that is not as its user knows it.
pub(crate) fn denied(wishes: &Wishes, mirror: &Mirror) -> Option<String> {
    let found = |key: &ServiceKey| mirror.services.get(key).map(Spec::of);
    let wrong = wishes.iter().find(|(key, wish)| !wish.is(found(key).as_ref()))?;
    Some(format!("service {} is {:?}, its user knows {:?}", wrong.0, found(wrong.0), wrong.1))
}

/// Works until faults are over.
pub(crate) async fn run(world: World, number: usize) -> turmoil::Result {
    let name = format!("user-{number}");
    let draw = Draw::of(world.seed, &name);
    let client = world.client(number);
    let mut user = User { world, name, client, draw, version: 0 };
    loop {
        let pause = user.draw.ms(20, 500);
        sleep(pause).await;
        if user.world.is_calm() {
            return Ok(());
        }
        user.act().await;
    }
}

struct User {
    world: World,
    name: String,
    client: Client,
    draw: Draw,
    version: u64,
}

impl User {
    async fn act(&mut self) {
        let service = self.draw.within(1, self.world.shape.services as u64);
        let key = ServiceKey::new("default", format!("{}-s{service}", self.name));
        let wish = self.world.wishes().entry(key.clone()).or_default().clone();
        if wish.not_before > interpose::elapsed() {
            return;
        }
        if !wish.maybe.is_empty() && !self.read(&key).await {
            return;
        }
        let known = self.world.wishes().get(&key).and_then(|wish| wish.known.clone());
        match known {
            None => self.create(&key).await,
            Some((spec, revision)) => match self.draw.within(0, 99) {
                0..50 => self.scale(&key, spec, revision).await,
                50..75 => self.change(&key, spec, revision).await,
                75..90 => self.delete(&key, revision).await,
                _ => {
                    self.read(&key).await;
                }
            },
        }
    }

    fn note(&self, what: std::fmt::Arguments<'_>) {
        self.world.log.note(&self.name, what);
    }

    /// The CPU that this user's other services may use, whatever their state.
    fn cpu_left(&self, key: &ServiceKey) -> u64 {
        let wishes = self.world.wishes();
        let own = wishes.iter().filter(|(other, _)| *other != key && other.name.starts_with(&self.name));
        let most = |wish: &Wish| {
            let specs = wish.known.iter().map(|(spec, _)| spec).chain(wish.maybe.iter().flatten());
            // One more, for a replacement.
            specs.map(|spec| u64::from(spec.replicas + 1) * spec.cpu_millis).max().unwrap_or(0)
        };
        self.world.shape.user_cpu_millis.saturating_sub(own.map(|(_, wish)| most(wish)).sum())
    }

    fn replicas(&mut self, key: &ServiceKey, cpu_millis: u64) -> u32 {
        let most = (self.cpu_left(key) / cpu_millis).saturating_sub(1).min(REPLICAS_MAX);
        u32::try_from(self.draw.within(0, most)).expect("it is at most a few")
    }

    async fn create(&mut self, key: &ServiceKey) {
        let cpu_millis = self.draw.within(1, 3) * 50;
        self.version += 1;
        let spec = Spec { replicas: self.replicas(key, cpu_millis), version: self.version, cpu_millis };
        self.note(format_args!("create {key} {spec:?}"));
        let done = self.client.create(&spec.service(&key.name, &self.world)).await;
        self.remember(key, Some(spec), done.map(Some));
    }

    async fn scale(&mut self, key: &ServiceKey, spec: Spec, revision: u64) {
        let replicas = self.replicas(key, spec.cpu_millis);
        self.note(format_args!("scale {key} at {revision} from {} to {replicas}", spec.replicas));
        let patch = json!({ "replicas": replicas });
        let done = self.client.patch::<Service>(&key.namespace, &key.name, &patch, Some(revision)).await;
        self.remember(key, Some(Spec { replicas, ..spec }), done.map(Some));
    }

    async fn change(&mut self, key: &ServiceKey, spec: Spec, revision: u64) {
        self.version += 1;
        let spec = Spec { version: self.version, ..spec };
        self.note(format_args!("change {key} at {revision} to version {}", spec.version));
        let done = self.client.replace(&spec.service(&key.name, &self.world), Some(revision)).await;
        self.remember(key, Some(spec), done.map(Some));
    }

    async fn delete(&mut self, key: &ServiceKey, revision: u64) {
        self.note(format_args!("delete {key} at {revision}"));
        let done = self.client.delete::<Service>(&key.namespace, &key.name, Some(revision)).await;
        self.remember(key, None, done.map(|_| None));
    }

    /// Remembers what a write did, or may have done.
    fn remember(&self, key: &ServiceKey, asked: Option<Spec>, done: Result<Option<Object<Service>>, Error>) {
        let mut wishes = self.world.wishes();
        let wish = wishes.entry(key.clone()).or_default();
        match done {
            Ok(object) => {
                self.note(format_args!("{key} is written"));
                *wish = Wish { known: asked.zip(object.map(|object| object.revision)), ..Wish::default() };
            }
            Err(error) => {
                self.note(format_args!("{key}: {error}"));
                // A refusal says that nothing was done; the next action checks again. Any other write may still take
                // effect.
                let refused = error.code().is_some_and(|code| code.status() < 500);
                if !refused && asked.is_some() && wish.known.is_none() {
                    wish.not_before = interpose::elapsed() + Duration::from_millis(IN_FLIGHT_MS_MAX);
                }
                let may_be = if refused { wish.known.as_ref().map(|(spec, _)| spec.clone()) } else { asked };
                wish.maybe.push(may_be);
            }
        }
    }

    /// Checks the state of a service. Returns whether it is now known.
    async fn read(&self, key: &ServiceKey) -> bool {
        let found = match self.client.get::<Service>(&key.namespace, &key.name).await {
            Ok(object) => Some((Spec::of(&object.object), object.revision)),
            Err(error) if error.is_not_found() => None,
            Err(error) => {
                self.note(format_args!("{key} cannot be read: {error}"));
                return false;
            }
        };
        self.note(format_args!("{key} is {found:?}"));
        let mut wishes = self.world.wishes();
        let wish = wishes.entry(key.clone()).or_default();
        if !wish.is(found.as_ref().map(|(spec, _)| spec)) {
            self.world.log.fail(format!("service {key} is {found:?}, its user knows {wish:?}"));
        }
        // Writes name the revision that they change, so that a late one finds another revision and is refused.
        let moved = found.as_ref().map(|(_, revision)| *revision) != wish.known.as_ref().map(|(_, revision)| *revision);
        if moved {
            *wish = Wish { known: found, ..Wish::default() };
        }
        true
    }
}
