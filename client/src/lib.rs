//! The library that services use: put, get, delete and list objects; and operators' calls.
//!
//! A [`Cluster`] is reached over its metadata servers. From there a [`Tenant`] has [`Bucket`]s, and a
//! bucket has objects under keys; [`Admin`] is for operators. Objects are immutable: a put makes a new
//! version, and each key is linearizable.
//!
//! # What is promised
//!
//! - When a put returns, its [`Receipt`] says what may be lost at the same time from now on
//!   (`tolerates: 2 disks, 1 rack`). Before, nothing of the object is visible. [`PutError::Unknown`]
//!   alone leaves open whether it is: the commit was sent and nobody answered.
//! - A get gives the right bytes or an error, never wrong ones: each 64 KiB block is verified as it
//!   comes, what is made from other shards is made from verified blocks, and the last piece of a
//!   whole object is given only when the object's own checksum is right.
//! - A put or a get holds at most three stripes in memory, whatever the object's size.
//! - One slow or dead disk does not stop either: a get asks other shards after a moment (three times
//!   what is usual, at most a second); a put goes to another group, or on without the disk as long as
//!   the profile's `min_durable` shards of each stripe are durable. Places that failed are avoided for
//!   some seconds, so that each stripe does not find out anew.
//!
//! # How an object travels
//!
//! Up to 4 KiB it lies in the metadata record. A little more than that, up to the profile's limit, is
//! replicated; the rest is coded: cut into stripes of `k` shards, `m` parity shards added, all written
//! in parallel to the disks of one placement group, the next stripes following while the first are
//! still under way. Reads fetch only the blocks of the data shards that hold what is wanted, and
//! decode only when one of those does not come.
//!
//! # Example
//!
//! ```no_run
//! use bytes::Bytes;
//! use client::{Cluster, GetOptions, Options, PutOptions};
//! use env::Env;
//!
//! async fn example<E: Env>(env: E) -> Result<(), Box<dyn std::error::Error>> {
//!     let options = Options::new(vec!["meta-1.example:7000".to_owned()]);
//!     let cluster = Cluster::connect(env, options).await?;
//!     let tenant = cluster.tenant("dijon".parse()?);
//!     tenant.create_bucket(&"archive".parse()?, &"rs-4-2".parse()?).await?;
//!     let bucket = tenant.bucket("archive".parse()?);
//!
//!     let key = "2026/minutes.txt".parse()?;
//!     let receipt = bucket.put(&key, Bytes::from("The session is opened."), PutOptions::default()).await?;
//!     assert!(receipt.to_string().starts_with("tolerates: "));
//!
//!     let mut stream = bucket.get(&key, GetOptions::default()).await?;
//!     while let Some(bytes) = stream.next().await? {
//!         println!("{} bytes", bytes.len());
//!     }
//!     Ok(())
//! }
//! ```
//!
//! # Inside
//!
//! Decisions are plain code with tests of its own: which slots have what (`put/progress`), which group
//! to take (`put/choice`), which shard to ask next (`get/stripe`), which bytes lie where (`get/plan`).
//! The async code around them (`put/extent`, `get/fetch`) waits, and does what they say. Files are read
//! by whoever calls: this crate takes a [`Source`] and gives [`bytes::Bytes`].

mod admin;
mod bucket;
mod cluster;
mod error;
mod get;
mod group;
mod listing;
mod object;
mod put;
mod source;
mod suspects;
mod tenant;

pub use admin::Admin;
pub use bucket::{Bucket, GetOptions, PutOptions};
pub use cluster::{Cluster, Options};
pub use error::{DeleteError, Error, GetError, PutError, Reasons, SourceError};
pub use get::ObjectStream;
pub use listing::{ListOptions, Listing, Page};
pub use object::{ObjectInfo, ObjectStat, Precondition, Receipt, Tolerance};
pub use source::Source;
pub use tenant::Tenant;
