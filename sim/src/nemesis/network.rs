//! The network: who does not hear whom, and how long it takes.

use simhost::net::Link;
use simhost::{Host, HostId};

use super::ailments::Ailment;
use super::strike::{Outcome, Strike};
use super::victims;

/// A cut lasts from here: connections survive the shortest.
const CUT_MS_MIN: u64 = 200;
/// … to here, in milliseconds.
const CUT_MS_MAX: u64 = 20_000;

/// Two halves that do not hear each other.
pub(super) fn partition(strike: &Strike<'_>) -> Outcome {
    let (here, there) = split(strike, &victims::everybody(strike.cluster));
    cut(strike, &here, &there, true)
}

/// One half does not hear the other, and is heard.
pub(super) fn partition_one_way(strike: &Strike<'_>) -> Outcome {
    let (here, there) = split(strike, &victims::everybody(strike.cluster));
    cut(strike, &here, &there, false)
}

/// The leader is cut off from the other metadata servers, or from everybody.
pub(super) fn isolate_leader(strike: &Strike<'_>) -> Outcome {
    let Some(leader) = victims::leader(strike.cluster) else { return Outcome::Nobody };
    let leader = leader.process.host().clone();
    let mut others: Vec<Host> = if strike.draws.chance(500_000) {
        victims::everybody(strike.cluster)
    } else {
        victims::metas(strike.cluster).iter().map(|meta| meta.process.host().clone()).collect()
    };
    others.retain(|host| host.id() != leader.id());
    cut(strike, &[leader], &others, strike.draws.chance(700_000))
}

/// A server is cut off from some of the others.
pub(super) fn isolate_some(strike: &Strike<'_>) -> Outcome {
    let everybody = victims::everybody(strike.cluster);
    let Some(one) = strike.pick(&everybody) else { return Outcome::Nobody };
    let (mut others, _) = split(strike, &everybody);
    others.retain(|host| host.id() != one.id());
    cut(strike, &[one], &others, strike.draws.chance(500_000))
}

/// All that a host sends or is sent takes longer.
pub(super) fn slow_links(strike: &Strike<'_>) -> Outcome {
    let everybody = victims::everybody(strike.cluster);
    let Some(one) = strike.pick(&everybody) else { return Outcome::Nobody };
    let extra_us = strike.draws.skewed(1_000, 3_000_000);
    let both = strike.draws.chance(700_000);
    let lasting = strike.lasting(CUT_MS_MIN, CUT_MS_MAX);
    let outcome =
        strike.hits(Some(&one), || format!("{extra_us} us further away for {lasting:?}, both ways: {both}"));
    let others: Vec<Host> = everybody.into_iter().filter(|host| host.id() != one.id()).collect();
    strike.ail(links(&[one], &others, both, Link::Slow { extra_us }), lasting);
    outcome
}

/// Connections between some hosts break.
pub(super) fn break_connections(strike: &Strike<'_>) -> Outcome {
    let everybody = victims::everybody(strike.cluster);
    let Some(one) = strike.pick(&everybody) else { return Outcome::Nobody };
    let (others, _) = split(strike, &everybody);
    let outcome = strike.hits(Some(&one), || format!("connections to {} break", names(&others)));
    for other in others.iter().filter(|other| other.id() != one.id()) {
        strike.cluster.world.network().break_connections(one.id(), other.id());
    }
    outcome
}

/// Many messages take longer, between all hosts.
pub(super) fn latency_spikes(strike: &Strike<'_>) -> Outcome {
    let (ppm, us_max) = (strike.ppm(1_000, 300_000), strike.draws.skewed(10_000, 5_000_000));
    let lasting = strike.lasting(CUT_MS_MIN, CUT_MS_MAX);
    let outcome =
        strike.hits(None, || format!("{ppm} ppm of all messages up to {us_max} us late for {lasting:?}"));
    strike.ail(vec![Ailment::Spikes { ppm, us_max }], lasting);
    outcome
}

/// A random half, and the others. Neither is empty when there are two or more.
fn split(strike: &Strike<'_>, hosts: &[Host]) -> (Vec<Host>, Vec<Host>) {
    let mut hosts = hosts.to_vec();
    strike.draws.shuffle(&mut hosts);
    let here = 1 + strike.draws.index(hosts.len().saturating_sub(1));
    let there = hosts.split_off(here.min(hosts.len()));
    (hosts, there)
}

/// What `here` sends does not reach `there`; nor the other way when `both`.
fn cut(strike: &Strike<'_>, here: &[Host], there: &[Host], both: bool) -> Outcome {
    if here.is_empty() || there.is_empty() {
        return Outcome::Nobody;
    }
    let lasting = strike.lasting(CUT_MS_MIN, CUT_MS_MAX);
    let outcome = strike.hits(None, || {
        let way = if both { "<-/->" } else { "--/->" };
        format!("{} {way} {} for {lasting:?}", names(here), names(there))
    });
    strike.ail(links(here, there, both, Link::Cut), lasting);
    outcome
}

fn links(here: &[Host], there: &[Host], both: bool, link: Link) -> Vec<Ailment> {
    let mut all = Vec::new();
    for (from, to) in here.iter().flat_map(|from| there.iter().map(move |to| (from.id(), to.id()))) {
        let mut one_way = |from: HostId, to: HostId| all.push(Ailment::Link { from, to, link });
        one_way(from, to);
        if both {
            one_way(to, from);
        }
    }
    all
}

fn names(hosts: &[Host]) -> String {
    hosts.iter().map(Host::name).collect::<Vec<_>>().join(" ")
}
