//! How often a session's user may ask, and how much a conversation and an address may carry, on one core.

use super::addresses::AddressKey;
use super::buckets::BucketTable;
use super::places::Weight;
use super::rate::Rate;
use wire_protocol::error::RequestError;
use wire_protocol::ids::{ConversationId, UserId};
use wire_protocol::v1::{ErrorCode, client_frame};

/// Users, and as many conversations, that one core remembers: 25 bytes each, below 1.7 MiB for each table when all
/// are in use. Sixty thousand that have just asked are far more than a core can serve.
pub const ASKING_KEYS_MAX: usize = 56 * 1_024;
/// Tokens that a request takes which reads many rows.
pub const HEAVY_COST: u32 = 5;

/// Rates of requests; `None`: without a limit.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RequestLimits {
    /// Messages of one user.
    pub sends_per_user: Option<Rate>,
    /// Other requests of one user; a heavy one counts as [`HEAVY_COST`].
    pub requests_per_user: Option<Rate>,
    /// Messages in one conversation, whoever sends them.
    pub sends_per_conversation: Option<Rate>,
    /// Requests of any kind from one address.
    pub requests_per_address: Option<Rate>,
}

/// What a request would draw from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Whose.
    pub user: UserId,
    /// From where.
    pub address: AddressKey,
    /// What it is.
    pub what: What,
}

/// Kinds of requests that are limited apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum What {
    /// A message.
    Send(ConversationId),
    /// Anything else.
    Other(Weight),
    /// The end of a session is never in the way.
    LogOut,
}

impl What {
    /// What the body asks for. A message to what is no conversation is refused later anyway, and costs its sender.
    pub fn of(body: &client_frame::Body, weight: Weight) -> Self {
        match body {
            client_frame::Body::Send(send) => {
                Self::Send(ConversationId::from_slice(&send.conversation_id).unwrap_or_default())
            }
            client_frame::Body::LogOut(_) => Self::LogOut,
            _ => Self::Other(weight),
        }
    }
}

impl What {
    /// The conversation that a message is for.
    pub fn conversation(self) -> Option<ConversationId> {
        match self {
            Self::Send(conversation) => Some(conversation),
            Self::Other(_) | Self::LogOut => None,
        }
    }
}

/// Whose limit it was.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Culprit {
    /// The user's.
    User,
    /// The conversation's.
    Conversation,
    /// The address'.
    Address,
}

/// A request that came too soon.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Throttled {
    /// Whose limit.
    pub culprit: Culprit,
    /// Which.
    pub rate: Rate,
    /// When it may come again, in milliseconds from now.
    pub wait_ms: u32,
}

impl From<Throttled> for RequestError {
    fn from(throttled: Throttled) -> Self {
        let Throttled { culprit, rate, wait_ms } = throttled;
        let whose = match culprit {
            Culprit::User => "user",
            Culprit::Conversation => "conversation",
            Culprit::Address => "address",
        };
        RequestError::new(ErrorCode::ErrorThrottled, format!("{whose}: {rate}")).after_ms(wait_ms)
    }
}

/// The buckets of one core.
#[derive(Debug)]
pub struct RequestRates {
    sends_of_users: Option<BucketTable<UserId>>,
    requests_of_users: Option<BucketTable<UserId>>,
    conversations: Option<BucketTable<ConversationId>>,
    addresses: Option<BucketTable<AddressKey>>,
}

impl RequestRates {
    /// Nobody has asked.
    pub fn new(limits: RequestLimits) -> Self {
        Self {
            sends_of_users: limits.sends_per_user.map(|rate| BucketTable::new(rate, ASKING_KEYS_MAX)),
            requests_of_users: limits.requests_per_user.map(|rate| BucketTable::new(rate, ASKING_KEYS_MAX)),
            conversations: limits.sends_per_conversation.map(|rate| BucketTable::new(rate, ASKING_KEYS_MAX)),
            addresses: limits.requests_per_address.map(|rate| BucketTable::new(rate, ASKING_KEYS_MAX)),
        }
    }

