//! Decides what happens to one DNS query: answer from the table, forward, or ignore. Pure: bytes in, bytes out.

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{DNSClass, RData, Record, RecordType, rdata::A},
};

use super::{DnsTable, below_zone, canonical};

/// Every resolver accepts this much over UDP.
const UDP_PAYLOAD_BYTES_MIN: u16 = 512;
/// The size that we advertise and the most that we send: no fragments on any common path.
const UDP_PAYLOAD_BYTES_MAX: u16 = 1232;
const HEADER_BYTES: usize = 12;

/// What to do with a query.
#[derive(Debug)]
pub(crate) enum Decision {
    /// Send these bytes back.
    Reply(Vec<u8>),
    /// Ask an upstream; the request is kept for an error answer.
    Forward(Box<Request>),
    /// Not a query: answering it could make two servers talk forever.
    Ignore,
}

/// A query that was understood.
#[derive(Debug)]
pub(crate) struct Request {
    message: Message,
}

/// `wire` is untrusted.
pub(crate) fn decide(wire: &[u8], table: &DnsTable, ttl_seconds: u32) -> Decision {
    let Ok(message) = Message::from_vec(wire) else { return malformed(wire) };
    if message.metadata.message_type == MessageType::Response {
        return Decision::Ignore;
    }
    let request = Request { message };
    if request.message.metadata.op_code != OpCode::Query {
        return reply(&request.error(ResponseCode::NotImp));
    }
    let [query] = request.message.queries.as_slice() else { return reply(&request.error(ResponseCode::FormErr)) };
    let name = canonical(&query.name().to_ascii());
    if !table.owns(&name) {
        return Decision::Forward(Box::new(request));
    }
    if !matches!(query.query_class(), DNSClass::IN | DNSClass::ANY) {
        return reply(&request.error(ResponseCode::Refused));
    }
    reply(&request.answer_from(&name, table, ttl_seconds))
}

impl Request {
    /// An empty answer with the code.
    pub(crate) fn error(&self, code: ResponseCode) -> Message {
        let asked = &self.message.metadata;
        let mut answer = Message::response(asked.id, asked.op_code);
        answer.metadata.recursion_desired = asked.recursion_desired;
        answer.metadata.recursion_available = true;
        answer.metadata.response_code = code;
        answer.add_queries(self.message.queries.iter().cloned());
        if self.message.edns.is_some() {
            let mut edns = Edns::new();
            edns.set_max_payload(UDP_PAYLOAD_BYTES_MAX);
            answer.set_edns(edns);
        }
        answer
    }

    /// The answer when nobody else can be asked.
    pub(crate) fn without_upstreams(&self) -> Message {
        let is_below = |query: &Query| below_zone(&canonical(&query.name().to_ascii())).is_some();
        let code =
            if self.message.queries.iter().any(is_below) { ResponseCode::NXDomain } else { ResponseCode::ServFail };
        self.error(code)
    }

    /// The answer that makes a client ask again over TCP.
    pub(crate) fn truncated(&self) -> Message {
        let mut answer = self.error(ResponseCode::NoError);
        answer.metadata.truncation = true;
        answer
    }

    /// The most that this client accepts over UDP. Our own answers do not use larger sizes, but an upstream has already
    /// chosen its size by the client's request, so its answers pass.
    pub(crate) fn udp_payload_bytes(&self) -> usize {
        usize::from(self.message.max_payload().max(UDP_PAYLOAD_BYTES_MIN))
    }

    fn answer_from(&self, name: &str, table: &DnsTable, ttl_seconds: u32) -> Message {
        let code = if table.exists(name) { ResponseCode::NoError } else { ResponseCode::NXDomain };
        let mut answer = self.error(code);
        answer.metadata.authoritative = true;
        for query in &self.message.queries {
            if let (Some(ip), RecordType::A | RecordType::ANY) = (table.get(name), query.query_type()) {
                answer.add_answer(Record::from_rdata(query.name().clone(), ttl_seconds, RData::A(A(ip))));
            }
        }
        answer
    }
}

/// The bytes of an answer; `None` if it cannot be written, which is no reason to stop serving.
pub(crate) fn encode(answer: &Message) -> Option<Vec<u8>> {
    answer.to_vec().inspect_err(|error| tracing::debug!(%error, "DNS answer not encoded")).ok()
}

fn reply(answer: &Message) -> Decision {
    encode(answer).map_or(Decision::Ignore, Decision::Reply)
}

