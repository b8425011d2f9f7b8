//! The searches: which node takes a request of a class, for one request or many alike.

use super::{Choice, ClassId, Engine, Place, Policy, class::Class};
use crate::cluster::NodeIndex;

/// Before all nodes.
const FIRST: Place = (0, 0);
/// After all nodes: there are fewer.
const END: Place = (u64::MAX, u32::MAX);

/// A class that at most one node in so many may use looks at these nodes one by one.
const FEW_NODES_RATIO: usize = 32;

impl Engine {
    /// The node that is to take a request of the class; `None` exactly if no node can.
    pub fn choose(&mut self, class: ClassId, policy: Policy) -> Option<Choice> {
        if self.is_hopeless(class) {
            return None;
        }
        let choice = match policy {
            Policy::Fragmentation => self.choose_whole(class),
            Policy::Pack | Policy::Spread => self.choose_among(class, policy, |_| true),
        };
        if choice.is_none() {
            self.classes[class.index()].hopeless_at = Some(self.gains);
        }
        choice
    }

    /// The node that is to take a request of the class among those that `accept` takes.
    pub fn choose_among(&self, class: ClassId, policy: Policy, accept: impl Fn(NodeIndex) -> bool) -> Option<Choice> {
        if self.is_hopeless(class) {
            return None;
        }
        let place = match policy {
            Policy::Pack => self.least_room(class, FIRST, &accept),
            Policy::Spread => self.most_room(class, u64::MAX, &accept),
            Policy::Fragmentation => return self.least_growth(class, &accept),
        };
        let node = place?.1 as NodeIndex;
        Some(Choice { node, grant: self.grant(node, class)? })
    }

    /// [`Self::choose`], and binds it.
    pub fn place(&mut self, class: ClassId, policy: Policy) -> Option<Choice> {
        let choice = self.choose(class, policy)?;
        self.bind_as(choice, class).then_some(choice)
    }

    /// Places so many requests of a class, or as many as fit, as [`Self::place`] would one after the other, but with one
    /// search: who takes one has less room then, so nobody that was passed over comes before it.
    pub fn place_batch(&mut self, class: ClassId, count: usize, policy: Policy) -> Vec<Choice> {
        let mut choices = Vec::new();
        let (mut from, mut until) = (FIRST, u64::MAX);
        while choices.len() < count && !self.is_hopeless(class) {
            let place = match policy {
                Policy::Pack => self.least_room(class, from, &|_| true),
                Policy::Spread => self.most_room(class, until, &|_| true),
                Policy::Fragmentation => {
                    let Some(choice) = self.place(class, policy) else { break };
                    choices.push(choice);
                    continue;
                }
            };
            let Some(place) = place else {
                self.classes[class.index()].hopeless_at = Some(self.gains);
                break;
            };
            until = place.0;
            // It may take the next one as well; it stands further ahead then.
            while let Some(choice) = self.bind(place.1 as NodeIndex, class) {
                choices.push(choice);
                if policy == Policy::Spread || choices.len() == count {
                    break;
                }
            }
            from = place;
        }
        choices
    }

    fn is_hopeless(&self, class: ClassId) -> bool {
        let class = &self.classes[class.index()];
        !class.is_possible || class.hopeless_at == Some(self.gains)
    }

    /// Whether a node that an index did not refuse takes the class.
    fn takes(&self, node: NodeIndex, class: &Class) -> bool {
        class.is_eligible(node) && (class.is_exact || self.has(node, class))
    }

    /// The nodes to look at one by one, if they are few.
    fn few(&self, class: &Class) -> Option<impl Iterator<Item = NodeIndex>> {
        let few = class.spec.eligible.as_ref().filter(|nodes| nodes.len() <= self.len() / FEW_NODES_RATIO)?;
        Some(few.iter().take_while(|node| *node < self.len()).filter(|node| self.has(*node, class)))
    }

    fn least_room(&self, class: ClassId, from: Place, accept: &impl Fn(NodeIndex) -> bool) -> Option<Place> {
        let class = &self.classes[class.index()];
        if let Some(few) = self.few(class) {
            return few.filter(|node| accept(*node)).map(|node| self.place_of(node)).min();
        }
        let mut best = END;
        for index in &self.groups {
            let found = index.first(from, best, &class.needs, |node| self.takes(node, class) && accept(node));
            best = found.unwrap_or(best);
        }
        (best != END).then_some(best)
    }

    fn most_room(&self, class: ClassId, until: u64, accept: &impl Fn(NodeIndex) -> bool) -> Option<Place> {
        let class = &self.classes[class.index()];
        if let Some(few) = self.few(class) {
            let places = few.filter(|node| accept(*node)).map(|node| self.place_of(node));
            return places.min_by_key(|(room, node)| (std::cmp::Reverse(*room), *node));
        }
        let takes = |node: NodeIndex| self.takes(node, class) && accept(node);
        let mut most: Option<u64> = None;
        for index in &self.groups {
            most = index.last_key(most.unwrap_or(0), until, &class.needs, takes).or(most);
        }
        let room = most?;
        // Of those that have as much room the first.
        let end = room.checked_add(1).map_or(END, |above| (above, 0));
        self.groups.iter().filter_map(|index| index.first((room, 0), end, &class.needs, takes)).min()
    }
}
