//! Gets and heads.

use std::ops::Range;
use std::time::Duration;

use client::{Bucket, GetError, GetOptions, ObjectInfo, ObjectStream};
use env::{Clock, Env};
use simhost::SimEnv;

use super::choice::key_name;
use super::outcome;
use super::running::{Begun, Limit};
use super::verify::{Reading, range_of};
use super::worker::{Service, Worker};
use crate::history::{Found, Key, Op, Outcome, ValueId};
use crate::process::lock;

/// How a reader takes what comes.
#[derive(Clone, Copy)]
struct Habit {
    /// Rest after the first piece.
    rest: Duration,
    /// Pieces after which it has seen enough.
    pieces_max: u32,
}

/// What a stream has given.
struct Taken {
    found: Found,
    reading: Reading,
    pieces: u32,
}

impl Worker {
    /// Reads the object or a range of it, and checks every byte.
    pub(super) async fn get(
        &self,
        bucket: &Bucket<SimEnv>,
        number: u64,
        range: Option<Range<u64>>,
    ) -> Service {
        let key = key_name(number);
        let limit = Limit::call(self.timeout());
        let begun = self.begin(&key, Op::Get { range: range.clone() }, limit);
        let options = GetOptions { range: range.clone(), timeout: None };
        let mut stream = match bucket.get(&key.name, options).await {
            Ok(stream) => stream,
            Err(error) => return self.get_failed(begun, number, range.as_ref(), &error),
        };
        let habit = self.habit();
        let mut taken = None;
        loop {
            // The object may be another one until its first piece has come.
            let bytes = stream.range().end.saturating_sub(stream.range().start);
            begun.set_limit(self.limit(
                self.timeout(),
                stream.info().size,
                bytes,
                self.timeout() + habit.rest,
            ));
            match stream.next().await {
                Ok(Some(bytes)) => {
                    if self.take(&key, &stream, range.as_ref(), &mut taken, &bytes).is_none() {
                        return Service::Reached;
                    }
                    let pieces = taken.as_ref().map_or(0, |taken| taken.pieces);
                    if pieces >= habit.pieces_max {
                        self.cluster.world.probe("a get was given up half-way");
                        break;
                    }
                    if pieces == 1 && !habit.rest.is_zero() {
                        self.env.clock().sleep(habit.rest).await;
                    }
                }
                Ok(None) => {
                    // An object or a range without bytes has its say only now.
                    let nothing = bytes::Bytes::new();
                    if self.take(&key, &stream, range.as_ref(), &mut taken, &nothing).is_none() {
                        return Service::Reached;
                    }
                    if let Some(Err(text)) = taken.as_ref().map(|taken| taken.reading.end()) {
                        self.broken(text);
                    }
                    break;
                }
                Err(error) => return self.get_broke_off(begun, number, range.as_ref(), taken, &error),
            }
        }
        let found = taken.map(|taken| taken.found);
        if let Some(found) = found {
            self.saw(number, found.version, found.size);
        }
        begun.end(Outcome::Read(found));
        Service::Reached
    }

    /// Asks for what is known of the object.
    pub(super) async fn head(&self, bucket: &Bucket<SimEnv>, number: u64) -> Service {
        let key = key_name(number);
        let begun = self.begin(&key, Op::Head, Limit::call(self.timeout()));
        match bucket.head(&key.name).await {
            Ok(info) => {
                let Some(value) = self.check(&key, &info) else { return Service::Reached };
                self.saw(number, info.version, info.size);
                begun.end(Outcome::Read(Some(found(&info, value))));
                Service::Reached
            }
            Err(error) => self.get_failed(begun, number, None, &error),
        }
    }

    fn habit(&self) -> Habit {
        let rest = if self.stream.chance(50_000) { self.stream.between(1, 2_000) } else { 0 };
        let pieces_max = if self.stream.chance(30_000) { self.stream.between(1, 4) } else { u64::MAX };
        Habit { rest: Duration::from_millis(rest), pieces_max: u32::try_from(pieces_max).unwrap_or(u32::MAX) }
    }

    /// Checks a piece, and before the first one what the stream says of the object. None when something
    /// is wrong; that was reported.
    fn take(
        &self,
        key: &Key,
        stream: &ObjectStream<SimEnv>,
        asked: Option<&Range<u64>>,
        taken: &mut Option<Taken>,
        bytes: &[u8],
    ) -> Option<()> {
        let info = stream.info();
        let taken = match taken {
            Some(taken) => taken,
            None => taken.insert(self.first_piece(key, stream, asked)?),
        };
        if taken.found.version != info.version {
            let before = taken.found.version;
            self.broken(format!("{key}: a get of {before} went on with bytes of {}", info.version));
            return None;
        }
        taken.pieces = taken.pieces.saturating_add(1);
        let right = taken.reading.take(&lock(&self.cluster.ledger), bytes);
        right.map_err(|text| self.broken(text)).ok()
    }

    fn first_piece(
        &self,
        key: &Key,
        stream: &ObjectStream<SimEnv>,
        asked: Option<&Range<u64>>,
    ) -> Option<Taken> {
        let info = stream.info();
        let value = self.check(key, info)?;
        let range = match range_of(asked, info.size) {
            Ok(range) if range == stream.range() => range,
            Ok(range) => {
                self.broken(format!("{key}: {asked:?} gives bytes {:?}, not {range:?}", stream.range()));
                return None;
            }
            Err(text) => {
                self.broken(format!("{key}: {text}"));
                return None;
            }
        };
        let reading = Reading::new(key, value, info.size, range);
        Some(Taken { found: found(info, value), reading, pieces: 0 })
    }

    /// A get failed after it had begun to give bytes, or before. What it gave is a read all the same: it
    /// was there when the get was asked for.
    fn get_broke_off(
        &self,
        begun: Begun,
        number: u64,
        asked: Option<&Range<u64>>,
        taken: Option<Taken>,
        error: &GetError,
    ) -> Service {
        let Some(taken) = taken else { return self.get_failed(begun, number, asked, error) };
        self.check_get_error(&key_name(number), asked, error);
        let ended = outcome::of_get(error);
        self.failed(begun, outcome::Ended { outcome: Outcome::Read(Some(taken.found)), ..ended }, error)
    }

    fn get_failed(&self, begun: Begun, number: u64, asked: Option<&Range<u64>>, error: &GetError) -> Service {
        self.check_get_error(&key_name(number), asked, error);
        let ended = outcome::of_get(error);
        if ended.outcome == Outcome::Read(None) {
            self.gone(number);
        }
        self.failed(begun, ended, error)
    }

    /// Some errors cannot be, whatever the faults.
    fn check_get_error(&self, key: &Key, asked: Option<&Range<u64>>, error: &GetError) {
        match error {
            GetError::Damaged(_) => self.broken(format!("{key}: {error}")),
            GetError::NoSuchBucket(_) => self.broken(format!("{key}: its bucket was acknowledged; {error}")),
            GetError::BadRange { size, .. } if range_of(asked, *size).is_ok() => {
                self.broken(format!("{key}: {asked:?} was refused: {error}"));
            }
            _ => {}
        }
    }
}

fn found(info: &ObjectInfo, value: ValueId) -> Found {
    Found { value: Some(value), version: info.version, size: info.size }
}
