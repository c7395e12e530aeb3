//! From an id to the shard that owns it, and to the link that leads to the shard's node.
//!
//! Where shards have one copy, the map is fixed for the life of the process; where they have several, it follows their
//! leaders. It knows nothing of sockets; `storage_client` owns the links.

use crate::worker::mailbox::ShardKey;
use wire_protocol::ids::{ShardId, name_slot};

/// Place of a storage node's link among the links of a core.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct LinkIndex(pub u16);

/// Which shard owns what, and which link leads there.
#[derive(Clone, Debug)]
pub struct Router {
    /// By shard.
    links: Vec<LinkIndex>,
    /// By shard: the term of the leader that is known; 0: none was heard of.
    terms: Vec<u64>,
    /// By shard: the leader that is known is away, and may come back restored from a backup, with terms of before.
    is_doubted: Vec<bool>,
    is_replicated: bool,
}

impl Router {
    /// Every shard behind one link: the embedded node.
    pub fn embedded(shard_count: u32) -> Self {
        assert!(shard_count > 0, "a fleet has at least one shard");
        Self::to(vec![LinkIndex(0); shard_count as usize])
    }

    /// `owners`: the shards of each node, in the order of the links. The configuration has made sure that every
    /// shard has one owner.
    pub fn nodes<'a>(shard_count: u32, owners: impl IntoIterator<Item = &'a [u32]>) -> Self {
        let mut links = vec![None; shard_count as usize];
        for (index, shards) in owners.into_iter().enumerate() {
            let link = LinkIndex(u16::try_from(index).expect("a fleet has fewer nodes than shards"));
            shards.iter().for_each(|&shard| links[shard as usize] = Some(link));
        }
        let owned = |link: Option<LinkIndex>| link.expect("the configuration gives every shard an owner");
        Self::to(links.into_iter().map(owned).collect())
    }

    /// Shards with several copies. Until a leader is heard of, any node is as good: it refuses by naming the leader.
    pub fn replicated(shard_count: u32, nodes: usize) -> Self {
        let link = |shard: u32| LinkIndex((shard as usize % nodes) as u16);
        Self { is_replicated: true, ..Self::to((0..shard_count).map(link).collect()) }
    }

    fn to(links: Vec<LinkIndex>) -> Self {
        let (terms, is_doubted) = (vec![0; links.len()], vec![false; links.len()]);
        Self { links, terms, is_doubted, is_replicated: false }
    }

    /// A node behind this link leads the shard; true if that is news. An older term is none, unless the leader of the newer
    /// one is doubted: see [`Self::doubt`].
    pub fn follow(&mut self, shard: ShardId, term: u64, link: LinkIndex) -> bool {
        let place = shard.0 as usize;
        let (Some(known), Some(leads)) = (self.terms.get_mut(place), self.links.get_mut(place)) else {
            return false;
        };
        let is_other = (term, link) != (*known, *leads);
        let is_doubted = std::mem::take(&mut self.is_doubted[place]);
        if !is_other || (term <= *known && !is_doubted) {
            return false;
        }
        *known = term;
        *leads = link;
        true
    }

    /// The node behind this link is away. Whatever is told next of the shards that it leads is believed: a fleet that is
    /// restored from a backup a second time begins with the terms that it had after the first. News that are older than that
    /// leader are found out by the next ones.
    pub fn doubt(&mut self, link: LinkIndex) {
        for (leads, is_doubted) in self.links.iter().zip(&mut self.is_doubted) {
            *is_doubted |= *leads == link;
        }
    }

    /// The term of the leader that is known; 0: none was heard of, or there is one copy.
    pub fn term(&self, shard: ShardId) -> u64 {
        self.terms[shard.0 as usize]
    }

    /// Links of shards whose leader is known: of those with one copy it always is.
    pub fn known_links(&self) -> impl Iterator<Item = LinkIndex> {
        let is_known = |(_, term): &(&LinkIndex, &u64)| !self.is_replicated || **term > 0;
        self.links.iter().zip(&self.terms).filter(is_known).map(|(link, _)| *link)
    }

    /// Shards of the fleet.
    pub fn shard_count(&self) -> u32 {
        self.links.len() as u32
    }

    /// The shard that owns `key`.
    pub fn shard(&self, key: &ShardKey) -> ShardId {
        let slot = match key {
            ShardKey::User(user) => user.slot(),
            ShardKey::Conversation(conversation) => conversation.slot(),
            ShardKey::Name(name) => name_slot(name),
        };
        slot.shard(self.shard_count())
    }

    /// The link that leads to `shard`.
    pub fn link(&self, shard: ShardId) -> LinkIndex {
        self.links[shard.0 as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire_protocol::ids::{ConversationId, UserId};

    #[test]
    fn every_key_has_the_shard_of_its_slot() {
        let router = Router::nodes(4, [&[0, 2][..], &[1, 3][..]]);
        for byte in 0..=255 {
            let (user, conversation) = (UserId([byte; 16]), ConversationId([byte; 16]));
            assert_eq!(router.shard(&ShardKey::User(user)), user.slot().shard(4));
            assert_eq!(router.shard(&ShardKey::Conversation(conversation)), conversation.slot().shard(4));
        }
        let name = ShardKey::Name("ada".into());
        assert_eq!(router.shard(&name), name_slot("ada").shard(4));
    }

    #[test]
    fn shards_lead_to_their_nodes() {
        let router = Router::nodes(4, [&[0, 2][..], &[1, 3][..]]);
        let links: Vec<u16> = (0..4).map(|shard| router.link(ShardId(shard)).0).collect();
        assert_eq!(links, [0, 1, 0, 1]);
        assert_eq!(Router::embedded(2).link(ShardId(1)), LinkIndex(0));
    }

    #[test]
    fn shards_with_several_copies_are_where_their_newest_leader_is() {
        let mut router = Router::replicated(4, 3);
        let links = |router: &Router| (0..4).map(|shard| router.link(ShardId(shard)).0).collect::<Vec<_>>();
        assert_eq!(links(&router), [0, 1, 2, 0]);
        assert_eq!(router.known_links().count(), 0);
        assert!(router.follow(ShardId(1), 5, LinkIndex(2)));
        assert!(!router.follow(ShardId(1), 5, LinkIndex(0)), "one leader a term");
        assert!(!router.follow(ShardId(1), 4, LinkIndex(0)), "news of before");
        assert!(router.follow(ShardId(1), 6, LinkIndex(0)));
        assert!(!router.follow(ShardId(9), 6, LinkIndex(0)), "there is no such shard");
        assert_eq!(links(&router), [0, 0, 2, 0]);
        assert_eq!(router.known_links().collect::<Vec<_>>(), [LinkIndex(0)]);
        assert_eq!(Router::embedded(2).known_links().count(), 2);
    }

    #[test]
    fn of_a_leader_that_is_away_older_news_are_believed() {
        let (mut router, shard) = (Router::replicated(1, 3), ShardId(0));
        assert!(router.follow(shard, 7, LinkIndex(2)));
        router.doubt(LinkIndex(1));
        assert!(!router.follow(shard, 6, LinkIndex(1)), "another one is away");
        router.doubt(LinkIndex(2));
        assert!(!router.follow(shard, 7, LinkIndex(2)), "it is back, and leads");
        assert!(!router.follow(shard, 6, LinkIndex(1)), "nor is it doubted any more");
        router.doubt(LinkIndex(2));
        assert!(router.follow(shard, 7, LinkIndex(0)), "restored, and another one won the same term");
        router.doubt(LinkIndex(0));
        assert!(router.follow(shard, 5, LinkIndex(1)));
        assert!(!router.follow(shard, 4, LinkIndex(2)));
        assert_eq!((router.link(shard), router.term(shard)), (LinkIndex(1), 5));
    }

    #[test]
    #[should_panic(expected = "every shard an owner")]
    fn a_shard_without_owner_is_our_own_mistake() {
        Router::nodes(2, [&[0][..]]);
    }
}