    /// Takes the request's tokens: from each bucket, or from none. A benchmark's users, whom only its key lets in,
    /// are not limited: it measures the server.
    pub fn admit(&mut self, asked: Asked, now_ms: u64) -> Result<(), Throttled> {
        let Asked { user, address, what } = asked;
        if user.is_benchmark() || what == What::LogOut {
            return Ok(());
        }
        let (of_user, cost) = self.of_user(what);
        take(of_user, user, cost, now_ms).map_err(|refused| refused.of(Culprit::User))?;
        let taken = match take(&mut self.addresses, address, cost, now_ms) {
            Err(refused) => Err(refused.of(Culprit::Address)),
            Ok(()) => self.admit_to_conversation(asked, now_ms),
        };
        if taken.is_err() {
            give_back(self.of_user(what).0, &user, cost);
        }
        taken
    }

    fn admit_to_conversation(&mut self, asked: Asked, now_ms: u64) -> Result<(), Throttled> {
        let What::Send(conversation) = asked.what else { return Ok(()) };
        take(&mut self.conversations, conversation, 1, now_ms).map_err(|refused| {
            give_back(&mut self.addresses, &asked.address, 1);
            refused.of(Culprit::Conversation)
        })
    }

    /// A message was refused for its sender's fault, who may be no member: the conversation's share is its members'.
    pub fn not_sent(&mut self, user: UserId, conversation: ConversationId) {
        if !user.is_benchmark() {
            give_back(&mut self.conversations, &conversation, 1);
        }
    }

    /// Requests whose key found no place in a table, since the start.
    pub fn without_place(&self) -> u64 {
        let users = [&self.sends_of_users, &self.requests_of_users].into_iter().flatten();
        users.map(BucketTable::without_place).sum::<u64>()
            + self.conversations.as_ref().map_or(0, BucketTable::without_place)
            + self.addresses.as_ref().map_or(0, BucketTable::without_place)
    }

    /// The user's bucket for such a request, and how much it takes.
    fn of_user(&mut self, what: What) -> (&mut Option<BucketTable<UserId>>, u32) {
        match what {
            What::Send(_) => (&mut self.sends_of_users, 1),
            What::Other(Weight::Heavy) => (&mut self.requests_of_users, HEAVY_COST),
            What::Other(Weight::Light) | What::LogOut => (&mut self.requests_of_users, 1),
        }
    }
}

struct TooSoon {
    rate: Rate,
    wait_ms: u32,
}

impl TooSoon {
    fn of(self, culprit: Culprit) -> Throttled {
        Throttled { culprit, rate: self.rate, wait_ms: self.wait_ms }
    }
}

fn take<K: std::hash::Hash + Eq>(
    table: &mut Option<BucketTable<K>>,
    key: K,
    cost: u32,
    now_ms: u64,
) -> Result<(), TooSoon> {
    let Some(table) = table else { return Ok(()) };
    table.take(key, cost, now_ms).map_err(|wait_ms| TooSoon { rate: table.rate(), wait_ms })
}

