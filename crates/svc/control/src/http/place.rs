//! Where a connection is counted: among unidentified ones until an identified caller sends a request over it, then
//! among the connections of that caller.

use crate::{
    authorize::Principal,
    budget::{Budget, Caller, Full, Permit},
};
use heptad_pki::{Seat, Strangers, party};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
enum Counted {
    Stranger(#[expect(dead_code, reason = "it is held")] Seat),
    Known(Permit),
}

/// The slot of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    address: String,
    lost: CancellationToken,
    counted: Arc<Mutex<Counted>>,
}

impl Place {
    /// For an unidentified caller at `address`.
    pub(crate) fn of_stranger(strangers: &Strangers, address: IpAddr) -> Self {
        let seat = strangers.seat(address);
        let (address, lost) = (party(address).to_string(), seat.lost().clone());
        Self { address, lost, counted: Arc::new(Mutex::new(Counted::Stranger(seat))) }
    }

    /// For a caller identified by the way of coming.
    pub(crate) fn of_known(permit: Permit) -> Self {
        let counted = Arc::new(Mutex::new(Counted::Known(permit)));
        Self { address: String::new(), lost: CancellationToken::new(), counted }
    }

    /// The address of the other side, as far as it distinguishes parties.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The account for what arrives over the connection before its sender is identified.
    pub(crate) fn holder(&self) -> Caller {
        match &*self.counted.lock().unwrap_or_else(PoisonError::into_inner) {
            Counted::Stranger(_) => Caller::of(&Principal::Anonymous, &self.address),
            Counted::Known(permit) => permit.caller().clone(),
        }
    }

    /// Completes when a newer unidentified connection takes this slot.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Counts the connection among those of an identified caller, from the first time on.
    pub(crate) fn belongs_to(&self, caller: &Caller, connections: &Budget) -> Result<(), Full> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Counted::Stranger(_) = *counted {
            *counted = Counted::Known(connections.take(caller)?);
        }
        Ok(())
    }
}
