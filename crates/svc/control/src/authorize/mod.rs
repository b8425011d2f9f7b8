//! Who asks, and the refusal of what is not permitted. Knows no HTTP, no certificate and no token.

mod principal;

pub(crate) use heptad_api::permission::{Asked, Verb};
pub(crate) use principal::Principal;

use crate::error::{Error, Result};
use heptad_api::{ErrorCode, permission::permits};

/// An error that says who may not do what, unless it is permitted.
pub(crate) fn require(principal: &Principal, asked: &Asked) -> Result<()> {
    if let Principal::Ended(node) = principal {
        // Beside what anybody may.
        let renews = asked.verb == Verb::Create && asked.path() == "certificates";
        if renews || permits(Principal::Anonymous.who(), asked) {
            return Ok(());
        }
        let detail = format!("the certificate of node/{node} has ended; it may be renewed, and opens nothing else");
        return Err(Error::refused(ErrorCode::Unauthorized, detail));
    }
    if permits(principal.who(), asked) {
        return Ok(());
    }
    if *principal == Principal::Anonymous {
        let detail = "send `Authorization: Bearer TOKEN`, or show a certificate of this cluster";
        return Err(Error::refused(ErrorCode::Unauthorized, detail));
    }
    Err(Error::refused(ErrorCode::Forbidden, format!("{} may not {asked}", principal.described())))
}