fn give_back<K: std::hash::Hash + Eq>(table: &mut Option<BucketTable<K>>, key: &K, cost: u32) {
    if let Some(table) = table {
        table.give_back(key, cost);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::IpAddr;

    const LIMITS: RequestLimits = RequestLimits {
        sends_per_user: Some(Rate::per_second(10, 10)),
        requests_per_user: Some(Rate::per_second(10, 20)),
        sends_per_conversation: Some(Rate::per_second(10, 15)),
        requests_per_address: Some(Rate::per_second(10, 30)),
    };

    fn asked(user: u8, address: u8, what: What) -> Asked {
        Asked { user: UserId([user; 16]), address: IpAddr::from([192, 0, 2, address]).into(), what }
    }

    fn to(conversation: u8) -> What {
        What::Send(ConversationId([conversation; 16]))
    }

    /// How many of 100 are let in, and who refused the next.
    fn admitted(rates: &mut RequestRates, asked: Asked, now_ms: u64) -> (usize, Option<Culprit>) {
        let taken = (0..100).take_while(|_| rates.admit(asked, now_ms).is_ok()).count();
        (taken, rates.admit(asked, now_ms).err().map(|refused| refused.culprit))
    }

    #[test]
    fn each_limit_refuses_its_own() {
        let mut rates = RequestRates::new(LIMITS);
        assert_eq!(admitted(&mut rates, asked(1, 1, to(1)), 0), (10, Some(Culprit::User)));
        assert_eq!(admitted(&mut rates, asked(1, 1, to(2)), 0), (0, Some(Culprit::User)));
        assert_eq!(admitted(&mut rates, asked(2, 2, to(1)), 0), (5, Some(Culprit::Conversation)));
        assert_eq!(admitted(&mut rates, asked(3, 1, to(3)), 0), (10, Some(Culprit::User)));
        assert_eq!(admitted(&mut rates, asked(4, 1, to(4)), 0), (10, Some(Culprit::User)));
        assert_eq!(admitted(&mut rates, asked(5, 1, to(5)), 0), (0, Some(Culprit::Address)));
        assert_eq!(admitted(&mut rates, asked(5, 5, to(5)), 0), (10, Some(Culprit::User)));
    }

    #[test]
    fn a_refusal_takes_from_no_bucket() {
        let mut rates = RequestRates::new(LIMITS);
        // A full conversation takes nothing of the user, nor of the address.
        assert_eq!(admitted(&mut rates, asked(1, 1, to(1)), 0).0, 10);
        assert_eq!(admitted(&mut rates, asked(2, 2, to(1)), 0), (5, Some(Culprit::Conversation)));
        assert_eq!(admitted(&mut rates, asked(2, 2, to(2)), 0), (5, Some(Culprit::User)));
        assert_eq!(admitted(&mut rates, asked(3, 2, to(3)), 0).0, 10);
        // Twenty of this address are spent; a user that it refuses keeps its own.
        assert_eq!(admitted(&mut rates, asked(4, 2, to(4)), 0).0, 10);
        assert_eq!(admitted(&mut rates, asked(5, 2, to(5)), 0), (0, Some(Culprit::Address)));
        assert_eq!(admitted(&mut rates, asked(5, 6, to(5)), 0), (10, Some(Culprit::User)));
    }

    #[test]
    fn heavy_requests_cost_more_and_log_out_nothing() {
        let mut rates = RequestRates::new(LIMITS);
        assert_eq!(
            admitted(&mut rates, asked(1, 1, What::Other(Weight::Heavy)), 0),
            (4, Some(Culprit::User))
        );
        assert_eq!(
            admitted(&mut rates, asked(2, 2, What::Other(Weight::Light)), 0),
            (20, Some(Culprit::User))
        );
        assert_eq!(admitted(&mut rates, asked(2, 2, What::LogOut), 0), (100, None));
        assert_eq!(admitted(&mut rates, asked(2, 2, to(1)), 0).0, 10, "messages have a bucket of their own");
    }

    #[test]
    fn strangers_do_not_use_up_a_conversation() {
        let mut rates = RequestRates::new(LIMITS);
        for stranger in 10..60 {
            for _ in 0..10 {
                let asked = asked(stranger, stranger, to(1));
                rates.admit(asked, 0).expect("let in");
                rates.not_sent(asked.user, ConversationId([1; 16]));
            }
        }
        assert_eq!(admitted(&mut rates, asked(1, 1, to(1)), 0).0, 10);
    }

    #[test]
    fn a_benchmark_is_not_limited_and_nothing_is_without_limits() {
        let mut rates = RequestRates::new(LIMITS);
        let bench = Asked { user: UserId(*b"rl-bench\0\0\0\0\0\0\0\x07"), ..asked(1, 1, to(1)) };
        assert_eq!(admitted(&mut rates, bench, 0), (100, None));
        rates.not_sent(bench.user, ConversationId([1; 16]));
        let mut rates = RequestRates::new(RequestLimits::default());
        assert_eq!(admitted(&mut rates, asked(1, 1, to(1)), 0), (100, None));
    }

    #[test]
    fn a_refusal_names_culprit_rate_and_time() {
        let mut rates = RequestRates::new(LIMITS);
        assert_eq!(admitted(&mut rates, asked(1, 1, to(1)), 0).0, 10);
        let error = RequestError::from(rates.admit(asked(1, 1, to(1)), 0).expect_err("throttled"));
        assert_eq!((error.code, error.retry_after_ms), (ErrorCode::ErrorThrottled, 100));
        assert_eq!(error.detail, "user: 10 per second, burst 10");
        assert!(error.to_wire().retryable);
    }
}
