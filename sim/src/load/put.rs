//! Puts.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use client::{Bucket, PutError, PutOptions, Receipt};
use env::{Clock, Env};
use simhost::SimEnv;

use super::choice::{Manner, key_name};
use super::outcome;
use super::source::ValueSource;
use super::verify::VALUE;
use super::worker::{Service, Worker, precondition};
use crate::history::{self, Condition, Op, Outcome, ValueId};
use crate::process::lock;

impl Worker {
    /// Puts a new value of `size` bytes, in a manner of its own.
    pub(super) async fn put(
        &self,
        bucket: &Bucket<SimEnv>,
        number: u64,
        size: u64,
        condition: Condition,
    ) -> Service {
        let key = key_name(number);
        let manner = self.choice.manner(&self.stream, size);
        let value = lock(&self.cluster.ledger).new_value();
        let source = ValueSource::new(value, size, manner, self.env.clock().clone());
        let ended = source.ended();
        let idle = self.timeout() + manner.stalls();
        let limit = self.limit(idle, size, size, manner.takes());
        let mut begun = self.begin(&key, Op::Put { value, size, condition }, limit);
        begun.fed_by(ended.clone());
        let options = PutOptions { timeout: Some(idle), ..self.put_options(value, size, condition) };
        let put = bucket.put(&key.name, source, options);
        let result = match manner {
            Manner::GivenUp(after) => match self.env.clock().timeout(after, put).await {
                Ok(result) => result,
                Err(env::Elapsed) => {
                    let has_begun = ended.load(Ordering::Relaxed);
                    self.cluster.world.probe(given_up(has_begun));
                    // Its end is told by how far its source has come.
                    drop(begun);
                    return Service::Reached;
                }
            },
            _ => put.await,
        };
        match result {
            Ok(receipt) => {
                self.check_receipt(number, value, size, manner, &receipt);
                begun.end(Outcome::Acknowledged(ledger_receipt(&receipt)));
                Service::Reached
            }
            Err(error) => {
                self.check_put_error(&error);
                self.failed(begun, outcome::of_put(&error), &error)
            }
        }
    }

    fn put_options(&self, value: ValueId, size: u64, condition: Condition) -> PutOptions {
        let size_hint = match self.stream.below(4) {
            0 => None,
            // Nothing breaks when it is wrong.
            1 => Some(self.stream.below(size.saturating_mul(2).saturating_add(1))),
            _ => Some(size),
        };
        PutOptions {
            user_metadata: BTreeMap::from([(VALUE.to_owned(), value.0.to_string())]),
            precondition: precondition(condition),
            size_hint,
            ..PutOptions::default()
        }
    }

    fn check_receipt(&self, number: u64, value: ValueId, size: u64, manner: Manner, receipt: &Receipt) {
        let key = key_name(number);
        if receipt.size != size {
            self.broken(format!("{key}: {value} has {size} bytes, its receipt says {}", receipt.size));
        }
        if let Manner::Fails(at) = manner {
            self.broken(format!("{key}: {value} was acknowledged, though its source failed at byte {at}"));
        }
        if receipt.slots_missing > 0 {
            self.cluster.world.probe("a put was acknowledged with slots still to be filled");
        }
        if receipt.below_policy {
            self.cluster.world.probe("a put was acknowledged below policy");
        }
        let before = *lock(&self.workload.versions).entry(value).or_insert(receipt.version);
        if before != receipt.version {
            self.broken(format!("{key}: {value} was read as {before}, its receipt says {}", receipt.version));
        }
        self.saw(number, receipt.version, size);
    }

    /// Some errors cannot be, whatever the faults.
    fn check_put_error(&self, error: &PutError) {
        if matches!(error, PutError::Invalid(_)) {
            self.broken(format!("a well-formed put was found invalid: {error}"));
        }
    }
}

fn given_up(has_begun: bool) -> &'static str {
    if has_begun { "a put was given up during its commit" } else { "a put was given up before its commit" }
}

/// A receipt as the ledger keeps it.
pub(crate) fn ledger_receipt(receipt: &Receipt) -> history::Receipt {
    history::Receipt {
        version: receipt.version,
        disks: receipt.tolerates.disks,
        nodes: receipt.tolerates.nodes,
        racks: receipt.tolerates.racks,
        slots_missing: receipt.slots_missing,
    }
}
