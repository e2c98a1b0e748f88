//! The simulator: whole clusters in one thread and in virtual time, under every fault we can think of.
//!
//! It runs exactly the production code of `meta`, `node` and `client` on the simulated hosts of
//! `simhost`, and checks the promises: durable, never wrong bytes, linearizable, heals by itself, stays
//! available. A seed decides everything; the same seed gives the same trace, always.
//!
//! Reading order: [`plan`] (what a seed means), [`run`] (the phases), [`cluster`] (what is built),
//! [`load`] (what clients do), [`nemesis`] (what goes wrong, and what may), [`late`] (who speaks too late),
//! [`oracle`] (what is true),
//! [`checkers`] (what must hold), [`history`] (linearizability), [`plants`] (bugs that must be found),
//! [`tap`] (what is said on the wire). docs/simulator.md tells how to replay a failure, and how to add a
//! fault, a workload and a checker.

pub mod checkers;
pub mod cluster;
pub mod history;
pub mod late;
pub mod load;
pub mod logs;
pub mod nemesis;
pub mod oracle;
pub mod plan;
pub mod plants;
pub mod probes;
pub mod process;
pub mod run;
pub mod scars;
pub mod speed;
pub mod tap;
#[cfg(test)]
mod testing;
pub mod verdict;
