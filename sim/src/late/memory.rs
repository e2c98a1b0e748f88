//! What was really sent: some of it is kept, to be sent again.

use std::collections::BTreeMap;

use bytes::Bytes;
use proto::wire;
use proto::wire::request::Call;
use simhost::net::Sent;
use simhost::{HostId, Stream};

use crate::tap::places::Places;

/// Requests of a kind that are kept; then a new one takes the place of an old one, drawn.
const KEPT: usize = 48;
/// Writes whose payload has not come.
const COMING_MAX: usize = 128;

/// A request as it was sent.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    /// What was asked for.
    pub(super) call: Call,
    /// What followed.
    pub(super) payload: Vec<Bytes>,
    /// Who was asked.
    pub(super) to: HostId,
}

/// Some of what was sent.
pub(super) struct Memory {
    draws: Stream,
    writes: Vec<Recorded>,
    commands: Vec<Recorded>,
    reports: Vec<Recorded>,
    /// Writes on connections and streams, and how many bytes of them are still to come.
    coming: BTreeMap<(u64, u64), (Recorded, u64)>,
}

impl Memory {
    /// Nothing yet.
    pub(super) fn new(draws: Stream) -> Self {
        Self { draws, writes: Vec::new(), commands: Vec::new(), reports: Vec::new(), coming: BTreeMap::new() }
    }

    /// Somebody asks for something; `payload_bytes` follow.
    pub(super) fn request(&mut self, sent: Sent<'_>, call: &Call, payload_bytes: u64) {
        let recorded = || Recorded { call: call.clone(), payload: Vec::new(), to: sent.to };
        match call {
            Call::WriteShard(_) => {
                self.coming.insert((sent.connection, sent.stream), (recorded(), payload_bytes));
                if self.coming.len() > COMING_MAX {
                    // Of the oldest connection; the rest of it may never come.
                    self.coming.pop_first();
                }
            }
            Call::CommitObject(_) | Call::DeleteObject(_) => {
                keep(&self.draws, &mut self.commands, recorded())
            }
            Call::ReportWork(_) => keep(&self.draws, &mut self.reports, recorded()),
            _ => {}
        }
    }

    /// A piece of what follows.
    pub(super) fn payload(&mut self, sent: Sent<'_>) {
        let at = (sent.connection, sent.stream);
        let Some((write, left)) = self.coming.get_mut(&at) else { return };
        write.payload.push(sent.bytes.clone());
        *left = left.saturating_sub(u64::try_from(sent.bytes.len()).unwrap_or(u64::MAX));
        if *left == 0
            && let Some((write, _)) = self.coming.remove(&at)
        {
            keep(&self.draws, &mut self.writes, write);
        }
    }

    /// A group that was written to.
    pub(super) fn written(&self, draws: &Stream) -> Option<u32> {
        match &draws.pick(&self.writes)?.call {
            Call::WriteShard(write) => write.shard.as_ref().map(|shard| shard.group),
            _ => None,
        }
    }

    /// Up to `most` requests that have become old: of one group, or of any. Commands may have become old
    /// for other reasons than the epochs of their groups.
    pub(super) fn old(
        &self,
        draws: &Stream,
        places: &Places,
        group: Option<u32>,
        most: usize,
    ) -> Vec<Recorded> {
        let is_old = |of: u32, epoch: u64| {
            group.is_none_or(|group| group == of) && places.newest(of).is_some_and(|newest| epoch < newest)
        };
        let writes = self.writes.iter().filter(|write| match &write.call {
            Call::WriteShard(call) => {
                call.shard.as_ref().is_some_and(|shard| is_old(shard.group, call.epoch))
            }
            _ => false,
        });
        let commands = self.commands.iter().filter(|command| match &command.call {
            Call::CommitObject(commit) => {
                group.is_none() || commit.extents.iter().any(|extent| is_old(extent.group, extent.epoch))
            }
            _ => group.is_none(),
        });
        let reports = self.reports.iter().filter_map(|report| {
            let Call::ReportWork(call) = &report.call else { return None };
            let old = old_part(call, |of, slot, epoch| {
                let since = usize::try_from(slot).ok().and_then(|slot| Some(places.now(of).get(slot)?.since));
                is_old(of, epoch) && since.is_some_and(|since| epoch < since)
            })?;
            Some(Recorded { call: Call::ReportWork(old), ..report.clone() })
        });
        let mut all: Vec<Recorded> = writes.chain(commands).cloned().chain(reports).collect();
        draws.shuffle(&mut all);
        all.truncate(most);
        all
    }
}

fn keep(draws: &Stream, kept: &mut Vec<Recorded>, new: Recorded) {
    if kept.len() < KEPT {
        kept.push(new);
    } else if let Some(place) = kept.get_mut(draws.index(KEPT)) {
        *place = new;
    }
}

/// What of a report is about slots that have moved since. Reports without an epoch are left out: nothing
/// tells them from new ones, and nothing needs to.
fn old_part(report: &wire::ReportWork, is_old: impl Fn(u32, u32, u64) -> bool) -> Option<wire::ReportWork> {
    let slot = |item: &&wire::SlotFilled| is_old(item.group, item.slot, item.epoch);
    let filled: Vec<_> = report.filled.iter().filter(slot).cloned().collect();
    let whole = report.rebuilt.iter().filter(|item| is_old(item.group, item.slot, item.epoch));
    let rebuilt: Vec<_> = whole.cloned().collect();
    let whole = report.dropped.iter().filter(|item| item.extent.is_empty());
    let dropped: Vec<_> = whole.filter(|item| is_old(item.group, item.slot, item.epoch)).cloned().collect();
    let any = !filled.is_empty() || !rebuilt.is_empty() || !dropped.is_empty();
    any.then(|| wire::ReportWork { node: report.node, filled, rebuilt, dropped, ..Default::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a report only what is old is sent again, and nothing of one that has nothing old.
    #[test]
    fn reports_are_cut() {
        let filled = |slot| wire::SlotFilled { slot, ..Default::default() };
        let report = wire::ReportWork { node: 3, filled: vec![filled(0), filled(1)], ..Default::default() };
        let cut = old_part(&report, |_, slot, _| slot == 1);
        assert_eq!(cut, Some(wire::ReportWork { node: 3, filled: vec![filled(1)], ..Default::default() }));
        assert_eq!(old_part(&report, |_, _, _| false), None);
    }

    /// Memory is bounded, and what comes last is not always what is lost.
    #[test]
    fn memory_is_bounded() {
        let (draws, mut kept) = (Stream::new(1), Vec::new());
        for number in 0..1_000 {
            let call = Call::DeleteObject(wire::DeleteObject { key: vec![1].into(), ..Default::default() });
            keep(&draws, &mut kept, Recorded { call, payload: Vec::new(), to: HostId(number) });
        }
        assert_eq!(kept.len(), KEPT);
        assert!(kept.iter().any(|recorded| recorded.to.0 > 900));
    }
}
