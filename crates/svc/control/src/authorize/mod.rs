//! Whether somebody may do something: Cedar policies over who asks and what is asked. Default deny.
//! Knows no HTTP, no certificate and no token.

mod asked;
mod principal;

pub(crate) use asked::{Asked, Verb};
pub(crate) use principal::Principal;

use crate::error::{Error, Result};
use cedar_policy::{
    Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicySet, Request,
    RestrictedExpression, Schema, ValidationMode, Validator,
};
use heptad_api::{ErrorCode, trust::Role};
use std::{
    collections::{HashMap, HashSet},
    path::Path,
    str::FromStr,
};

const POLICIES: &str = include_str!("policies.cedar");
const SCHEMA: &str = include_str!("schema.cedarschema");

/// The policies, and how they are asked.
#[derive(Debug)]
pub(crate) struct Policies {
    authorizer: Authorizer,
    policies: PolicySet,
    actions: HashMap<Verb, EntityUid>,
    resource: EntityTypeName,
}

fn type_name(name: &str) -> EntityTypeName {
    EntityTypeName::from_str(name).expect("the names of types are identifiers")
}

fn uid(type_of: EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(type_of, EntityId::new(id))
}

fn text(value: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(value.to_owned())
}

fn entity(uid: EntityUid, attributes: &[(&str, &str)]) -> Result<Entity> {
    let attributes = attributes.iter().map(|(name, value)| ((*name).to_owned(), text(value))).collect();
    Entity::new(uid, attributes, HashSet::new()).map_err(unasked)
}

/// The policies could not be asked, which is a defect of ours.
fn unasked(error: impl std::error::Error) -> Error {
    Error::refused(ErrorCode::Internal, format!("the policies could not be asked: {error}"))
}

impl Policies {
    /// The policies of this program, and those of `file`, which may permit and forbid more.
    pub(crate) fn load(file: Option<&Path>) -> Result<Self> {
        let wrong =
            |reason: String| Error::Policies { path: file.unwrap_or(Path::new("policies.cedar")).into(), reason };
        let mut source = POLICIES.to_owned();
        if let Some(path) = file {
            source.push_str(&std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?);
        }
        let policies = PolicySet::from_str(&source).map_err(|error| wrong(error.to_string()))?;
        let (schema, _) = Schema::from_cedarschema_str(SCHEMA).map_err(|error| wrong(error.to_string()))?;
        let checked = Validator::new(schema).validate(&policies, ValidationMode::Strict);
        if let Some(error) = checked.validation_errors().next() {
            return Err(wrong(error.to_string()));
        }
        let actions = Verb::ALL.into_iter().map(|verb| (verb, uid(type_name("Action"), verb.word())));
        let actions = actions.collect();
        Ok(Self { authorizer: Authorizer::new(), policies, actions, resource: type_name("Resource") })
    }

    /// Whether a policy permits it and none forbids it.
    pub(crate) fn permit(&self, principal: &Principal, asked: &Asked) -> Result<bool> {
        let who = entity_of(principal)?;
        let what = entity(
            uid(self.resource.clone(), &asked.path()),
            &[
                ("kind", &asked.kind),
                ("namespace", &asked.namespace),
                ("name", &asked.name),
                ("sub", &asked.sub),
                ("node", &asked.node),
            ],
        )?;
        let action = self.actions[&asked.verb].clone();
        let request = Request::new(who.uid(), action, what.uid(), Context::empty(), None).map_err(unasked)?;
        let entities = Entities::from_entities([who, what], None).map_err(unasked)?;
        let answer = self.authorizer.is_authorized(&request, &self.policies, &entities);
        Ok(answer.decision() == Decision::Allow)
    }

    /// An error that says who may not do what, unless it is permitted.
    pub(crate) fn require(&self, principal: &Principal, asked: &Asked) -> Result<()> {
        // The owner of the machine needs no permission, and most requests of one machine are the agent's own.
        if let Principal::Ended(node) = principal {
            // Beside what anybody may.
            let renews = asked.verb == Verb::Create && asked.path() == "certificates";
            if renews || self.permit(&Principal::Anonymous, asked)? {
                return Ok(());
            }
            let detail = format!("the certificate of node/{node} has ended; it may be renewed, and opens nothing else");
            return Err(Error::refused(ErrorCode::Unauthorized, detail));
        }
        if *principal == Principal::Operator || self.permit(principal, asked)? {
            return Ok(());
        }
        if *principal == Principal::Anonymous {
            let detail = "send `Authorization: Bearer TOKEN`, or show a certificate of this cluster";
            return Err(Error::refused(ErrorCode::Unauthorized, detail));
        }
        Err(Error::refused(ErrorCode::Forbidden, format!("{} may not {asked}", principal.described())))
    }
}

fn entity_of(principal: &Principal) -> Result<Entity> {
    match principal {
        Principal::Operator => entity(uid(type_name("Operator"), "operator"), &[]),
        Principal::Anonymous => entity(uid(type_name("Anonymous"), "anonymous"), &[]),
        Principal::Server(name) => entity(uid(type_name("Server"), name), &[("name", name)]),
        Principal::Node(name) | Principal::Ended(name) => {
            entity(uid(type_name("Node"), name.as_str()), &[("name", name.as_str())])
        }
        Principal::Person(person) => {
            let (role, namespace) = match &person.role {
                Role::Admin => ("admin", ""),
                Role::Viewer => ("viewer", ""),
                Role::Deployer { namespace } => ("deployer", namespace.as_str()),
            };
            let attributes = [("name", person.name.as_str()), ("role", role), ("namespace", namespace)];
            entity(uid(type_name("Person"), &person.id), &attributes)
        }
    }
}

#[cfg(test)]
mod tests;
