//! The one table of the kinds of objects. What is the same for all kinds is made of it: their words, paths, types, and what
//! files may hold. Whoever does something for each kind goes through [`with_kind!`](crate::with_kind), so that a new kind is
//! a line here, and the compiler says what it lacks elsewhere.

use heptad_model::Namespace;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::fmt;

/// What is kept and served by the API.
pub trait Resource: Serialize + DeserializeOwned + JsonSchema + Clone + fmt::Debug + Send + Sync + 'static {
    /// Its kind.
    const KIND: Kind;
    /// Its name, unique within kind and namespace.
    fn name(&self) -> &str;
    /// Its namespace, if its kind has one.
    fn namespace(&self) -> Option<&Namespace>;
}

/// The names of all fields of a kind's objects, also of those that are left out when they are empty.
pub fn fields_of<T: Resource>() -> Vec<String> {
    let schema = schemars::schema_for!(T);
    let properties = schema.get("properties").and_then(serde_json::Value::as_object);
    properties.map(|fields| fields.keys().cloned().collect()).unwrap_or_default()
}

/// What of an object's namespace there is.
macro_rules! scope {
    (namespaced) => {
        true
    };
    (global) => {
        false
    };
    (namespaced of $object:ident) => {
        Some(&$object.namespace)
    };
    (global of $object:ident) => {
        None
    };
}

/// Which people read the objects of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readers {
    /// All who may see the cluster.
    All,
    /// Those who write them.
    Owners,
}

/// Who makes, changes and deletes the objects of a kind by their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writers {
    /// Servers alone, no person.
    Servers,
    /// Administrators.
    Admins,
    /// Administrators, and the deployers of a namespace there.
    Deployers,
}

