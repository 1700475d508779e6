//! Which key/value block holds what: reference counts, the tree of prefixes that can be used again, and what is given up for room.
//!
//! A block is *free*, *held* (by one or more sequences), or *idle*: held by nobody, but still in the tree, so that the next prompt with
//! the same beginning finds it. The tree's nodes are blocks; the path from a root spells the tokens. Only a node's last block may be
//! partly filled, and such a node has no children. Idle leaves are given up oldest first when room is needed.
//!
//! A sequence that holds a block of the tree holds all its ancestors, so whatever is idle can be given up, leaves first.
//! The bytes of the blocks are the backend's; nothing here touches them.

use crate::backend::{BLOCK_TOKENS, BlockId};
use crate::units::TokenId;

/// What is already computed of a prompt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Whole blocks from position 0 on.
    pub whole: Vec<BlockId>,
    /// A block that continues with this many (at least one) of the next tokens, then differs or ends: good for a copy.
    pub part: Option<(BlockId, usize)>,
}

impl Found {
    /// Positions covered.
    pub fn positions(&self) -> usize {
        self.whole.len() * BLOCK_TOKENS + self.part.map_or(0, |(_, n)| n)
    }

    /// Uses no more than the first `positions`, of those covered.
    pub fn cut(&mut self, positions: usize) {
        let (whole, rest) = (positions / BLOCK_TOKENS, positions % BLOCK_TOKENS);
        let next = self.whole.get(whole).copied().or(self.part.map(|(id, _)| id));
        self.part = next.filter(|_| rest > 0).map(|id| (id, rest));
        self.whole.truncate(whole);
    }
}

/// All blocks of one loaded model.
#[derive(Debug)]
pub struct Blocks {
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    /// Blocks of the tree that nobody holds.
    idle: usize,
    roots: Vec<BlockId>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Block {
    holders: u32,
    last_used: u64,
    node: Option<Node>,
}

#[derive(Debug)]
struct Node {
    parent: Option<BlockId>,
    tokens: Vec<TokenId>,
    children: Vec<BlockId>,
}

impl Blocks {
    pub fn new(count: usize) -> Self {
        let ids = (0..count).rev().map(|i| BlockId(u32::try_from(i).expect("fewer than 2^32 blocks")));
        Self { blocks: (0..count).map(|_| Block::default()).collect(), free: ids.collect(), idle: 0, roots: Vec::new(), clock: 0 }
    }

    pub fn total(&self) -> usize {
        self.blocks.len()
    }

    /// Blocks that [`Blocks::take`] can still give.
    pub fn available(&self) -> usize {
        self.free.len() + self.idle
    }

    /// Blocks kept only because they may be of use again.
    pub fn idle(&self) -> usize {
        self.idle
    }

    /// The longest computed beginning of `tokens`. Holds nothing: [`Blocks::hold`] before the next [`Blocks::take`].
    pub fn find(&self, tokens: &[TokenId]) -> Found {
        let mut found = Found::default();
        let mut parent = None;
        loop {
            let rest = &tokens[found.whole.len() * BLOCK_TOKENS..];
            let best = self.children(parent).iter().map(|&id| (id, common(&self.node(id).tokens, rest))).max_by_key(|&(_, n)| n);
            match best {
                Some((id, BLOCK_TOKENS)) => {
                    found.whole.push(id);
                    parent = Some(id);
                }
                Some((id, n)) if n > 0 => {
                    found.part = Some((id, n));
                    return found;
                }
                _ => return found,
            }
        }
    }

    /// A block for new positions, held once; gives up the idle leaf that was longest unused. `None`: all are held.
    pub fn take(&mut self) -> Option<BlockId> {
        if self.free.is_empty() {
            let oldest =
                self.blocks.iter().enumerate().filter(|(_, b)| b.holders == 0 && b.node.as_ref().is_some_and(|n| n.children.is_empty()));
            let (index, _) = oldest.min_by_key(|(_, b)| b.last_used)?;
            self.forget(BlockId(index as u32));
        }
        let id = self.free.pop()?;
        self.block(id).holders = 1;
        Some(id)
    }

    pub fn hold(&mut self, id: BlockId) {
        let block = self.block(id);
        block.holders += 1;
        if block.holders == 1 {
            self.idle -= 1;
        }
    }

    /// Lets go of one hold. What is in the tree stays there, idle; the rest is free again.
    pub fn release(&mut self, id: BlockId) {
        self.clock += 1;
        let clock = self.clock;
        let block = self.block(id);
        block.last_used = clock;
        block.holders -= 1;
        if block.holders == 0 {
            match block.node {
                Some(_) => self.idle += 1,
                None => self.free.push(id),
            }
        }
    }

