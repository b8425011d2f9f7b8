//! The searches: which node takes a request of a class, for one request or many alike.

use super::{Choice, Class, ClassId, Engine, NodeIndex, Place, Policy};

/// Before all nodes.
const FIRST: Place = (0, 0);
/// After all nodes: there are fewer.
const END: Place = (u64::MAX, u32::MAX);

/// A class that at most one node in so many may use looks at these nodes one by one.
const FEW_NODES_RATIO: usize = 32;

/// How far one search after another for requests that are alike has come: nothing before it takes them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    from: Place,
    until: u64,
}

impl Default for Cursor {
    #[inline]
    fn default() -> Self {
        Self { from: FIRST, until: u64::MAX }
    }
}

impl Engine {
    /// The node that is to take a request of the class; `None` exactly if no node can.
    pub fn choose(&mut self, class: ClassId, policy: Policy) -> Option<Choice> {
        if self.is_hopeless(class) {
            return None;
        }
        let choice = match policy {
            // Without a mix nothing grows anywhere, so room alone decides.
            Policy::Fragmentation if self.fragmentation.is_empty() => self.choose_among(class, Policy::Pack, |_| true),
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
        let compiled = &self.classes[class.index()];
        if policy == Policy::Fragmentation {
            return self.least_growth(compiled, &accept);
        }
        let node = self.next(compiled, policy, &mut Cursor::default(), accept)?;
        Some(Choice { node, grant: self.grant(node, class)? })
    }

    /// The next node that takes a request of the class after those that a search with this cursor has passed, by one of
    /// the policies that go by room alone.
    pub fn next(
        &self,
        class: &Class,
        policy: Policy,
        cursor: &mut Cursor,
        accept: impl Fn(NodeIndex) -> bool,
    ) -> Option<NodeIndex> {
        let place = match policy {
            Policy::Spread => self.most_room(class, cursor.until, &accept),
            Policy::Pack | Policy::Fragmentation => self.least_room(class, cursor.from, &accept),
        }?;
        *cursor = Cursor { from: place, until: place.0 };
        Some(place.1 as NodeIndex)
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
        let mut cursor = Cursor::default();
        while choices.len() < count {
            let found = match policy {
                Policy::Fragmentation => self.place(class, policy),
                _ if self.is_hopeless(class) => None,
                _ => self
                    .next(&self.classes[class.index()], policy, &mut cursor, |_| true)
                    .and_then(|node| self.bind(node, class)),
            };
            let Some(choice) = found else { break };
            choices.push(choice);
            // By best-fit it takes the next one as well if it can; it stands further ahead now.
            while policy == Policy::Pack && choices.len() < count {
                let Some(choice) = self.bind(choice.node, class) else { break };
                choices.push(choice);
            }
        }
        if choices.len() < count {
            self.classes[class.index()].hopeless_at = Some(self.gains);
        }
        choices
    }

    fn is_hopeless(&self, class: ClassId) -> bool {
        let class = &self.classes[class.index()];
        !class.is_possible || class.hopeless_at == Some(self.gains)
    }

    /// Whether a node that an index did not refuse takes the class.
    #[inline]
    fn takes(&self, node: NodeIndex, class: &Class) -> bool {
        class.is_eligible(node) && (class.is_exact || self.has(node, class))
    }

    /// The nodes to look at one by one, if they are few.
    #[inline]
    fn few(&self, class: &Class) -> Option<impl Iterator<Item = NodeIndex>> {
        let few = class.spec.eligible.as_ref().filter(|nodes| nodes.len() <= self.len() / FEW_NODES_RATIO)?;
        Some(few.iter().take_while(|node| *node < self.len()).filter(|node| self.has(*node, class)))
    }

    fn least_room(&self, class: &Class, from: Place, accept: &impl Fn(NodeIndex) -> bool) -> Option<Place> {
        if !class.is_possible {
            return None;
        }
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

    fn most_room(&self, class: &Class, until: u64, accept: &impl Fn(NodeIndex) -> bool) -> Option<Place> {
        if !class.is_possible {
            return None;
        }
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
