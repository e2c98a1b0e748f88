//! What was done to a device, and what a power cut could have left of it.
//!
//! A device has a cache. A flush that has ended made durable what was written before it began; of what was written
//! since, any part may be there and any may not, in any order, and of a write that was under way some sectors only.
//! That is all that a device promises, and all that is assumed here.

use bytes::Bytes;

use super::Image;
use crate::Random;

/// The file systems' own superblocks lie here; they trust the device to write one whole.
const PAGE: u64 = 4096;

/// One call of the kernel.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes came to the device.
    Write {
        /// Where.
        offset: u64,
        /// Which.
        data: Bytes,
    },
    /// A flush ended.
    Flush {
        /// How many events there were when it began.
        begun: usize,
    },
}

/// A device's beginning and what came after it. A position is a number of events.
#[derive(Clone, Debug)]
pub struct Trace {
    start: Image,
    events: Vec<Event>,
}

/// A power cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// So many events took place.
    pub at: usize,
    /// Flushes from this position on do nothing; that of an honest disk is the end of the trace.
    pub lies_from: usize,
    /// Of what need not be there, so much is.
    pub kept_percent: u64,
    /// What is written wholly or not at all: 512 or 4096.
    pub sector_bytes: u64,
}

impl Trace {
    /// Of a device that began as `start`.
    pub fn new(start: Image, events: Vec<Event>) -> Self {
        Self { start, events }
    }

    /// How many events there are.
    pub fn end(&self) -> usize {
        self.events.len()
    }

    /// The positions just before a flush ends: the host waits for it, and has nothing yet.
    pub fn flushes(&self) -> Vec<usize> {
        let flushes = self.events.iter().enumerate();
        flushes.filter(|(_, event)| matches!(event, Event::Flush { .. })).map(|(at, _)| at).collect()
    }

    /// Bytes that were written.
    pub fn written_bytes(&self) -> u64 {
        let bytes = |event: &Event| match event {
            Event::Write { data, .. } => data.len() as u64,
            Event::Flush { .. } => 0,
        };
        self.events.iter().map(bytes).sum()
    }

    /// Everything before this position is durable at the cut.
    pub fn durable(&self, cut: &Cut) -> usize {
        let begun = |event: &Event| match event {
            Event::Flush { begun } => Some(*begun),
            Event::Write { .. } => None,
        };
        let ended = self.events.get(..cut.at.min(cut.lies_from)).unwrap_or_default();
        ended.iter().filter_map(begun).max().unwrap_or(0)
    }
}

/// Makes images of cuts; quickest when they are asked for in the order of their positions.
pub struct Cutter<'a> {
    trace: &'a Trace,
    /// With everything up to `solid_to`.
    solid: Image,
    solid_to: usize,
}

impl<'a> Cutter<'a> {
    /// For the cuts of this trace.
    pub fn new(trace: &'a Trace) -> Self {
        Self { trace, solid: trace.start.clone(), solid_to: 0 }
    }

    /// What this cut leaves, as chance has it.
    pub fn image(&mut self, cut: &Cut, random: &mut Random) -> Image {
        let durable = self.trace.durable(cut);
        if durable < self.solid_to {
            (self.solid, self.solid_to) = (self.trace.start.clone(), 0);
        }
        for event in &self.trace.events[self.solid_to..durable] {
            if let Event::Write { offset, data } = event {
                self.solid.write(*offset, data);
            }
        }
        self.solid_to = durable;
        let mut image = self.solid.clone();
        for event in &self.trace.events[durable..cut.at] {
            if let Event::Write { offset, data } = event
                && random.below(100) < cut.kept_percent
            {
                write_some(&mut image, *offset, data, cut, random);
            }
        }
        image
    }
}

/// A write that was in the cache when the power failed: mostly whole, now and then its beginning, or any of its sectors.
fn write_some(image: &mut Image, offset: u64, data: &[u8], cut: &Cut, random: &mut Random) {
    let sector = if offset < PAGE { PAGE } else { cut.sector_bytes };
    let (is_torn, is_cut_short) = (random.below(4) == 0, random.below(2) == 0);
    let mut done = 0;
    while done < data.len() {
        let to_boundary = sector - (offset + done as u64) % sector;
        let piece = usize::try_from(to_boundary).expect("below a page").min(data.len() - done);
        if !is_torn || random.below(2) == 0 {
            image.write(offset + done as u64, &data[done..done + piece]);
        } else if is_cut_short {
            return;
        }
        done += piece;
    }
}