    /// Enters a held block into the tree: it holds `tokens` and follows `parent`, a block of the tree that the caller holds too.
    /// When another block already says the same, the caller's hold moves to that one, which is answered.
    pub fn keep(&mut self, id: BlockId, parent: Option<BlockId>, tokens: &[TokenId]) -> BlockId {
        debug_assert!(!tokens.is_empty() && tokens.len() <= BLOCK_TOKENS && self.block(id).node.is_none());
        let siblings = self.children(parent).to_vec();
        if let Some(&twin) = siblings.iter().find(|&&s| self.node(s).tokens.starts_with(tokens)) {
            self.hold(twin);
            self.release(id);
            return twin;
        }
        for sibling in siblings {
            // A partly filled block that the new one continues is of no more use.
            if self.blocks[sibling.0 as usize].holders == 0 && tokens.starts_with(&self.node(sibling).tokens) {
                self.forget(sibling);
            }
        }
        self.block(id).node = Some(Node { parent, tokens: tokens.to_vec(), children: Vec::new() });
        self.children_mut(parent).push(id);
        id
    }

    /// Takes an idle leaf out of the tree.
    fn forget(&mut self, id: BlockId) {
        let node = self.block(id).node.take().expect("only blocks of the tree are forgotten");
        debug_assert!(node.children.is_empty());
        self.children_mut(node.parent).retain(|&c| c != id);
        self.idle -= 1;
        self.free.push(id);
    }

    fn block(&mut self, id: BlockId) -> &mut Block {
        &mut self.blocks[id.0 as usize]
    }

    fn node(&self, id: BlockId) -> &Node {
        self.blocks[id.0 as usize].node.as_ref().expect("the block is in the tree")
    }

    fn children(&self, parent: Option<BlockId>) -> &[BlockId] {
        parent.map_or(&self.roots, |p| &self.node(p).children)
    }

    fn children_mut(&mut self, parent: Option<BlockId>) -> &mut Vec<BlockId> {
        match parent {
            None => &mut self.roots,
            Some(p) => &mut self.block(p).node.as_mut().expect("the parent is in the tree").children,
        }
    }
}

/// How many tokens two lists share from their beginning.
fn common(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(range: std::ops::Range<u32>) -> Vec<TokenId> {
        range.map(TokenId).collect()
    }

    /// A finished sequence over `tokens`: its blocks stay in the tree, idle.
    fn finished(blocks: &mut Blocks, tokens: &[TokenId]) -> Vec<BlockId> {
        let mut held = Vec::new();
        for part in tokens.chunks(BLOCK_TOKENS) {
            let id = blocks.take().unwrap();
            held.push(blocks.keep(id, held.last().copied(), part));
        }
        held.iter().for_each(|&b| blocks.release(b));
        held
    }

    #[test]
    fn a_prefix_is_found_to_the_token() {
        let mut blocks = Blocks::new(8);
        let kept = finished(&mut blocks, &ids(0..100));
        let found = blocks.find(&ids(0..200));
        assert_eq!(found, Found { whole: vec![kept[0]], part: Some((kept[1], 36)) });
        assert_eq!(found.positions(), 100);
        assert_eq!(blocks.find(&ids(0..64)).positions(), 64);
        assert_eq!(blocks.find(&ids(0..63)), Found { whole: vec![], part: Some((kept[0], 63)) });
        let mut parted = ids(0..100);
        parted[70] = TokenId(999);
        assert_eq!(blocks.find(&parted), Found { whole: vec![kept[0]], part: Some((kept[1], 6)) });
        assert_eq!(blocks.find(&ids(1..100)), Found::default());
    }

    #[test]
    fn oldest_leaf_is_given_up_first_and_never_a_held_block() {
        let mut blocks = Blocks::new(4);
        let old = finished(&mut blocks, &ids(0..128));
        let young = finished(&mut blocks, &ids(500..628));
        assert_eq!(blocks.available(), 4);
        blocks.hold(old[0]);
        assert_eq!(blocks.take(), Some(old[1]));
        assert_eq!(blocks.take(), Some(young[1]), "a parent waits until its children are gone");
        assert_eq!(blocks.take(), Some(young[0]));
        assert_eq!(blocks.take(), None);
        assert_eq!(blocks.find(&ids(0..128)).positions(), 64);
    }

    #[test]
    fn equal_blocks_become_one() {
        let mut blocks = Blocks::new(4);
        let (a, b) = (blocks.take().unwrap(), blocks.take().unwrap());
        assert_eq!(blocks.keep(a, None, &ids(0..64)), a);
        assert_eq!(blocks.keep(b, None, &ids(0..64)), a);
        assert_eq!(blocks.available(), 3);
        blocks.release(a);
        assert_eq!((blocks.available(), blocks.idle()), (3, 0), "the other sequence still holds it");
        blocks.release(a);
        assert_eq!((blocks.available(), blocks.idle()), (4, 1));
    }

    #[test]
    fn a_longer_tail_replaces_the_shorter() {
        let mut blocks = Blocks::new(4);
        finished(&mut blocks, &ids(0..10));
        finished(&mut blocks, &ids(0..30));
        assert_eq!(blocks.idle(), 1);
        assert_eq!(blocks.find(&ids(0..64)).positions(), 30);
        finished(&mut blocks, &ids(0..20));
        assert_eq!((blocks.idle(), blocks.find(&ids(0..64)).positions()), (1, 30));
    }
}
