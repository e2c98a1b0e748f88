//! Where the bytes of a put come from.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use client::{Source, SourceError};
use env::Clock;

use super::choice::Manner;
use crate::history::ValueId;
use crate::history::content::{Content, content};

/// Set when a source has given everything and said so: from then on, and not before, the put may be
/// committed.
pub(super) type Ended = Arc<AtomicBool>;

/// Gives the bytes of a value in some manner.
pub(super) struct ValueSource<C> {
    content: Content,
    clock: C,
    given: u64,
    piece_max: usize,
    pauses: u32,
    pause: Duration,
    stalls_at: Option<u64>,
    fails_at: Option<u64>,
    ended: Ended,
}

impl<C: Clock> ValueSource<C> {
    pub(super) fn new(value: ValueId, size: u64, manner: Manner, clock: C) -> Self {
        let (piece_max, pauses, pause) = match manner {
            Manner::Pieces(piece) => (piece, 0, Duration::ZERO),
            Manner::Slow { piece, pauses, pause } => (piece, pauses, pause),
            Manner::Stalls { pause, .. } => (usize::MAX, 0, pause),
            Manner::Plain | Manner::Fails(_) | Manner::GivenUp(_) => (usize::MAX, 0, Duration::ZERO),
        };
        let stalls_at = match manner {
            // Half of them behind the last byte.
            Manner::Stalls { first, .. } => Some(u64::try_from(first).unwrap_or(u64::MAX).min(size)),
            _ => None,
        };
        let fails_at = match manner {
            Manner::Fails(at) => Some(at),
            _ => None,
        };
        let ended = Ended::default();
        Self {
            content: content(value, size),
            clock,
            given: 0,
            piece_max,
            pauses,
            pause,
            stalls_at,
            fails_at,
            ended,
        }
    }

    /// Tells later whether all was given.
    pub(super) fn ended(&self) -> Ended {
        self.ended.clone()
    }
}

impl Manner {
    /// For how long nothing comes of the source, which the put has to wait for.
    pub(super) fn stalls(self) -> Duration {
        match self {
            Self::Stalls { pause, .. } => pause,
            _ => Duration::ZERO,
        }
    }

    /// How long the source takes by itself, at most.
    pub(super) fn takes(self) -> Duration {
        match self {
            Self::Slow { pauses, pause, .. } => pause.saturating_mul(pauses),
            Self::Stalls { pause, .. } => pause,
            _ => Duration::ZERO,
        }
    }
}

impl<C: Clock> Source for ValueSource<C> {
    async fn read(&mut self, max: usize) -> Result<Option<Bytes>, SourceError> {
        if self.pauses > 0 {
            self.pauses -= 1;
            self.clock.sleep(self.pause).await;
        }
        if self.stalls_at == Some(self.given) {
            self.stalls_at = None;
            self.clock.sleep(self.pause).await;
        }
        let fails = self.fails_at.map_or(u64::MAX, |at| at.saturating_sub(self.given));
        if fails == 0 {
            return Err(SourceError::new("the source fails on purpose"));
        }
        let until = fails.min(self.stalls_at.map_or(u64::MAX, |at| at.saturating_sub(self.given)));
        let max = max.min(self.piece_max.max(1)).min(usize::try_from(until).unwrap_or(usize::MAX));
        let piece = self.content.next_piece(max);
        match &piece {
            Some(piece) => self.given += u64::try_from(piece.len()).unwrap_or(u64::MAX),
            None => self.ended.store(true, Ordering::Relaxed),
        }
        Ok(piece)
    }
}
