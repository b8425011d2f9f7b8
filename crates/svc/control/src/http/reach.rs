//! Network policies of one namespace may select services of another, and so open or close what is there. Who writes such a
//! policy must be permitted to write policies there too. Knows no other kind.

use super::{App, authenticate::Asking};
use crate::{
    authorize::{self, Asked, Principal, Verb},
    error::Result,
    objects::Kept,
};
use heptad_api::{Kind, Manifest, operations::ApplyRequest};
use heptad_model::{Namespace, NetworkPolicy};
use serde_json::Value;

impl App {
    /// Whether every object of an apply may be written.
    pub(super) async fn may_apply(&self, Asking(principal): &Asking, request: &ApplyRequest) -> Result<()> {
        for manifest in &request.objects {
            authorize::require(principal, &Asked::object(Verb::Update, manifest))?;
            if let Manifest::Policy(policy) = manifest {
                self.may_change_policy(principal, &policy.namespace, &policy.name).await?;
                let selected = policy.selector.namespace.as_ref();
                self.may_select(principal, selected.map(Namespace::as_str), &policy.name)?;
            }
        }
        Ok(())
    }

    /// Whether what a plan would say of every object may be read: it tells whether an object is there, and, of one that is
    /// the same, its values.
    pub(super) fn may_plan(&self, Asking(principal): &Asking, request: &ApplyRequest) -> Result<()> {
        let mut objects = request.objects.iter();
        objects.try_for_each(|manifest| authorize::require(principal, &Asked::object(Verb::Read, manifest)))
    }

    /// Whether an object, or a patch of one, may be written as it is in a body.
    pub(super) fn may_write<T: Kept>(&self, Asking(principal): &Asking, body: &Value) -> Result<()> {
        if T::KIND != Kind::Policies {
            return Ok(());
        }
        // Bare, or as it was read with its revision.
        for place in ["/selector/namespace", "/object/selector/namespace"] {
            self.may_select(principal, body.pointer(place).and_then(Value::as_str), "")?;
        }
        Ok(())
    }

    fn may_select(&self, principal: &Principal, namespace: Option<&str>, name: &str) -> Result<()> {
        match namespace {
            Some(namespace) => {
                let asked =
                    Asked { namespace: namespace.to_owned(), ..Asked::named(Verb::Update, Kind::Policies, name) };
                authorize::require(principal, &asked)
            }
            None => Ok(()),
        }
    }

    /// Whether the policy that is there, if there is one, may be changed or deleted: it may select what its namespace does not say.
    pub(super) async fn may_change_policy(
        &self,
        principal: &Principal,
        namespace: &Namespace,
        name: &str,
    ) -> Result<()> {
        if !matches!(principal, Principal::Person(_)) {
            return Ok(());
        }
        let found = self.objects.find::<NetworkPolicy>(namespace, name).await?;
        let selected = found.and_then(|policy| policy.object.selector.namespace);
        self.may_select(principal, selected.as_ref().map(Namespace::as_str), name)
    }
}