macro_rules! kinds {
    (
        $d:tt
        desired { $(
            $(#[$dmeta:meta])* $dkind:ident = $one:ident($dtype:ident) at $head:literal,
            $dplural:literal, $dsingular:literal, $dshort:literal, $dscope:ident, for $dreaders:ident by $dby:ident;
        )+ }
        others { $(
            $(#[$ometa:meta])* $okind:ident = ($otype:ident) at $id:ident,
            $oplural:literal, $osingular:literal, $oshort:literal, $oscope:ident, for $oreaders:ident by $oby:ident;
        )+ }
    ) => {
        /// The kinds of objects.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "lowercase")]
        pub enum Kind {
            $( $(#[$dmeta])* $dkind, )+
            $( $(#[$ometa])* $okind, )+
        }

        impl Kind {
            /// All kinds.
            pub const ALL: [Self; [$( Self::$dkind, )+ $( Self::$okind, )+].len()] =
                [$( Self::$dkind, )+ $( Self::$okind, )+];

            /// The word in paths and keys.
            pub fn plural(self) -> &'static str {
                match self { $( Self::$dkind => $dplural, )+ $( Self::$okind => $oplural, )+ }
            }

            /// The word for one of them.
            pub fn singular(self) -> &'static str {
                match self { $( Self::$dkind => $dsingular, )+ $( Self::$okind => $osingular, )+ }
            }

            /// A short word for commands.
            pub fn short(self) -> &'static str {
                match self { $( Self::$dkind => $dshort, )+ $( Self::$okind => $oshort, )+ }
            }

            /// Whether its objects live in namespaces.
            pub fn is_namespaced(self) -> bool {
                match self { $( Self::$dkind => scope!($dscope), )+ $( Self::$okind => scope!($oscope), )+ }
            }

            /// Which people read its objects.
            pub fn readers(self) -> Readers {
                match self { $( Self::$dkind => Readers::$dreaders, )+ $( Self::$okind => Readers::$oreaders, )+ }
            }

            /// Who makes, changes and deletes its objects by their names.
            pub fn writers(self) -> Writers {
                match self { $( Self::$dkind => Writers::$dby, )+ $( Self::$okind => Writers::$oby, )+ }
            }

            /// The key that begins a document of the kind in a file; none if files do not hold its objects. A word that is
            /// also a field of other kinds stands before theirs in the table: the later one of a document's words counts.
            pub fn head(self) -> Option<&'static str> {
                match self { $( Self::$dkind => Some($head), )+ $( Self::$okind => None, )+ }
            }

            /// What a path calls the name of an object.
            pub fn parameter(self) -> &'static str {
                match self { $( Self::$dkind => "name", )+ $( Self::$okind => stringify!($id), )+ }
            }
        }

        /// The types of objects, by the names of their kinds.
        pub mod types {
            $( $(#[$dmeta])* pub type $dkind = heptad_model::$dtype; )+
            $( $(#[$ometa])* pub type $okind = heptad_model::$otype; )+
        }

        $(
            impl Resource for heptad_model::$dtype {
                const KIND: Kind = Kind::$dkind;
                fn name(&self) -> &str {
                    self.name.as_str()
                }
                fn namespace(&self) -> Option<&Namespace> {
                    scope!($dscope of self)
                }
            }
        )+

        $(
            impl From<heptad_model::$dtype> for Manifest {
                fn from(object: heptad_model::$dtype) -> Self {
                    Self::$one(object)
                }
            }
        )+

        $(
            impl Resource for heptad_model::$otype {
                const KIND: Kind = Kind::$okind;
                fn name(&self) -> &str {
                    self.$id.as_str()
                }
                fn namespace(&self) -> Option<&Namespace> {
                    scope!($oscope of self)
                }
            }
        )+

        /// A desired object, as `apply` and `plan` send it.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "kind", content = "object", rename_all = "lowercase")]
        #[expect(
            clippy::large_enum_variant,
            reason = "manifests are few and short-lived; a box would be in every caller's way"
        )]
        pub enum Manifest {
            $( $(#[$dmeta])* $one(heptad_model::$dtype), )+
        }

        /// Evaluates an expression for the object of a [`Manifest`], whatever its type.
        #[macro_export]
        macro_rules! with_manifest {
            ($d manifest:expr, $d object:ident => $d body:expr) => {
                match $d manifest { $( $crate::Manifest::$one($d object) => $d body, )+ }
            };
        }

        /// Evaluates an expression for a [`Kind`] whose objects files may hold, with a name for their type; none for others.
        #[macro_export]
        macro_rules! with_desired {
            ($d kind:expr, $d type:ident => $d body:expr) => {
                match $d kind {
                    $( $crate::Kind::$dkind => { type $d type = $crate::kind::types::$dkind; Some($d body) } )+
                    $( $crate::Kind::$okind => None, )+
                }
            };
        }

        /// Evaluates an expression for a [`Kind`], with a name for the type of its objects.
        #[macro_export]
        macro_rules! with_kind {
            ($d kind:expr, $d type:ident => $d body:expr) => {
                match $d kind {
                    $( $crate::Kind::$dkind => { type $d type = $crate::kind::types::$dkind; $d body } )+
                    $( $crate::Kind::$okind => { type $d type = $crate::kind::types::$okind; $d body } )+
                }
            };
        }
    };
}

kinds! {
    $
    desired {
        /// Namespaces that were declared.
        Namespaces = Namespace(DeclaredNamespace) at "namespace",
            "namespaces", "namespace", "ns", global, for All by Admins;
        /// What to run.
        Services = Service(Service) at "service", "services", "service", "svc", namespaced, for All by Deployers;
        /// Network policies.
        Policies = Policy(NetworkPolicy) at "policy", "policies", "policy", "pol", namespaced, for All by Deployers;
        /// Traffic rules.
        Rules = Rule(TrafficRule) at "traffic", "rules", "rule", "traffic", namespaced, for All by Deployers;
        /// Named values for services.
        Configs = Config(Config) at "config", "configs", "config", "cfg", namespaced, for All by Deployers;
        /// Named values that are sealed.
        Secrets = Secret(Secret) at "secret", "secrets", "secret", "sec", namespaced, for Owners by Deployers;
        /// Bounds of namespaces.
        Quotas = Quota(Quota) at "quota", "quotas", "quota", "qu", namespaced, for All by Admins;
    }
    others {
        /// Machines.
        Nodes = (Node) at name, "nodes", "node", "no", global, for All by Admins;
        /// Replicas of services.
        Containers = (Container) at id, "containers", "container", "ct", global, for All by Servers;
        /// What happened.
        Events = (Event) at id, "events", "event", "ev", global, for All by Servers;
    }
}

impl Kind {
    /// The kind with that word in paths and keys.
    pub fn of_plural(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.plural() == word)
    }

    /// The path of the collection over all namespaces.
    pub fn collection_path(self) -> String {
        format!("/v1/{}", self.plural())
    }

    /// The path of one object. `namespace` counts only for namespaced kinds.
    pub fn object_path(self, namespace: &Namespace, name: &str) -> String {
        if self.is_namespaced() {
            format!("/v1/namespaces/{namespace}/{}/{name}", self.plural())
        } else {
            format!("/v1/{}/{name}", self.plural())
        }
    }

    /// The path of the collection of a namespace, or of the whole cluster for kinds without namespaces, with `{parameters}`.
    pub fn collection_template(self) -> String {
        if self.is_namespaced() { format!("/v1/namespaces/{{namespace}}/{self}") } else { self.collection_path() }
    }

    /// The path of one object, with `{parameters}`.
    pub fn object_template(self) -> String {
        format!("{}/{{{}}}", self.collection_template(), self.parameter())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.plural())
    }
}

impl Manifest {
    /// The kind of the object.
    pub fn kind(&self) -> Kind {
        fn kind_of<T: Resource>(_: &T) -> Kind {
            T::KIND
        }
        with_manifest!(self, object => kind_of(object))
    }

    /// The namespace of the object, if its kind has one.
    pub fn namespace(&self) -> Option<&Namespace> {
        with_manifest!(self, object => Resource::namespace(object))
    }

    /// The name of the object.
    pub fn name(&self) -> &str {
        with_manifest!(self, object => Resource::name(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_word_means_two_kinds() {
        let mut seen = BTreeSet::new();
        for kind in Kind::ALL {
            assert_eq!(Kind::of_plural(kind.plural()), Some(kind));
            for word in BTreeSet::from([kind.plural(), kind.singular(), kind.short()]) {
                assert!(seen.insert(word), "{word}");
            }
        }
    }

    #[test]
    fn a_word_that_begins_documents_stands_before_those_of_the_kinds_that_have_it_as_a_field() {
        for (at, kind) in Kind::ALL.into_iter().enumerate() {
            let Some(head) = kind.head() else { continue };
            let with_field = |other: &Kind| with_kind!(*other, T => fields_of::<T>()).iter().any(|field| field == head);
            let before: Vec<_> =
                Kind::ALL[..at].iter().filter(|other| other.head().is_some()).filter(|o| with_field(o)).collect();
            assert!(before.is_empty(), "`{head}` is a field of {before:?}, which stand before {kind}");
        }
    }
}
