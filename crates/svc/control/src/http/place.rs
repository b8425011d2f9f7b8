//! Where a connection is counted: among strangers until somebody known has asked something over it, and then among the
//! connections of that caller.

use super::strangers::{Seat, Strangers, party};
use crate::budget::{Budget, Caller, Full, Permit};
use std::{
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio_util::sync::CancellationToken;

#[derive(Debug)]
enum Counted {
    Stranger(#[expect(dead_code, reason = "it is held")] Seat),
    Known(#[expect(dead_code, reason = "it is held")] Permit),
}

/// The place of one connection.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    address: String,
    lost: CancellationToken,
    counted: Arc<Mutex<Counted>>,
}

impl Place {
    /// Of somebody at `address`, whoever that is.
    pub(crate) fn of_stranger(strangers: &Strangers, address: IpAddr) -> Self {
        let seat = strangers.seat(address);
        let (address, lost) = (party(address).to_string(), seat.lost().clone());
        Self { address, lost, counted: Arc::new(Mutex::new(Counted::Stranger(seat))) }
    }

    /// Of a caller who is known by the way of coming.
    pub(crate) fn of_known(permit: Permit) -> Self {
        let counted = Arc::new(Mutex::new(Counted::Known(permit)));
        Self { address: String::new(), lost: CancellationToken::new(), counted }
    }

    /// The address of the other side, as far as it tells parties apart.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Comes when a newer stranger has the place of this one.
    pub(crate) async fn lost(&self) {
        self.lost.cancelled().await;
    }

    /// Counts the connection among those of a caller who is known, from the first time on.
    pub(crate) fn belongs_to(&self, caller: &Caller, connections: &Budget) -> Result<(), Full> {
        let mut counted = self.counted.lock().unwrap_or_else(PoisonError::into_inner);
        if let Counted::Stranger(_) = *counted {
            *counted = Counted::Known(connections.take(caller)?);
        }
        Ok(())
    }
}
