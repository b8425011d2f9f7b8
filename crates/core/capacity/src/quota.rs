//! What is left of a namespace's quotas. Knows no nodes.

use heptad_model::{Dimension, Namespace, Quota, ResourceVector};
use serde::{Deserialize, Serialize};
use std::fmt;

/// What a quota bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum QuotaItem {
    /// A resource.
    Resource(Dimension),
    /// The number of containers.
    Containers,
}

impl QuotaItem {
    fn show(self, amount: u64) -> String {
        match self {
            Self::Resource(dimension) => dimension.show(amount),
            Self::Containers => amount.to_string(),
        }
    }
}

impl fmt::Display for QuotaItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Resource(dimension) => fmt::Display::fmt(dimension, f),
            Self::Containers => f.pad("containers"),
        }
    }
}

/// A quota that a container would exceed. Amounts are in the resource's own unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaShort {
    /// The namespace.
    pub namespace: Namespace,
    /// The quota's name.
    pub quota: String,
    /// What of it does not suffice: the first such thing.
    pub item: QuotaItem,
    /// What the container asks.
    pub asked: u64,
    /// The bound.
    pub limit: u64,
    /// What the namespace's containers on nodes have.
    pub used: u64,
}

impl QuotaShort {
    /// By how much the bound would have to be higher.
    pub fn missing(&self) -> u64 {
        self.used.saturating_add(self.asked).saturating_sub(self.limit)
    }

    /// [`Self::missing`] as people write it.
    pub fn missing_shown(&self) -> String {
        self.item.show(self.missing())
    }
}

impl fmt::Display for QuotaShort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, quota, item, asked, limit, used } = self;
        let [asked, limit, used] = [asked, limit, used].map(|amount| item.show(*amount));
        write!(f, "quota {quota} of namespace {namespace}: {item}: asked {asked}, limit {limit}, used {used}")
    }
}

/// The quotas of a namespace and what its containers on nodes take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NamespaceRoom {
    quotas: Vec<Quota>,
    used: ResourceVector,
    containers: u64,
}

impl NamespaceRoom {
    pub(crate) fn add(&mut self, quota: &Quota) {
        self.quotas.push(quota.clone());
    }

    /// The quotas.
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// What is taken of the resources, and by how many containers.
    pub fn used(&self) -> (ResourceVector, u64) {
        (self.used, self.containers)
    }

    /// Counts a container that asks `resources`. Sums that overflow stay at the largest number, which no bound exceeds.
    pub fn take(&mut self, resources: &ResourceVector) {
        let (have, more) = (self.used.amounts(), resources.amounts());
        self.used = ResourceVector::from_amounts(std::array::from_fn(|i| have[i].saturating_add(more[i])));
        self.containers += 1;
    }

    /// The first bound that a container asking `resources` would exceed. Of what it asks nothing it exceeds nothing.
    pub fn refuses(&self, resources: &ResourceVector) -> Option<QuotaShort> {
        self.quotas.iter().find_map(|quota| {
            let short = |item, asked, limit, used| QuotaShort {
                namespace: quota.namespace.clone(),
                quota: quota.name.clone(),
                item,
                asked,
                limit,
                used,
            };
            let count = quota.containers.map(u64::from).filter(|limit| self.containers >= *limit);
            let count = count.map(|limit| short(QuotaItem::Containers, 1, limit, self.containers));
            let mut resource = Dimension::ALL.into_iter().filter_map(|dimension| {
                let (asked, used) = (resources.get(dimension), self.used.get(dimension));
                let limit = quota.limit(dimension)?;
                (asked > 0 && asked.saturating_add(used) > limit)
                    .then(|| short(QuotaItem::Resource(dimension), asked, limit, used))
            });
            resource.next().or(count)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::memory;
    use heptad_model::Bytes;

    #[test]
    fn the_first_bound_that_is_exceeded_is_said() {
        let quota = Quota { name: "q".into(), memory: Some(Bytes(10 << 20)), containers: Some(2), ..Quota::default() };
        let mut room = NamespaceRoom { quotas: vec![quota], ..NamespaceRoom::default() };
        assert_eq!(room.refuses(&memory(10)), None);
        let short = room.refuses(&memory(11)).expect("too much");
        assert_eq!((short.missing(), short.missing_shown().as_str()), (1 << 20, "1Mi"));
        room.take(&memory(4));
        room.take(&memory(4));
        let text = room.refuses(&memory(3)).expect("too much").to_string();
        assert_eq!(text, "quota q of namespace default: memory: asked 3Mi, limit 10Mi, used 8Mi");
        let text = room.refuses(&memory(0)).expect("too many").to_string();
        assert_eq!(text, "quota q of namespace default: containers: asked 1, limit 2, used 2");
    }
}
