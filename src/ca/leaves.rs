//! Leaves of services beside those that enrolment and renewal give out: on the word of the caller, for an
//! application behind a sidecar, and with a key for an application that speaks Connect itself.

use std::time::SystemTime;

use rcgen::KeyPair;
use zeroize::{Zeroize, Zeroizing};

use super::issue::{self, Names, Request};
use super::{Ca, CaError, Event, Leaf, ServiceMaterial, pem};
use crate::model::{Serial, ServiceName, SpiffeId};

impl Ca {
    /// Signs a leaf for `id` over the public key of a PKCS#10 request (DER), whose own signature must
    /// hold. Nothing else is taken from the request.
    ///
    /// # Errors
    /// [`CaError::Request`] when the request is not usable, [`CaError::Signing`] for the rest, such as
    /// an `id` of another trust domain.
    pub fn issue(&self, id: &SpiffeId, csr: &[u8]) -> Result<Leaf, CaError> {
        let signed = |request: Request| self.sign(id, &request, issue::first_serial(request.key()));
        let leaf = Request::parse(csr).and_then(signed);
        self.tell(Event::Leaf { granted: leaf.is_ok() });
        leaf
    }

    /// Signs one more leaf for `id`, beside the one with the serial number `beside` (lower-case hex). It is
    /// of the same enrolment, so that a ban of that meets it, too, and cannot be renewed.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_beside(&self, id: &SpiffeId, beside: &str, csr: &[u8]) -> Result<Leaf, CaError> {
        let signed = |request: Request| {
            let own = issue::first_serial(request.key());
            let enrolment = Serial::parse(beside).map_or(own.enrolment, |serial| serial.enrolment);
            self.sign(id, &request, Serial { enrolment, ..own })
        };
        let leaf = Request::parse(csr).and_then(signed);
        self.tell(Event::Leaf { granted: leaf.is_ok() });
        leaf
    }

    /// A fresh key and certificate of a service. Whoever calls this hands out an identity.
    ///
    /// # Errors
    /// When the name cannot be part of an identity, or signing fails.
    pub fn service_material(&self, service: &ServiceName) -> Result<ServiceMaterial, CaError> {
        let id = self.service_id(service)?;
        let now = SystemTime::now();
        let state = self.state(now)?;
        let mut pair = KeyPair::generate()?;
        let ttl = state.leaf_ttl;
        let leaf = issue::leaf(&state.intermediate, &id, &pair, Names::IdentityOnly, ttl, now);
        let key = Zeroizing::new(pair.serialize_der());
        pair.zeroize();
        let key_pem = pem::sec1(&key)?;
        self.tell(Event::Leaf { granted: leaf.is_ok() });
        let leaf = leaf?;
        let chain_pem = leaf.chain.iter().map(|der| pem::encode("CERTIFICATE", der)).collect();
        Ok(ServiceMaterial { leaf, chain_pem, key_pem })
    }
}