/// A readable header deserves an error; anything less does not.
fn malformed(wire: &[u8]) -> Decision {
    match wire.get(..HEADER_BYTES) {
        Some(header) if header[2] & 0x80 == 0 => {
            let id = u16::from_be_bytes([header[0], header[1]]);
            reply(&Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
        }
        _ => Decision::Ignore,
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::rr::Name;
    use proptest::prelude::*;

    use super::*;

    const WEB: Ipv4Addr = Ipv4Addr::new(10, 89, 0, 7);

    fn table() -> DnsTable {
        [("web.shop.internal".to_owned(), WEB)].into_iter().collect()
    }

    fn query(name: &str, kind: RecordType) -> Message {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).expect("a literal name"), kind));
        message
    }

    fn ask(message: &Message) -> Option<Message> {
        match decide(&message.to_vec().expect("encodes"), &table(), 5) {
            Decision::Reply(bytes) => Some(Message::from_vec(&bytes).expect("our answers decode")),
            _ => None,
        }
    }

    fn answer(name: &str, kind: RecordType) -> (ResponseCode, Vec<RData>) {
        let answer = ask(&query(name, kind)).expect("answered from the table");
        assert_eq!((answer.metadata.id, answer.queries.len()), (7, 1));
        (answer.metadata.response_code, answer.answers.into_iter().map(|record| record.data).collect())
    }

    #[test]
    fn known_names_have_an_address_in_any_case() {
        let address = vec![RData::A(A(WEB))];
        assert_eq!(answer("web.shop.internal.", RecordType::A), (ResponseCode::NoError, address.clone()));
        assert_eq!(answer("WEB.Shop.INTERNAL.", RecordType::A), (ResponseCode::NoError, address));
    }

    #[test]
    fn other_types_of_known_names_and_parents_are_empty_not_denied() {
        let empty = (ResponseCode::NoError, vec![]);
        assert_eq!(answer("web.shop.internal.", RecordType::AAAA), empty);
        assert_eq!(answer("shop.internal.", RecordType::A), empty);
        assert_eq!(answer("internal.", RecordType::NS), empty);
    }

    #[test]
    fn unknown_names_of_a_namespace_are_denied_and_others_forwarded() {
        for name in ["api.shop.internal.", "x.web.shop.internal.", "_http._tcp.web.SHOP.internal."] {
            assert_eq!(answer(name, RecordType::A), (ResponseCode::NXDomain, vec![]), "{name}");
        }
        let others = ["db.corp.internal.", "metadata.google.internal.", "web.internal.", "web.shop.internal.corp."];
        for name in ["example.com.", "notinternal.", "xshop.internal.", "web.", "."].into_iter().chain(others) {
            assert!(ask(&query(name, RecordType::A)).is_none(), "{name}");
        }
    }

    #[test]
    fn odd_queries_get_the_right_code() {
        let code = |message: &Message| ask(message).map(|answer| answer.metadata.response_code);
        let mut none = query("web.shop.internal.", RecordType::A);
        none.queries.clear();
        assert_eq!(code(&none), Some(ResponseCode::FormErr));
        let mut status = query("web.shop.internal.", RecordType::A);
        status.metadata.op_code = OpCode::Status;
        assert_eq!(code(&status), Some(ResponseCode::NotImp));
        let mut chaos = query("web.shop.internal.", RecordType::A);
        chaos.queries[0].set_query_class(DNSClass::CH);
        assert_eq!(code(&chaos), Some(ResponseCode::Refused));
        let response = query("web.shop.internal.", RecordType::A).into_response();
        assert_eq!(code(&response), None);
    }

    #[test]
    fn edns_is_answered_with_edns() {
        let mut message = query("web.shop.internal.", RecordType::A);
        let mut edns = Edns::new();
        edns.set_max_payload(4096);
        message.set_edns(edns);
        assert!(ask(&message).expect("answered").edns.is_some());
        assert!(ask(&query("web.shop.internal.", RecordType::A)).expect("answered").edns.is_none());
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(wire in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = decide(&wire, &table(), 5);
        }

        #[test]
        fn damaged_queries_never_panic_and_keep_the_id(at in 2usize..36, value: u8, cut in 12usize..40) {
            let mut wire = query("web.shop.internal.", RecordType::A).to_vec().expect("encodes");
            if let Some(byte) = wire.get_mut(at) {
                *byte = value;
            }
            wire.truncate(cut);
            if let Decision::Reply(bytes) = decide(&wire, &table(), 5) {
                prop_assert_eq!(&bytes[..2], &wire[..2]);
                prop_assert!(bytes.len() <= usize::from(UDP_PAYLOAD_BYTES_MIN));
            }
        }
    }
}
