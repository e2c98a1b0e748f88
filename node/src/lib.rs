//! The storage node: the shard store of each disk, the shard service, rebuild
